"""Ingest: find the image of each role in a session's files and convert it, without names."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dcm2niix
import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.openers import ImageOpener

from hydrops.arrays import Affine
from hydrops.dicom import (
    SUBTRACTED,
    SeriesHeader,
    find_series,
    made_of_others,
    words_of,
)
from hydrops.errors import ExcludedError
from hydrops.images import (
    corners_of,
    grid_centre,
    in_words,
    load_image,
    read_placement,
    read_sidecar,
    sidecar_of,
    spacing_mm,
    why_sides_are_unknown,
    write_gzip,
)
from hydrops.paths import Paths, Unit
from hydrops.protocol import Protocol, Rule
from hydrops.records import StageResult
from hydrops.sources import look_below

#: What of a sidecar is kept: physics, and nothing that says who, where or when.
SIDECAR_KEYS = (
    "Modality", "MagneticFieldStrength", "Manufacturer", "ManufacturersModelName",
    "MRAcquisitionType", "ScanningSequence", "SequenceVariant", "ScanOptions", "SequenceName",
    "PulseSequenceName", "ImageType", "SliceThickness", "SpacingBetweenSlices", "EchoTime",
    "RepetitionTime", "InversionTime", "FlipAngle", "EchoTrainLength", "NumberOfAverages",
    "PixelBandwidth", "PartialFourier", "ParallelReductionFactorInPlane", "PercentSampling",
    "ConversionSoftware", "ConversionSoftwareVersion",
)  # fmt: skip
#: Fields of a NIfTI header that hold words, of its first or second version.
FREE_TEXT = {"data_type", "db_name", "descrip", "aux_file", "intent_name"}
#: Least extent of an image that can hold an ear, mm, and voxels across that show it.
LEAST_EXTENT_MM, LEAST_VOXELS = 15.0, 8
#: Of series that could all play one role, so many are named.
MOST_NAMED = 3


@dataclass(frozen=True)
class Candidate:
    """An image that may play a role: how to name it, its timing in ms, whether it is 2D.

    `sound` is false where its slices are known to make no volume.
    """

    name: str
    tr_ms: float | None
    te_ms: float | None
    ti_ms: float | None
    inversion: bool
    image_type: tuple[str, ...]
    series_number: int | None = None
    flat: bool = False
    sound: bool = True


def ingest_session(source: Path, unit: Unit, protocol: Protocol, output: Path) -> StageResult:
    """Write the image of every role, and its sidecar, below `output`.

    Parameters
    ----------
    source
        Folder (any depth) of DICOM, or of NIfTI with or without BIDS sidecars.
    output
        Gets ``anat/sub-..._ses-..._acq-<role>_<suffix>.nii.gz`` and ``.json``.

    Raises
    ------
    ExcludedError
        If a role has no or two candidates, slices are missing, files are broken, the folder
        holds two studies, the images do not share a field of view, or a NIfTI does not tell left
        from right.
    """
    if not os.path.isdir(source):
        raise ExcludedError("its source folder does not exist, or may not be entered")
    files, closed = look_below(source)
    if closed:
        raise ExcludedError(
            f"{len(closed)} of the files and folders in its source folder cannot be read: "
            "permission denied; let the user who runs this read them"
        )
    niftis = sorted(path for path in files if path.name.endswith((".nii", ".nii.gz")))
    # An NIfTI beside DICOM is a mask, or was made of it.
    series, ignored = find_series(set(files) - set(niftis))
    if series or not niftis:
        numbers = _ingest_dicom(series, [*ignored, *niftis], unit, protocol, output)
    else:
        numbers = _ingest_nifti(niftis, unit, protocol, output)
    _check_overlap(unit, protocol, output)
    return StageResult(numbers)


def choose_series(series: Sequence[SeriesHeader], protocol: Protocol) -> dict[str, SeriesHeader]:
    """The one series of each role; raises as `choose` does."""
    chosen = choose([_dicom_candidate(s) for s in series], protocol)
    return {role: series[n] for role, n in chosen.items()}


def passed_over(
    series: Sequence[SeriesHeader], chosen: Mapping[str, SeriesHeader], protocol: Protocol
) -> list[str]:
    """What is to be said of series that fit a role, but make no volume where the chosen does."""
    candidates = [_dicom_candidate(s) for s in series]
    return [
        f"{candidates[n].name} could be the {role}, too, but makes no sound volume"
        for role, taken in chosen.items()
        for n in _fitting(candidates, role, protocol.roles[role])
        if series[n] is not taken
    ]


def _dicom_candidate(s: SeriesHeader) -> Candidate:
    shape = s.columns, s.rows, s.places
    return Candidate(
        s.describe(),
        s.tr_ms,
        s.te_ms,
        s.ti_ms,
        s.inversion,
        s.image_type,
        s.number,
        s.flat,
        s.geometry_fault() is None and not s.flat and _shows_an_ear(shape, s.spacing_mm()),
    )


def choose(candidates: Sequence[Candidate], protocol: Protocol) -> dict[str, int]:
    """Index of the one candidate of each role.

    Where several fit and one of them alone is sound, it is that.

    Raises
    ------
    ExcludedError
        If a role has none, or more than one, or one candidate is that of two roles.
    """
    chosen: dict[str, int] = {}
    for role, rule in protocol.roles.items():
        fitting = _fitting(candidates, role, rule)
        if not fitting:
            seen = "; ".join(c.name for c in candidates) or "no images"
            asked = "" if rule.series_number is None else f" by the number {rule.series_number}"
            raise ExcludedError(f"no series{asked} can be the {role}; found: {seen}")
        sound = [n for n in fitting if candidates[n].sound]
        left = sound if len(sound) == 1 else fitting
        if len(left) > 1:
            names = " and ".join(candidates[n].name for n in left[:MOST_NAMED])
            names += f" and {len(left) - MOST_NAMED} more" if len(left) > MOST_NAMED else ""
            raise ExcludedError(
                f"{len(left)} series could be the {role}: {names}; keep one of them in the source "
                "folder, or name one by series_number in the protocol"
            )
        chosen[role] = left[0]
    for role, n in chosen.items():
        others = [other for other, m in chosen.items() if m == n and other != role]
        if others:
            raise ExcludedError(
                f"{candidates[n].name} could be the {role} and the {others[0]}, and no series can "
                "be both; tell them apart in the protocol"
            )
    return chosen


def _fitting(candidates: Sequence[Candidate], role: str, rule: Rule) -> list[int]:
    """Those that fit a rule by physics and, where it names a number, have it."""
    return [
        n
        for n, candidate in enumerate(candidates)
        if _fits(candidate, role, rule) and rule.series_number in (None, candidate.series_number)
    ]


def _fits(candidate: Candidate, role: str, rule: Rule) -> bool:
    within = all(
        allowed is None or (value is not None and allowed[0] <= value <= allowed[1])
        for value, allowed in (
            (candidate.tr_ms, rule.tr_ms),
            (candidate.te_ms, rule.te_ms),
            (candidate.ti_ms, rule.ti_ms),
        )
    )
    inverted = rule.inversion is None or candidate.inversion == rule.inversion
    typed = rule.image_type is None or rule.image_type in candidate.image_type
    # A phase image, a projection, a subtraction has the timing of the image that it was made of.
    asked = words_of([rule.image_type or ""]) | (SUBTRACTED if role == "HYDROPS" else set())
    proper = not made_of_others(candidate.image_type) - asked
    # A FLAIR taken slice by slice for the brain may have the timing of an inversion image.
    whole = not (candidate.flat and candidate.inversion)
    return within and inverted and typed and proper and whole


def _ingest_dicom(
    series: Sequence[SeriesHeader],
    ignored: Sequence[Path],
    unit: Unit,
    protocol: Protocol,
    output: Path,
) -> dict[str, Any]:
    if not series:
        none = f"; of {len(ignored)} files none could be read as one" if ignored else ""
        raise ExcludedError(f"the source folder holds no DICOM or NIfTI image{none}")
    if len({s.study_uid for s in series}) > 1 or len({s.patient for s in series}) > 1:
        raise ExcludedError(
            "the source folder holds more than one study; give each its own row and folder"
        )
    chosen = choose_series(series, protocol)
    _check_philips(chosen)
    numbers: dict[str, Any] = {"ignored_files": len(ignored), "roles": {}}
    told = passed_over(series, chosen, protocol)
    told += [doubt for header in chosen.values() for doubt in _doubts(header, series, ignored)]
    if told:
        numbers["warnings"] = told
    for role, header in chosen.items():
        fault = header.geometry_fault()
        if fault:
            raise ExcludedError(f"{role}: {fault}")
        with tempfile.TemporaryDirectory() as scratch:
            image = convert_series(header, Path(scratch))
            sidecar = _converted_sidecar(image.with_suffix(".json"))
            _check_content(image, f"{role}: {header.describe()}")
            _store(image, sidecar, unit, role, output)
        numbers["roles"][role] = {
            "series_number": header.number,
            "shape": [header.columns, header.rows, len(header.slices)],
            "spacing_mm": [round(v, 4) for v in header.spacing_mm()],
            "tr_ms": header.tr_ms,
            "te_ms": header.te_ms,
            "ti_ms": header.ti_ms,
        }
    numbers["field_t"] = chosen["MRC"].field_t
    numbers["manufacturer"] = chosen["MRC"].manufacturer
    return numbers


def _check_philips(chosen: Mapping[str, SeriesHeader]) -> None:
    """Refuse inversion images of a Philips scanner in units that do not compare."""
    pair = [chosen[role] for role in ("PPI", "PEI") if role in chosen]
    scales = {scale for header in pair for scale in header.scales}
    if any(header.lacks_philips_scale for header in pair) and len(scales) > 1:
        raise ExcludedError(
            "PPI and PEI of this Philips scanner are scaled differently, and without its private "
            "tags (2005,100E) they do not compare; export them again with the private tags"
        )


def _doubts(
    header: SeriesHeader, series: Sequence[SeriesHeader], ignored: Sequence[Path]
) -> list[str]:
    """What may be amiss with a series that can be used all the same, in sentences."""
    told = []
    if header.copies:
        told.append(f"{header.copies} of its files were there twice, and the first was taken")
    numbers = {n for s in series if s.uid == header.uid for n in s.numbers}
    lacking = max(numbers, default=0) - len(numbers)
    if len(header.files) > 1 and lacking > 0:
        told.append(f"of the images numbered 1 to {max(numbers)}, {lacking} are not there")
    folders = {path.parent for path in header.files}
    beside = sum(path.parent in folders for path in ignored)
    if beside:
        told.append(f"{beside} file(s) beside its own cannot be read as DICOM images")
    return [f"{header.describe()}: {words}" for words in told]


def convert_series(header: SeriesHeader, folder: Path) -> Path:
    """Convert one series by dcm2niix into `folder` and check its geometry against the headers.

    Raises
    ------
    ExcludedError
        If dcm2niix fails, splits the series, or disagrees with the DICOM geometry, or the
        slices do not share one scale of intensities.
    """
    if len(header.scales) > 1:
        raise ExcludedError(
            f"{header.describe()}: its slices are stored with different intensity scales, which "
            "dcm2niix does not undo; export it again with one scale"
        )
    links = folder / "dicom"
    links.mkdir()
    for number, path in enumerate(header.files):
        (links / f"{number:05d}.dcm").symlink_to(path.resolve())
    # Philips' own scale: only by that do series of one examination compare. A user's defaults for
    # dcm2niix are passed over.
    switches = {"-g": "i", "-p": "y", "-z": "n", "-b": "y", "-ba": "y", "-f": "image"}
    pairs = [part for pair in switches.items() for part in pair]
    command = [dcm2niix.bin, *pairs, "-o", folder, links]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    made = sorted(folder.glob("*.nii"))
    if len(made) != 1:
        last = _last_complaint(done.stdout + done.stderr, links, len(header.files))
        reason = f"it made {len(made)} images of it" if made else f"it made no image of it {last}"
        raise ExcludedError(f"{header.describe()}: dcm2niix cannot convert it, {reason}".strip())
    if not header.is_mosaic:
        _check_geometry(nib.load(made[0]), header)
    return made[0]


def _converted_sidecar(path: Path) -> dict[str, Any]:
    """What dcm2niix says of an image; words of a header stand there in the header's own letters."""
    told = json.loads(path.read_text(encoding="utf-8", errors="replace"), strict=False)
    return dict(told)


