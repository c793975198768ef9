"""What DICOM headers say of a series: its physics and its geometry."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

#: Transfer syntaxes that do not compress: a file then holds at least its pixels.
UNCOMPRESSED = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}

#: Fewer slices than this are what is left of a volume, or a scout.
LEAST_SLICES = 4
#: Philips keeps the scale of the signal here, beside that of the values that are displayed, and in
#: multi-frame files in an item of the sequence after it, one a frame (Chenevert et al., Transl
#: Oncol 2014;7:65).
PHILIPS_SCALE, PHILIPS_FRAME = (0x2005, 0x100E), (0x2005, 0x140F)
#: Where GE says what an image shows of the complex signal, and how.
GE_COMPONENT = (0x0043, 0x102F)
GE_COMPONENTS = {1: "PHASE", 2: "REAL", 3: "IMAGINARY"}
#: Sequences of a multi-frame file, shared or of a frame, that hold what is read here.
GROUPS = (
    "PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence",
    "MREchoSequence", "MRModifierSequence", "MRTimingAndRelatedParametersSequence",
    "PixelValueTransformationSequence", "MRImageFrameTypeSequence", PHILIPS_FRAME,
)  # fmt: skip
#: Words in an image type, its underscores and blanks read as gaps, of what is no magnitude, and of
#: what was reckoned from other images. DERIVED is none of them: scanners call many an ordinary
#: reconstruction so.
NO_MAGNITUDE = {"P", "PHASE", "R", "REAL", "I", "IMAGINARY", "COMPONENTS"}
SUBTRACTED = {"SUB", "SUBTRACT", "SUBTRACTED", "SUBTRACTION"}
RECKONED = SUBTRACTED | {
    "MIP", "MINIP", "MNIP", "IP", "PROJECTION", "PJN", "MPR", "CPR", "CURVED", "REFORMATTED",
    "RENDER", "RENDERED", "VRT", "MAP", "MEAN", "MAXIMUM", "MINIMUM", "DEVIATION", "ADDITION",
    "MULTIPLICATION", "DIVISION", "SCREEN",
}  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """Place of one frame: its file, position and orientation (LPS mm)."""

    file: Path
    position: tuple[float, float, float]
    orientation: tuple[float, ...]


@dataclass
class SeriesHeader:
    """A series as its headers describe it; times in ms, None where the headers are silent.

    `patient` is empty where the headers name nobody; `flat` is an image that was taken slice by
    slice; `image_type` also says what component of the complex signal is shown, where that is not
    its magnitude; `scales` are slope, intercept and Philips' own scale of the stored intensities;
    `times` are the echo and the inversion times of all slices; `names`, `births` and `sexes` what
    the headers say of the patient; `instances` tell a copy of a file from another slice, `copies`
    counts those that were passed over; `numbers` are those of the files.
    """

    uid: str
    study_uid: str
    patient: str
    study_date: str
    study_time: str
    number: int
    tr_ms: float | None
    te_ms: float | None
    ti_ms: float | None
    inversion: bool
    flat: bool
    image_type: tuple[str, ...]
    rows: int
    columns: int
    pixel_spacing_mm: tuple[float, float]
    field_t: float | None
    manufacturer: str
    slices: list[Slice]
    truncated: list[Path]
    scales: set[tuple[float, ...]]
    grids: set[tuple[int, int, float, float]]
    times: set[tuple[float | None, float | None]]
    names: set[str]
    births: set[str]
    sexes: set[str]
    instances: set[tuple[object, ...]]
    numbers: set[int]
    copies: int = 0

    def add(self, other: SeriesHeader) -> None:
        """Take in what another file of the same series holds, unless it is a copy of one."""
        if other.instances and other.instances <= self.instances:
            self.copies += 1
            return
        self.slices += other.slices
        self.truncated += other.truncated
        self.scales |= other.scales
        self.grids |= other.grids
        self.times |= other.times
        self.names |= other.names
        self.births |= other.births
        self.sexes |= other.sexes
        self.instances |= other.instances
        self.numbers |= other.numbers

    @property
    def files(self) -> list[Path]:
        """Files of the series, each once, in the order of their names."""
        return sorted({s.file for s in self.slices})

    @property
    def is_mosaic(self) -> bool:
        """Whether each file holds all slices of a volume side by side (Siemens)."""
        return "MOSAIC" in self.image_type

    @property
    def lacks_philips_scale(self) -> bool:
        """Whether a Philips scanner's own scale of the signal was lost on the way."""
        philips = self.manufacturer.upper().startswith("PHILIPS")
        return philips and any(own == 1.0 for _, _, own in self.scales)

    @property
    def places(self) -> int:
        """Number of different slice positions."""
        normal = self._normal()
        along = np.sort([float(np.dot(s.position, normal)) for s in self.slices])
        return 1 + int((np.diff(along) > 1e-3).sum())

    def describe(self) -> str:
        """The series in words that identify it and nobody."""
        echo, inversion = (sorted({t for t in column if t}) for column in zip(*self.times))
        times = [
            f"{name} {' and '.join(f'{value:g}' for value in values)}"
            for name, values in (
                ("TR", [self.tr_ms] if self.tr_ms else []),
                ("TE", echo),
                ("TI", inversion),
            )
            if values
        ]
        told = [f"{', '.join(times)} ms"] if times else []
        told += ["2D"] if self.flat else []
        within = f" ({', '.join(told)})" if told else ""
        kind = "/".join(v for v in self.image_type if v not in ("ORIGINAL", "PRIMARY", ""))
        return f"series {self.number}{within}{f' of type {kind}' if kind else ''}"

    def geometry_fault(self) -> str | None:
        """Why the slices make no volume, in a sentence that names no file, or None if they do."""
        if self.truncated:
            where = self.files.index(self.truncated[0]) + 1
            return (
                f"{self.describe()}: file {where} of {len(self.files)}, in the order of their "
                "names, is cut off"
            )
        if len(self.times) > 1:
            return f"{self.describe()}: its slices differ in echo or inversion time"
        if len(self.slices) < LEAST_SLICES:
            return f"{self.describe()}: only {len(self.slices)} slice(s) are there, no volume"
        orientations = np.array([s.orientation for s in self.slices])
        if np.abs(orientations - orientations[0]).max() > 1e-3:
            return f"{self.describe()}: its slices are not parallel, so they make no volume"
        if len(self.grids) > 1:
            return f"{self.describe()}: its slices differ in matrix or pixel size"
        normal = self._normal()
        along = np.sort([float(np.dot(s.position, normal)) for s in self.slices])
        steps = np.diff(along)
        typical = float(np.median(steps))
        if typical < 1e-3 or (steps < 0.01 * typical).any():
            return f"{self.describe()}: several slices lie at the same place"
        gaps = int(np.round(steps / typical - 1.0).clip(0).sum())
        if gaps:
            where = int(np.argmax(np.round(steps / typical) > 1)) + 1
            return (
                f"{self.describe()}: {gaps} slice(s) missing, the first gap lies after slice "
                f"{where} of {len(self.slices)}"
            )
        if np.abs(steps - typical).max() > 0.05 * typical:
            return f"{self.describe()}: its slices are not evenly spaced"
        return None

    def corners(self) -> npt.NDArray[np.float64]:
        """World position (8, 3), RAS mm, of the corner voxels' centres."""
        normal = self._normal()
        ordered = sorted(self.slices, key=lambda s: float(np.dot(s.position, normal)))
        first, last = (np.array(s.position) for s in (ordered[0], ordered[-1]))
        row, column = np.array(self.slices[0].orientation).reshape(2, 3)
        across = row * self.pixel_spacing_mm[1] * (self.columns - 1)
        down = column * self.pixel_spacing_mm[0] * (self.rows - 1)
        points = [p + i * across + j * down for p in (first, last) for i in (0, 1) for j in (0, 1)]
        return np.array(points) * [-1.0, -1.0, 1.0]

    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of columns, rows and slices, mm."""
        normal = self._normal()
        along = np.sort([float(np.dot(s.position, normal)) for s in self.slices])
        step = float(np.median(np.diff(along))) if len(along) > 1 else 0.0
        return self.pixel_spacing_mm[1], self.pixel_spacing_mm[0], step

    def _normal(self) -> npt.NDArray[np.float64]:
        row, column = np.array(self.slices[0].orientation).reshape(2, 3)
        return np.asarray(np.cross(row, column))


def find_series(files: Iterable[Path]) -> tuple[list[SeriesHeader], list[Path]]:
    """Group DICOM files into series; what was made of images is a series beside them.

    Returns
    -------
    The series, by number, and the files that are no DICOM images, or whose headers hold something
    that cannot be read.
    """
    series: dict[tuple[object, ...], SeriesHeader] = {}
    ignored = []
    with _without_warnings():
        for path in sorted(files):
            try:
                one = _read_header(path)
            except Exception:
                # What is broken raises nearly anything in pydicom, and must cost only itself.
                ignored.append(path)
                continue
            kind = frozenset(made_of_others(one.image_type))
            key = (one.patient, one.study_uid, one.uid, kind)
            if key in series:
                series[key].add(one)
            else:
                series[key] = one
    return sorted(series.values(), key=lambda s: (s.number, s.uid)), ignored


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Warnings of pydicom quote values and the names of files, which no log may hold."""
    logger, level = pydicom.config.logger, pydicom.config.logger.level
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


