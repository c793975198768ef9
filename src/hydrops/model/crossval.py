"""Cross-validation on labelled CT: each specimen tested once, by a network that never saw it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats
from statsmodels.stats.multitest import multipletests

from hydrops.errors import ExcludedError
from hydrops.labels import LANDMARKS
from hydrops.model.cases import Case
from hydrops.model.ct import CtModel, find_labyrinth, largest_component
from hydrops.model.metrics import area_under_curve, overlap_metrics, surface_metrics

#: Measures in the order in which tables show them.
MEASURES = (
    "dice", "jaccard", "accuracy", "precision", "recall", "specificity", "auc", "hausdorff_mm",
    "hausdorff95_mm", "surface_distance_mm", "volume_error_percent", "landmark_mm",
    *(f"{name}_mm" for name in LANDMARKS), "seconds",
)  # fmt: skip
#: What the papers report on their own data, by model and variant (Stebani et al. 2023, abstract,
#: CT in two data sets; Hussain et al. 2021, abstract, micro-CT).
PUBLISHED = {
    ("joint_unet3d_ct", "joint"): "Dice 0.97 and 0.94, landmarks 3.3 and 5.2 voxels",
    ("autocasnet", "axial"): "Dice 0.900, Hausdorff 0.738 mm",
    ("autocasnet", "coronal"): "Dice 0.884 (plain U-Net)",
}


def evaluate_cases(name: str, model: CtModel, cases: Sequence[Case], fold: int) -> pd.DataFrame:
    """One row for each case and, of a cascade, for each plane, its last being the result."""
    rows = []
    for case in cases:
        start = time.perf_counter()
        identity = {"model": name, "fold": fold, "specimen": case.name, "side": case.side}
        try:
            found = find_labyrinth(model, case.image, case.affine)
        except ExcludedError as exclusion:
            rows.append(identity | {"variant": "", "reason": exclusion.reason})
            continue
        seconds = time.perf_counter() - start
        for variant, probability in found.probability.items():
            rows.append(
                identity
                | {"variant": variant}
                | _measures(probability, found.landmarks, case)
                | {"seconds": seconds}
            )
    return pd.DataFrame(rows)


def _measures(
    probability: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    landmarks: dict[str, list[float]],
    case: Case,
) -> dict[str, float]:
    label = (largest_component(torch.from_numpy(probability)) > 0.5).numpy()
    spacing = np.linalg.norm(case.affine[:3, :3], axis=0)
    errors = {
        f"{name}_mm": float(np.linalg.norm(np.array(landmarks[name]) - truth))
        for name, truth in zip(LANDMARKS, case.landmarks)
        if name in landmarks
    }
    mean = {"landmark_mm": float(np.mean(list(errors.values())))} if errors else {}
    return {
        **overlap_metrics(label, case.label),
        "auc": area_under_curve(probability, case.label),
        **surface_metrics(label, case.label, spacing),
        "volume_error_percent": 100.0 * (float(label.sum()) / float(case.label.sum()) - 1.0),
        **mean,
        **errors,
    }


def summarise_folds(cases: pd.DataFrame) -> pd.DataFrame:
    """Mean, SD, 95 % confidence interval and worst of each measure, by model and variant.

    Intervals are Student's, over specimens. `published` is the paper's own figure, measured on
    other data.
    """
    rows = []
    for (model, variant), part in cases.groupby(["model", "variant"], sort=False):
        for measure in MEASURES:
            values = part[measure].dropna().to_numpy(float) if measure in part else np.array([])
            if not len(values):
                continue
            half = _half_width(values)
            small_is_good = measure.endswith(("_mm", "seconds", "percent"))
            worst = np.abs(values).max() if small_is_good else values.min()
            rows.append(
                {
                    "model": model, "variant": variant, "measure": measure, "n": len(values),
                    "mean": values.mean(), "sd": values.std(ddof=1) if len(values) > 1 else np.nan,
                    "ci_low": values.mean() - half, "ci_high": values.mean() + half,
                    "worst": worst,
                    "published": PUBLISHED.get((str(model), str(variant)), "")
                    if measure == "dice" else "",
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def compare_variants(cases: pd.DataFrame, measure: str = "dice") -> pd.DataFrame:
    """Paired Wilcoxon signed-rank tests of every two variants on the same specimens.

    p is corrected by Holm's method over the tests of the table.
    """
    table = cases.assign(name=cases["model"] + " " + cases["variant"]).pivot_table(
        index="specimen", columns="name", values=measure, sort=False
    )
    rows = []
    names = list(table.columns)
    for first in range(len(names)):
        for second in range(first + 1, len(names)):
            pair = table[[names[first], names[second]]].dropna().to_numpy(float)
            difference = pair[:, 0] - pair[:, 1]
            p = 1.0 if not difference.any() else float(stats.wilcoxon(difference).pvalue)
            rows.append(
                {
                    "measure": measure, "first": names[first], "second": names[second],
                    "n": len(pair), "median_difference": float(np.median(difference)), "p": p,
                }
            )  # fmt: skip
    columns = ["measure", "first", "second", "n", "median_difference", "p"]
    found = pd.DataFrame(rows, columns=columns)
    corrected = multipletests(found["p"], method="holm")[1] if rows else []
    return found.assign(p_corrected=corrected)


def _half_width(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    if len(values) < 2:
        return float("nan")
    deviation = values.std(ddof=1) / np.sqrt(len(values))
    return float(stats.t.ppf(0.975, len(values) - 1) * deviation)