def _last_complaint(said: str, links: Path, count: int) -> str:
    """The last line in which dcm2niix complains, without the names of files."""
    signs = "error|warning|unsupported|not large enough"
    last = next((li for li in reversed(said.splitlines()) if re.search(signs, li, re.I)), "")
    numbered = re.sub(
        rf"{re.escape(str(links))}/(\d+)\.dcm",
        lambda found: f"file {int(found[1]) + 1} of {count}",
        last,
    )
    return re.sub(r"(?<!\S)[\"']?/\S+", "a file", numbered)


def _check_geometry(image: nib.Nifti1Image, header: SeriesHeader) -> None:
    """Compare size and corner voxels; dcm2niix may flip and reorder the axes."""
    shape = (*image.shape, 1)[:3]
    found = corners_of(shape, image.affine)
    apart = np.linalg.norm(found[:, None] - header.corners()[None], axis=2).min(1).max()
    expected = (header.columns, header.rows, header.places)
    if sorted(shape) != sorted(expected) or apart > 0.05 * min(header.pixel_spacing_mm):
        raise ExcludedError(
            f"{header.describe()}: the converted image ({shape} voxels) lies {apart:.2f} mm from "
            f"where the DICOM headers put it ({expected} voxels); its geometry cannot be trusted"
        )