def words_of(image_type: Iterable[str]) -> set[str]:
    """The words in the values of an image type: ``CSA MPR`` has two, ``R_IR`` as well."""
    return {word for value in image_type for word in re.split(r"[^A-Z0-9]+", value.upper())} - {""}


def made_of_others(image_type: Iterable[str]) -> set[str]:
    """Words of an image type that tell that it is not the magnitude that the scanner took."""
    return words_of(image_type) & (NO_MAGNITUDE | RECKONED)


def _read_header(path: Path) -> SeriesHeader:
    """What one file says of its series; any of many errors if it is not an image's."""
    with path.open("rb") as stream:
        header = pydicom.dcmread(stream, stop_before_pixels=True)
        pixels_at = stream.tell()
    te = _first(header, "EchoTime") or _first(header, "EffectiveEchoTime")
    ti = _first(header, "InversionTime") or _first(header, "InversionTimes")
    kind = [str(v) for v in _listed(header.get("ScanningSequence"))]
    inverted = bool(ti) or "IR" in kind or _find(header, "InversionRecovery") == "YES"
    rows, columns, height, width = _grid(header)
    slices = _slices(path, header)
    number, name = _said(header, "PatientID"), _name(header)
    instance = _said(header, "SOPInstanceUID")
    return SeriesHeader(
        uid=str(header.SeriesInstanceUID),
        study_uid=str(header.get("StudyInstanceUID", "")),
        # A name is written in many ways, so it counts only where there is no number.
        patient=f"number {number}" if number else f"name {name}" if name else "",
        study_date=_said(header, "StudyDate"),
        study_time=_said(header, "StudyTime"),
        number=int(header.get("SeriesNumber") or 0),
        tr_ms=_first(header, "RepetitionTime"),
        te_ms=te,
        ti_ms=ti or None,
        inversion=inverted,
        flat=header.get("MRAcquisitionType") == "2D",
        image_type=_image_type(header),
        rows=rows,
        columns=columns,
        pixel_spacing_mm=(height, width),
        field_t=_first(header, "MagneticFieldStrength"),
        manufacturer=str(header.get("Manufacturer", "")),
        slices=slices,
        truncated=[path] if _is_cut_off(path, header, pixels_at) else [],
        scales=_scales(header),
        grids={(rows, columns, height, width)},
        times=_times(header, te, ti or None),
        names={name} - {""},
        births={_said(header, "PatientBirthDate")} - {""},
        sexes={_said(header, "PatientSex")} - {""},
        # Those that took the names away may have given one UID to all.
        instances={(instance, slices[0].position)} if instance else set(),
        numbers={int(header.get("InstanceNumber") or 0)} - {0},
    )


