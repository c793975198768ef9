"""What DICOM headers say of a series: its physics and its geometry."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError

#: Transfer syntaxes that do not compress: a file then holds at least its pixels.
UNCOMPRESSED = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}

#: Fewer slices than this are what is left of a volume, or a scout.
LEAST_SLICES = 4
#: Philips keeps the scale of the signal here, beside that of the values that are displayed, and in
#: multi-frame files in an item of the sequence after it, one a frame (Chenevert et al., Transl
#: Oncol 2014;7:65).
PHILIPS_SCALE, PHILIPS_FRAME = (0x2005, 0x100E), (0x2005, 0x140F)


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
    slice; `scales` are slope, intercept and Philips' own scale of the stored intensities.
    """

    uid: str
    study_uid: str
    patient: str
    study_date: str
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

    def add(self, other: SeriesHeader) -> None:
        """Take in what another file of the same series holds."""
        self.slices += other.slices
        self.truncated += other.truncated
        self.scales |= other.scales
        self.grids |= other.grids

    @property
    def files(self) -> list[Path]:
        """Files of the series, each once, in the order of their names."""
        return sorted({s.file for s in self.slices})

    @property
    def is_mosaic(self) -> bool:
        """Whether each file holds all slices of a volume side by side (Siemens)."""
        return "MOSAIC" in self.image_type

    @property
    def places(self) -> int:
        """Number of different slice positions."""
        normal = self._normal()
        along = np.sort([float(np.dot(s.position, normal)) for s in self.slices])
        return 1 + int((np.diff(along) > 1e-3).sum())

    def describe(self) -> str:
        """The series in words that identify it and nobody."""
        times = [
            f"{name} {value:g}"
            for name, value in (("TR", self.tr_ms), ("TE", self.te_ms), ("TI", self.ti_ms))
            if value
        ]
        told = [f"{', '.join(times)} ms"] if times else []
        told += ["2D"] if self.flat else []
        return f"series {self.number} ({', '.join(told)})" if told else f"series {self.number}"

    def geometry_fault(self) -> str | None:
        """Why the slices make no volume, in a sentence, or None if they do."""
        if self.truncated:
            return f"{self.describe()}: the file {self.truncated[0].name} is cut off"
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
    """Group DICOM files into series.

    Returns
    -------
    The series, by number, and the files that are no DICOM images, or whose headers hold something
    that cannot be read.
    """
    series: dict[str, SeriesHeader] = {}
    ignored = []
    for path in sorted(files):
        try:
            one = _read_header(path)
        except (
            InvalidDicomError,
            AttributeError,
            OSError,
            EOFError,
            ValueError,
            KeyError,
            IndexError,
            TypeError,
        ):
            ignored.append(path)
            continue
        if one.uid in series:
            series[one.uid].add(one)
        else:
            series[one.uid] = one
    return sorted(series.values(), key=lambda s: (s.number, s.uid)), ignored


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, also by links, each folder once; hidden ones are left out."""
    found: list[Path] = []
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        where = os.path.realpath(root)
        folders[:] = [name for name in folders if where not in seen and not name.startswith(".")]
        if where not in seen:
            found += [Path(root) / name for name in names if not name.startswith(".")]
        seen.add(where)
    return found


def _read_header(path: Path) -> SeriesHeader:
    """What one file says of its series; any of many errors if it is not an image's."""
    header = pydicom.dcmread(path, stop_before_pixels=True)
    te = _first(header, "EchoTime") or _first(header, "EffectiveEchoTime")
    ti = _first(header, "InversionTime") or _first(header, "InversionTimes")
    kind = [str(v) for v in _listed(header.get("ScanningSequence"))]
    inverted = bool(ti) or "IR" in kind or _find(header, "InversionRecovery") == "YES"
    rows, columns, height, width = _grid(header)
    named = [str(header.get(key) or "") for key in ("PatientID", "PatientName")]
    return SeriesHeader(
        uid=str(header.SeriesInstanceUID),
        study_uid=str(header.get("StudyInstanceUID", "")),
        patient="^".join(named) if any(named) else "",
        study_date=str(header.get("StudyDate", "")),
        number=int(header.get("SeriesNumber") or 0),
        tr_ms=_first(header, "RepetitionTime"),
        te_ms=te,
        ti_ms=ti or None,
        inversion=inverted,
        flat=header.get("MRAcquisitionType") == "2D",
        image_type=tuple(str(v) for v in _listed(header.get("ImageType"))),
        rows=rows,
        columns=columns,
        pixel_spacing_mm=(height, width),
        field_t=_first(header, "MagneticFieldStrength"),
        manufacturer=str(header.get("Manufacturer", "")),
        slices=_slices(path, header),
        truncated=[path] if _is_cut_off(path, header) else [],
        scales=_scales(header),
        grids={(rows, columns, height, width)},
    )


def _scales(header: pydicom.Dataset) -> set[tuple[float, ...]]:
    """Slope, intercept and Philips' scale of the stored intensities of each frame."""
    return {
        (
            _first(frame, "RescaleSlope") or 1.0,
            _first(frame, "RescaleIntercept") or 0.0,
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
    height, width = (round(float(v), 4) for v in _find(header, "PixelSpacing") or (1.0, 1.0))
    return int(header.Rows), int(header.Columns), height, width


def _slices(path: Path, header: pydicom.Dataset) -> list[Slice]:
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if not groups:
        return [
            Slice(
                path,
                tuple(float(v) for v in header.ImagePositionPatient),  # type: ignore[arg-type]
                tuple(float(v) for v in header.ImageOrientationPatient),
            )
        ]
    shared = _find(header, "ImageOrientationPatient")
    return [
        Slice(
            path,
            tuple(float(v) for v in _find(frame, "ImagePositionPatient")),  # type: ignore[arg-type]
            tuple(float(v) for v in _find(frame, "ImageOrientationPatient") or shared),
        )
        for frame in groups
    ]


def _find(header: pydicom.Dataset, keyword: str) -> Any:
    """A value at the top or, in multi-frame files, in the shared or first frame's groups."""
    if keyword in header:
        return header.get(keyword)
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in list(header.get(name) or [])[:1]:
            for element in group:
                if element.VR == "SQ" and element.value and keyword in element.value[0]:
                    return element.value[0].get(keyword)
    for element in header:
        if element.VR == "SQ" and element.value and keyword in element.value[0]:
            return element.value[0].get(keyword)
    return None


def _first(header: pydicom.Dataset, keyword: str) -> float | None:
    values = _listed(_find(header, keyword))
    return float(values[0]) if values and values[0] not in (None, "") else None


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]


def _is_cut_off(path: Path, header: pydicom.Dataset) -> bool:
    syntax = str(getattr(header.file_meta, "TransferSyntaxUID", ""))
    if syntax not in UNCOMPRESSED:
        return False
    frames = int(header.get("NumberOfFrames") or 1)
    samples = int(header.get("SamplesPerPixel") or 1)
    pixels = int(header.Rows) * int(header.Columns) * int(header.BitsAllocated) // 8
    return path.stat().st_size < pixels * frames * samples