def _ingest_nifti(
    files: Sequence[Path], unit: Unit, protocol: Protocol, output: Path
) -> dict[str, Any]:
    names = [f"image {n} of {len(files)} by name" for n in range(1, len(files) + 1)]
    sidecars = []
    for path, name in zip(files, names):
        with _called(f"the sidecar of {name}", sidecar_of(path)):
            sidecars.append(read_sidecar(sidecar_of(path)))
    candidates = [_nifti_candidate(n, s) for n, s in zip(names, sidecars)]
    by_physics = [n for n, s in enumerate(sidecars) if s.get("EchoTime") is not None]
    if by_physics:
        chosen = {
            role: by_physics[n]
            for role, n in choose([candidates[n] for n in by_physics], protocol).items()
        }
        for role, n in chosen.items():
            labelled = _role_in_name(files[n], protocol)
            if labelled not in (None, role):
                raise ExcludedError(
                    f"{names[n]} is called {labelled} but its timing is that of the {role}; "
                    "were the two swapped?"
                )
    else:
        chosen = _chosen_by_name(files, protocol)
    numbers: dict[str, Any] = {"roles": {}}
    for role, n in chosen.items():
        with _called(names[n], files[n]):
            data, affine = load_image(files[n])
        fault = why_sides_are_unknown(read_placement(files[n]))
        if fault is not None:
            raise ExcludedError(f"{names[n]}: {fault}")
        _check_extent(data.shape, affine, names[n])
        _store(files[n], sidecars[n], unit, role, output)
        numbers["roles"][role] = {
            "shape": list(data.shape),
            "spacing_mm": [round(float(v), 4) for v in spacing_mm(affine)],
            "tr_ms": candidates[n].tr_ms,
            "te_ms": candidates[n].te_ms,
            "ti_ms": candidates[n].ti_ms,
        }
    return numbers