def _said(header: pydicom.Dataset, keyword: str) -> str:
    return str(header.get(keyword) or "").strip()


def _name(header: pydicom.Dataset) -> str:
    """Name of the patient, however its letters and its end are written."""
    return _said(header, "PatientName").casefold().rstrip("^= ")


def _image_type(header: pydicom.Dataset) -> tuple[str, ...]:
    """Values of the image type and of the frames' types, and the component that is shown."""
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    told = _listed(header.get("ImageType"))
    components = {str(_find(header, "ComplexImageComponent") or "")}
    for frame in frames:
        told += _listed(_find(frame, "FrameType"))
        components.add(str(_find(frame, "ComplexImageComponent") or ""))
    if str(header.get("Manufacturer", "")).upper().startswith("GE"):
        components.add(_ge_component(header))
    named = ["MIXED COMPONENTS" if c == "MIXED" else c for c in sorted(components)]
    values = [str(value) for value in [*told, *named] if value not in ("", "MAGNITUDE")]
    return tuple(dict.fromkeys(values))


def _ge_component(header: pydicom.Dataset) -> str:
    told = header.get(GE_COMPONENT)
    value = told.value if told is not None else 0
    number = int.from_bytes(value, "little") if isinstance(value, bytes) else value
    return GE_COMPONENTS.get(number, "")


