"""Segment the ears of a session with a trained network, and write what was found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine

from hydrops.errors import ExcludedError, HydropsError
from hydrops.images import save_image
from hydrops.labels import LANDMARKS, SIDES
from hydrops.model.contrast import USUAL_PAIR, InversionPair
from hydrops.model.geometry import CROP_SPACING_MM
from hydrops.model.segmenter import EarSegmentation, Segmenter, segment_ear
from hydrops.model.timing import read_pair
from hydrops.model.unmix import FluidSignal
from hydrops.paths import SUM_MI2, Paths, Unit
from hydrops.records import (
    BLUR,
    CSF_RATIO,
    NULLED,
    SHARE_KEPT,
    VOXEL_MM,
    StageResult,
    read_record,
    whole_part,
)

#: What an ear's part of the work says of it, beside its images.
_TOLD = "ear.json"


def segment_session(segmenter: Segmenter, unit: Unit, paths: Paths, output: Path) -> StageResult:
    """Segment the located ears of a session and write labels, fractions and landmarks.

    An ear in which the network finds nothing is excluded; if none is left, so is the session.

    Raises
    ------
    ExcludedError
        If no ear is left.
    HydropsError
        If the record of its location is missing.
    """
    located = read_record(paths.record("locate", unit))
    sides = [side for side in SIDES if side not in located.excluded_sides]
    pair, voxel_mm = inversion_pair(unit, paths), scanned_voxel_mm(unit, paths)
    # An ear that is whole is kept if the job is killed before its session is done.
    parts = {
        side: whole_part(
            output, side, partial(_segment_side, segmenter, unit, paths, pair, voxel_mm, side)
        )
        for side in sides
    }
    result = StageResult()
    for side, part in parts.items():
        told = json.loads((part / _TOLD).read_text(encoding="utf-8"))
        if reason := told.get("excluded"):
            result.excluded_sides[side] = f"{side} ear: {reason}"
        else:
            result.numbers[side] = told
    if not result.numbers:
        raise ExcludedError.of_ears(result.excluded_sides, "no ear was located")
    for side, part in parts.items():
        emptied = part.rename(output / f".{side}")
        (emptied / _TOLD).unlink()
        for path in emptied.iterdir():
            path.rename(output / path.name)
        emptied.rmdir()
    return result


def _segment_side(
    segmenter: Segmenter,
    unit: Unit,
    paths: Paths,
    pair: InversionPair | None,
    voxel_mm: Sequence[float],
    side: str,
    output: Path,
) -> None:
    """Segment an ear; write its files and `_TOLD`: its numbers, or why it is excluded."""
    mrc_path = paths.crop(unit, side, "MRC")
    if not mrc_path.is_file():
        raise HydropsError(f"{mrc_path}: missing, though ears were located; locate again")
    mi2_path = paths.crop(unit, side, "HYDROPSMi2")
    image = nib.load(mrc_path)
    known = pair is not None and mi2_path.is_file()
    mi2 = np.asarray(nib.load(mi2_path).dataobj, np.float32) if known else None
    sum_path = paths.crop(unit, side, SUM_MI2)
    summed = None
    if known and sum_path.is_file():
        summed = np.asarray(nib.load(sum_path).dataobj, np.float32)
    mrc = np.asarray(image.dataobj, np.float32)
    kept = kept_of(unit, side, paths)
    try:
        found = segment_ear(segmenter, mrc, mi2, side, pair or USUAL_PAIR, summed, voxel_mm, kept)
    except ExcludedError as exclusion:
        told: dict[str, Any] = {"excluded": exclusion.reason}
    else:
        _write_ear(found, image.affine, unit, side, paths, segmenter.bundle.identifier, output)
        told = {
            "uncertainty": round(found.uncertainty, 4),
            "endolymph": mi2 is not None and segmenter.bundle.endolymph,
            "organs": list(segmenter.bundle.organs),
            "signal": None if found.signal is None else _rounded(found.signal),
            "way": found.way,
            NULLED: found.nulled,
            BLUR: None if found.blur is None else round(found.blur, 3),
            "half_width": None if found.half_width is None else round(found.half_width, 4),
            "novelty": None if found.novelty is None else round(found.novelty, 3),
        }
    (output / _TOLD).write_text(json.dumps(told), encoding="utf-8")


def inversion_pair(unit: Unit, paths: Paths) -> InversionPair | None:
    """Timing of a located session's inversion images, as its fluids see it; None of a PPI alone.

    A PPI alone tells endolymph from perilymph, but not how bright the pure fluids would be.
    """
    if paths.image(unit, "PPI").is_file() and not paths.image(unit, "PEI").is_file():
        return None
    csf_ratio = read_record(paths.record("locate", unit)).numbers.get(CSF_RATIO)
    return read_pair(paths.sidecar(unit, "PPI"), paths.sidecar(unit, "PEI"), csf_ratio)


def scanned_voxel_mm(unit: Unit, paths: Paths) -> Sequence[float]:
    """Voxel of the coarsest of a located session's images, along the axes of its crops."""
    numbers = read_record(paths.record("locate", unit)).numbers
    return tuple(numbers.get(VOXEL_MM, CROP_SPACING_MM))


def kept_of(unit: Unit, side: str, paths: Paths) -> float:
    """`hydrops.sampling.share_kept` of a located ear; if it was not told, as of one that moved."""
    shares = read_record(paths.record("locate", unit)).numbers.get(SHARE_KEPT, {})
    return float(shares.get(side, 0.0))


def _rounded(signal: FluidSignal) -> dict[str, float]:
    """The numbers of a signal by name."""
    return {name: round(number, 5) for name, number in asdict(signal).items()}


def _write_ear(
    found: EarSegmentation,
    affine: npt.NDArray[np.float64],
    unit: Unit,
    side: str,
    paths: Paths,
    model: str,
    output: Path,
) -> None:
    def target(kind: str) -> Path:
        return output / paths.segmentation(unit, side, kind, model).name

    # Rounding to 1/255 keeps a sum of volumes to better than a thousandth.
    scaled = np.round(np.moveaxis(found.fractions, 0, -1) * 255).astype(np.uint8)
    save_image(target("probseg"), scaled, affine, slope=1 / 255)
    save_image(target("dseg"), found.fractions.argmax(0).astype(np.uint8), affine)
    landmarks = named_landmarks(found, affine)
    path = output / paths.landmarks(unit, side, model).name
    path.write_text(json.dumps(landmarks, indent=1) + "\n", encoding="utf-8")


def named_landmarks(
    found: EarSegmentation, affine: npt.NDArray[np.float64]
) -> dict[str, dict[str, Any]]:
    """RAS mm and confidence of each landmark by name, as they are written."""
    points = apply_affine(affine, found.landmarks)
    return {
        name: {
            "ras_mm": [round(float(value), 3) for value in point],
            "confidence": round(float(confidence), 3),
        }
        for name, point, confidence in zip(LANDMARKS, points, found.confidences)
    }