@contextmanager
def _called(what: str, path: Path) -> Iterator[None]:
    """Why a file is refused, with other words in place of its name, which may be a patient's."""
    try:
        yield
    except ExcludedError as error:
        raise ExcludedError(error.reason.replace(path.name, what)) from error


def _nifti_candidate(name: str, sidecar: Mapping[str, Any]) -> Candidate:
    def milliseconds(key: str) -> float | None:
        value = sidecar.get(key)
        return None if value is None else round(1000.0 * float(value), 3)

    ti, told = milliseconds("InversionTime"), sidecar.get("ImageType")
    kind = [str(value) for value in told] if isinstance(told, list) else []
    component = str(sidecar.get("ComplexImageComponent", "MAGNITUDE"))
    kind += [component] if component != "MAGNITUDE" else []
    return Candidate(
        name,
        milliseconds("RepetitionTime"),
        milliseconds("EchoTime"),
        ti or None,
        bool(ti),
        tuple(kind),
        sidecar.get("SeriesNumber"),
        sidecar.get("MRAcquisitionType") == "2D",
    )


def _role_in_name(path: Path, protocol: Protocol) -> str | None:
    """The role that a file's name gives it: BIDS ``acq-PPI``, or the word between separators."""
    stem = path.name.split(".")[0]
    words = {word.upper() for part in stem.split("_") for word in part.split("-")}
    named = [role for role in ("MRC", "PPI", "PEI", "HYDROPS") if role in words]
    return named[0] if len(named) == 1 and named[0] in protocol.roles else None