def _times(
    header: pydicom.Dataset, te: float | None, ti: float | None
) -> set[tuple[float | None, float | None]]:
    """Echo and inversion time of each frame, to a tenth of a ms; the file's where it has none."""
    frames = header.get("PerFrameFunctionalGroupsSequence") or [header]
    found = {
        (_first(f, "EffectiveEchoTime") or te, _first(f, "InversionTimes") or ti) for f in frames
    }
    return {(e and round(e, 1), i and round(i, 1)) for e, i in found}


def _scales(header: pydicom.Dataset) -> set[tuple[float, ...]]:
    """Slope, intercept and Philips' scale of the stored intensities of each frame.

    Where a frame tells none, those that all of a file's share.
    """
    shared = (header.get("SharedFunctionalGroupsSequence") or [header])[0]
    return {
        (
            _first(frame, "RescaleSlope") or _first(shared, "RescaleSlope") or 1.0,
            _first(frame, "RescaleIntercept") or _first(shared, "RescaleIntercept") or 0.0,
            _philips_scale(frame),
        )
        for frame in header.get("PerFrameFunctionalGroupsSequence") or [header]
    }


def _philips_scale(frame: pydicom.Dataset) -> float:
    inner = frame.get(PHILIPS_FRAME)
    nested = inner is not None and inner.VR == "SQ" and len(inner.value) > 0
    told = (inner.value[0] if nested else frame).get(PHILIPS_SCALE)
    return float(told.value) if told is not None and isinstance(told.value, float) else 1.0


def _grid(header: pydicom.Dataset) -> tuple[int, int, float, float]:
    """Rows, columns, and the height and width of a pixel, mm."""
    size = _numbers(_find(header, "PixelSpacing") or (1.0, 1.0), 2)
    if min(size) <= 0.0:
        raise ValueError("pixels without extent")
    height, width = (round(v, 4) for v in size)
    return int(header.Rows), int(header.Columns), height, width


def _slices(path: Path, header: pydicom.Dataset) -> list[Slice]:
    """Place of each frame; a file without one holds no volume, and raises."""
    shared = _find(header, "ImageOrientationPatient")
    return [
        Slice(
            path,
            _numbers(_find(frame, "ImagePositionPatient"), 3),  # type: ignore[arg-type]
            _numbers(_find(frame, "ImageOrientationPatient") or shared, 6),
        )
        for frame in header.get("PerFrameFunctionalGroupsSequence") or [header]
    ]


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    """So many finite numbers; raises `ValueError` if they are not."""
    numbers = tuple(float(v) for v in values)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"not {count} finite numbers")
    return numbers


def _find(header: pydicom.Dataset, keyword: str) -> Any:
    """A value at the top or, in multi-frame files, in the shared or first frame's groups.

    Nothing else is looked at: what a private element holds may be broken.
    """
    if keyword in header:
        return header.get(keyword)
    of_frames = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
    for group in (*(g for name in of_frames for g in (header.get(name) or [])[:1]), header):
        for name in GROUPS:
            items = _items(group, name)
            if items and keyword in items[0]:
                return items[0].get(keyword)
    return None


def _items(header: pydicom.Dataset, name: str | tuple[int, int]) -> Sequence[pydicom.Dataset]:
    """Items of a sequence, none where there is none."""
    if name not in header:
        return []
    element = header[name]
    return element.value or [] if element.VR == "SQ" else []


def _first(header: pydicom.Dataset, keyword: str) -> float | None:
    values = _listed(_find(header, keyword))
    return float(values[0]) if values and values[0] not in (None, "") else None


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]


def _is_cut_off(path: Path, header: pydicom.Dataset, pixels_at: int) -> bool:
    """Whether a file ends before its pixels do, which begin at this byte, if not compressed."""
    syntax = str(getattr(header.file_meta, "TransferSyntaxUID", ""))
    if syntax not in UNCOMPRESSED:
        return False
    frames = int(header.get("NumberOfFrames") or 1)
    samples = int(header.get("SamplesPerPixel") or 1)
    pixels = int(header.Rows) * int(header.Columns) * int(header.BitsAllocated) // 8
    return path.stat().st_size < pixels_at + pixels * frames * samples
