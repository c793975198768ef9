"""How far a segmentation lies from its reference, in the measures that the field reports."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from hydrops.arrays import Mask


def overlap_metrics(found: Mask, truth: Mask) -> dict[str, float]:
    """Dice, Jaccard, accuracy, precision, recall and specificity of two masks of one shape.

    Definitions as in Taha and Hanbury, BMC Med Imaging 2015;15:29, table 1. A measure whose
    denominator is zero is NaN.
    """
    both = float((found & truth).sum())
    only_found = float(found.sum()) - both
    only_truth = float(truth.sum()) - both
    neither = found.size - both - only_found - only_truth
    return {
        "dice": _share(2 * both, 2 * both + only_found + only_truth),
        "jaccard": _share(both, both + only_found + only_truth),
        "accuracy": (both + neither) / found.size,
        "precision": _share(both, both + only_found),
        "recall": _share(both, both + only_truth),
        "specificity": _share(neither, neither + only_found),
    }


def surface_metrics(found: Mask, truth: Mask, spacing_mm: npt.ArrayLike) -> dict[str, float]:
    """Hausdorff distance, its 95th percentile and average surface distance, mm.

    Symmetric: distances of either surface's voxels to the other surface, all taken together, for
    the percentile as for the mean. (Where the larger of the percentiles of either direction is
    taken instead, it is as large or larger.) NaN where a mask is empty.

    Parameters
    ----------
    spacing_mm
        Voxel size along each axis.
    """
    names = ("hausdorff_mm", "hausdorff95_mm", "surface_distance_mm")
    if not found.any() or not truth.any():
        return dict.fromkeys(names, float("nan"))
    spacing = np.asarray(spacing_mm, dtype=float)
    inside = np.argwhere(found | truth)
    low, high = inside.min(0), inside.max(0) + 1
    part = tuple(slice(max(0, a - 1), b + 1) for a, b in zip(low, high))
    first, second = _surface(found[part]), _surface(truth[part])
    to_second = ndimage.distance_transform_edt(~second, sampling=spacing)[first]
    to_first = ndimage.distance_transform_edt(~first, sampling=spacing)[second]
    distances = np.concatenate([to_second, to_first])
    values = (distances.max(), np.percentile(distances, 95), distances.mean())
    return dict(zip(names, map(float, values)))


def volume_error_percent(found: Mask, truth: Mask) -> float:
    """How much larger a mask is than its reference, %; NaN where that is empty."""
    return 100.0 * (_share(float(found.sum()), float(truth.sum())) - 1.0)


def area_under_curve(probability: npt.NDArray[np.float32], truth: Mask) -> float:
    """Area under the receiver operating characteristic of a voxel's probability, by ranks.

    The Mann-Whitney statistic (Hanley and McNeil, Radiology 1982;143:29); NaN with one class.
    """
    from scipy.stats import rankdata

    positive = int(truth.sum())
    negative = truth.size - positive
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(probability.ravel())[truth.ravel()]
    return float((ranks.sum() - positive * (positive + 1) / 2) / (positive * negative))


def ratio_errors(ears: pd.DataFrame) -> pd.DataFrame:
    """Errors of EH volume ratios, beside the rest of a table of simulated ears.

    Parameters
    ----------
    ears
        An ear a row: `ratio`, NaN of a refused ear, the `half_width` of its interval, NaN without
        one, and `ratio_true`.

    Returns
    -------
    The table with `error`, measured minus true, its `absolute` value, whether the interval `held`
    the truth (1 or 0; NaN without one), and whether the ear was `refused`.
    """
    error = ears["ratio"] - ears["ratio_true"]
    known = (error + ears["half_width"]).notna()
    return ears.assign(
        error=error,
        absolute=error.abs(),
        held=(error.abs() <= ears["half_width"]).astype(float).where(known),
        refused=ears["ratio"].isna(),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


def _surface(mask: Mask) -> Mask:
    """Voxels of a mask that touch what is outside it; the edge of the image is outside."""
    return np.asarray(mask & ~ndimage.binary_erosion(mask))