def _chosen_by_name(files: Sequence[Path], protocol: Protocol) -> dict[str, int]:
    names = [_role_in_name(path, protocol) for path in files]
    if len(files) == 1 and len(protocol.roles) == 1:
        return {next(iter(protocol.roles)): 0}
    chosen = {}
    for role in protocol.roles:
        fitting = [n for n, name in enumerate(names) if name == role]
        if len(fitting) != 1:
            found = f"{len(fitting)} of {len(files)}"
            raise ExcludedError(
                f"without sidecars the {role} is told by its name, and one file must carry it; "
                f"found: {found}"
            )
        chosen[role] = fitting[0]
    return chosen


def _check_content(path: Path, what: str) -> None:
    with _called(what, path):
        data, affine = load_image(path)
    _check_extent(data.shape, affine, what)


def _check_extent(shape: Sequence[int], affine: Affine, what: str) -> None:
    spacing = spacing_mm(affine)
    if not _shows_an_ear(shape, spacing):
        voxels, extent = " x ".join(map(str, shape)), spacing * np.array(shape)
        raise ExcludedError(
            f"{what}: {voxels} voxels over {in_words(extent)} mm cannot show an inner ear"
        )


def _shows_an_ear(shape: Sequence[int], spacing: npt.ArrayLike) -> bool:
    extent = np.asarray(spacing) * np.array(shape)
    return min(shape) >= LEAST_VOXELS and bool(extent.min() >= LEAST_EXTENT_MM)


def _check_overlap(unit: Unit, protocol: Protocol, output: Path) -> None:
    """All roles must show the same place: their middles no further apart than half the larger."""
    paths = Paths(output)
    middles = {}
    for role in protocol.roles:
        image = nib.load(output / "anat" / paths.image(unit, role).name)
        shape = image.shape[:3]
        extent = float((spacing_mm(image.affine) * np.array(shape)).min())
        middles[role] = (grid_centre(shape, image.affine), extent)
    reference, size = middles["MRC"]
    for role, (middle, extent) in middles.items():
        apart = math.dist(reference, middle)
        if apart > 0.5 * max(size, extent):
            raise ExcludedError(f"{role} lies {apart:.0f} mm from the MRC: another place or study?")


def _store(image: Path, sidecar: Mapping[str, Any], unit: Unit, role: str, output: Path) -> None:
    """Write an image that names nobody, and what may be kept beside it."""
    paths, folder = Paths(output), output / "anat"
    write_gzip(folder / paths.image(unit, role).name, nameless_bytes(image))
    kept = {key: sidecar[key] for key in SIDECAR_KEYS if key in sidecar}
    (folder / paths.sidecar(unit, role).name).write_text(
        json.dumps({**kept, "Role": role}, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )


def nameless_bytes(path: Path) -> bytes:
    """A NIfTI file unpacked, its voxels as stored, without its header's free text and extensions.

    Scanners and converters write names there.
    """
    kind = type(nib.load(path).header)
    with ImageOpener(path) as stream:
        # Not that of the loaded image, from which nibabel takes the scale of stored integers.
        header = kind.from_fileobj(stream, check=False)
        stream.seek(header.get_data_offset())
        voxels = stream.read()
    header.extensions.clear()
    for field in FREE_TEXT & set(header.keys()):
        header[field] = b""
    header.set_data_offset(header.single_vox_offset)
    # Four zeros say that no extension follows.
    return bytes(header.binaryblock + bytes(4) + voxels)
