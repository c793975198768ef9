"""Measure each ear: volumes, EH ratios, representative slices, grade, landmarks."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd

from hydrops.arrays import Affine, FloatGrid
from hydrops.errors import ExcludedError
from hydrops.images import voxel_mm3
from hydrops.labels import LABYRINTH, ORGANS, SIDES, endolymph_code, perilymph_code
from hydrops.paths import Paths, Unit
from hydrops.records import StageResult, read_record
from hydrops.slices import AcquiredSlices, on_acquired_slices

EAR_COLUMNS = (
    "participant_id", "session_id", "side", "organ", "tfs_mm3", "els_mm3", "eh_volume_ratio",
    "ci_low", "ci_high", "eh_area_ratio", "eh_area_ratio_3_slices", "representative_slice",
    "grade", "model",
)  # fmt: skip
LANDMARK_COLUMNS = (
    "participant_id", "session_id", "side", "landmark", "x_ras_mm", "y_ras_mm", "z_ras_mm",
    "confidence", "model",
)  # fmt: skip
#: Vestibule: share of the area that is endolymph (Nakashima et al., Acta Otolaryngol Suppl
#: 2009;560:5): up to a third none, up to a half mild, above it significant. Cochlea: their grades
#: compare the endolymph with the scala vestibuli, which MRI rarely resolves; read as areas, an
#: endolymph beyond its normal tenth to a fifth displaces Reissner's membrane (mild), and one
#: larger than the scala vestibuli, two fifths of the lumen, is significant.
GRADE_THRESHOLDS = {"vestibule": (1 / 3, 1 / 2), "cochlea": (0.2, 0.4)}


@dataclass(frozen=True)
class MeasureOptions:
    """What is too implausible to report.

    Parameters
    ----------
    tfs_range_mm3
        Total fluid of a labyrinth; published 140 to 265 mm3, with room for noise and rarities.
    max_border_share
        Largest share of the fluid that may lie on the outermost voxels of the crop.
    """

    tfs_range_mm3: tuple[float, float] = (70.0, 420.0)
    max_border_share: float = 0.002


def measure_session(
    unit: Unit, paths: Paths, model: str, options: MeasureOptions, output: Path
) -> StageResult:
    """Measure the segmented ears of a session; writes its rows of both tables.

    Raises
    ------
    ExcludedError
        If no ear of the session gives a plausible measurement.
    """
    segmented = read_record(paths.record("segment", unit, model))
    result = StageResult()
    ears: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    mrc_image = nib.load(paths.image(unit, "MRC"))
    for side in SIDES:
        if side not in segmented.numbers:
            continue
        fractions, affine = load_fractions(paths.segmentation(unit, side, "probseg", model))
        known = segmented.numbers[side]["organs"]
        reason = implausible(fractions, affine, options, known)
        if reason is not None:
            result.excluded_sides[side] = f"{side} ear: {reason}"
            continue
        with_endolymph = bool(segmented.numbers[side]["endolymph"])
        half_width = segmented.numbers[side]["half_width"]
        slices = on_acquired_slices(fractions, affine, mrc_image, unit, paths)
        identity = {
            "participant_id": unit.participant,
            "session_id": unit.session,
            "side": side,
            "model": model,
        }
        rows = ear_rows(fractions, affine, with_endolymph, slices, known, half_width)
        ears += [identity | row for row in rows]
        landmarks = json.loads(paths.landmarks(unit, side, model).read_text(encoding="utf-8"))
        marks += [
            identity
            | {"landmark": name, "confidence": found["confidence"]}
            | dict(zip(("x_ras_mm", "y_ras_mm", "z_ras_mm"), found["ras_mm"]))
            for name, found in landmarks.items()
        ]
    if not ears:
        raise ExcludedError.of_ears(result.excluded_sides, "no ear was segmented")
    for rows, columns, path in (
        (ears, EAR_COLUMNS, paths.measures(unit, model)),
        (marks, LANDMARK_COLUMNS, paths.measured_landmarks(unit, model)),
    ):
        table = pd.DataFrame(rows, columns=list(columns))
        if "representative_slice" in table:
            table = table.astype({"representative_slice": "Int64"})  # a whole number or n/a
        table.to_csv(output / path.name, sep="\t", index=False, na_rep="n/a", float_format="%.4f")
    return result


def load_fractions(path: Path) -> tuple[FloatGrid, Affine]:
    """Volume fractions (7, x, y, z) and the affine of a probseg."""
    image = nib.load(path)
    fractions = np.moveaxis(np.asarray(image.dataobj, np.float32), -1, 0)
    return np.ascontiguousarray(fractions), image.affine


def implausible(
    fractions: FloatGrid,
    affine: Affine,
    options: MeasureOptions,
    known: Collection[str] = ORGANS,
) -> str | None:
    """Why a segmentation cannot be a whole inner ear, or None.

    Parameters
    ----------
    known
        Organs that the model finds; without all of them there is no least total.
    """
    fluid = fractions[1:].sum(0)
    total = float(fluid.sum()) * voxel_mm3(affine)
    if border_share(fluid) > options.max_border_share:
        return "the labyrinth is cut by the edge of the field of view"
    low, high = options.tfs_range_mm3
    low = low if set(known) == set(ORGANS) else 0.0
    if not low <= total <= high:
        return (
            f"a total fluid space of {total:.0f} mm3 is not plausible "
            f"({low:.0f} to {high:.0f} mm3): look at the scan"
        )
    missing = [o for o in known if organ_volumes(fractions, affine)[o][0] < 1.0]
    if missing:
        return f"no {missing[0].replace('_', ' ')} was found"
    return None


def border_share(fluid: npt.NDArray[np.generic]) -> float:
    """Share of what a grid (x, y, z) holds that lies on its outermost voxels; zero of nothing."""
    total, inner = (float(part.sum()) for part in (fluid, fluid[1:-1, 1:-1, 1:-1]))
    return (total - inner) / total if total > 0 else 0.0


def organ_volumes(fractions: FloatGrid, affine: Affine) -> dict[str, tuple[float, float]]:
    """Total fluid and endolymph of each organ and of the labyrinth, mm3.

    Sums of volume fractions, so that a voxel half filled counts half.
    """
    sums = fractions.reshape(len(fractions), -1).sum(1, dtype=np.float64) * voxel_mm3(affine)
    volumes = {
        organ: (
            float(sums[perilymph_code(organ)] + sums[endolymph_code(organ)]),
            float(sums[endolymph_code(organ)]),
        )
        for organ in ORGANS
    }
    total, endolymph = np.sum(list(volumes.values()), axis=0)
    volumes[LABYRINTH] = (float(total), float(endolymph))
    return volumes


def ear_rows(
    fractions: FloatGrid,
    affine: Affine,
    with_endolymph: bool,
    slices: AcquiredSlices,
    known: Collection[str] = ORGANS,
    half_width: float | None = None,
) -> list[dict[str, Any]]:
    """One row for each organ and one for the labyrinth; what is undefined is None.

    The EH area ratio is defined for cochlea and vestibule (`AcquiredSlices.area_ratio`). With the
    representative slice's neighbours it is no published measure, but repeats itself better.

    Parameters
    ----------
    with_endolymph
        Whether the fractions tell endolymph from perilymph.
    known
        Organs that the model finds; the labyrinth is known where all are.
    half_width
        Of the interval of the labyrinth's EH volume ratio, None where there is none.
    """
    rows = []
    for organ, (tfs, els) in organ_volumes(fractions, affine).items():
        found = organ in known or (organ == LABYRINTH and set(known) == set(ORGANS))
        z = slices.representative(organ) if organ in GRADE_THRESHOLDS and found else None
        area = slices.area_ratio(organ, z)
        ratio = els / tfs if with_endolymph and tfs > 0 else None
        interval: tuple[float | None, float | None] = (None, None)
        if organ == LABYRINTH and ratio is not None and half_width is not None:
            interval = (max(0.0, ratio - half_width), min(1.0, ratio + half_width))
        rows.append(
            {
                "organ": organ,
                "tfs_mm3": tfs if found else None,
                "els_mm3": els if with_endolymph else None,
                "eh_volume_ratio": ratio,
                "ci_low": interval[0],
                "ci_high": interval[1],
                "eh_area_ratio": area,
                "eh_area_ratio_3_slices": slices.area_ratio(organ, z, beside=1),
                "representative_slice": None if z is None else int(slices.numbers[z]),
                "grade": grade(organ, area),
            }
        )
    return rows


def grade(organ: str, area_ratio: float | None) -> str | None:
    """none, mild or significant by `GRADE_THRESHOLDS`; None where it is undefined."""
    if area_ratio is None or organ not in GRADE_THRESHOLDS:
        return None
    mild, significant = GRADE_THRESHOLDS[organ]
    if area_ratio <= mild:
        return "none"
    return "mild" if area_ratio <= significant else "significant"
