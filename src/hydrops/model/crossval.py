"""Cross-validation on labelled images: each case tested once, by a network that never saw it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from hydrops.arrays import Affine, FloatGrid
from hydrops.errors import ExcludedError
from hydrops.labels import LANDMARKS
from hydrops.model.cases import Case
from hydrops.model.metrics import (
    area_under_curve,
    overlap_metrics,
    surface_metrics,
    volume_error_percent,
)

#: Measures in the order in which tables show them.
MEASURES = (
    "dice", "jaccard", "accuracy", "precision", "recall", "specificity", "auc", "hausdorff_mm",
    "hausdorff95_mm", "surface_distance_mm", "volume_error_percent", "landmark_mm",
    *(f"{name}_mm" for name in LANDMARKS), "seconds",
)  # fmt: skip
#: What the papers report on their own data, by model, variant, part and measure (Stebani et al.
#: 2023, abstract, CT in two data sets; Hussain et al. 2021, abstract, micro-CT; Ryu et al. 2022,
#: abstract, venous malformations).
PUBLISHED = {
    ("joint_unet3d_ct", "joint", "test", "dice"): "0.97 and 0.94",
    ("joint_unet3d_ct", "joint", "test", "landmark_mm"): "3.3 and 5.2 voxels",
    ("autocasnet", "axial", "test", "dice"): "0.900",
    ("autocasnet", "axial", "test", "hausdorff_mm"): "0.738",
    ("autocasnet", "coronal", "test", "dice"): "0.884 (plain U-Net)",
    ("lesion_unet3d", "unet3d", "train", "dice"): "0.9975",
    ("lesion_unet3d", "unet3d", "test", "dice"): "0.6062",
}
#: A model overfits where its mean Dice falls by more than this from training to test.
OVERFITTING_GAP = 0.1


class Finding(Protocol):
    """What a model found in one image, by stage, on the image's own grid."""

    @property
    def probability(self) -> Mapping[str, FloatGrid]:
        """(x, y, z) of what is sought."""

    @property
    def landmarks(self) -> Mapping[str, Sequence[float]]:
        """RAS mm by name."""

    def mask(self, stage: str, /) -> npt.NDArray[np.bool_]:
        """(x, y, z) what a stage takes for it."""

    @property
    def label(self) -> npt.NDArray[np.bool_]:
        """(x, y, z) what the last stage takes for it."""


class Model(Protocol):
    """A trained network that is tested here."""

    def find(self, image: FloatGrid, affine: Affine, /) -> Finding:
        """Segment one image."""


def evaluate_cases(
    name: str, model: Model, cases: Sequence[Case], fold: int, part: str = "test"
) -> pd.DataFrame:
    """One row for each case and, of a cascade, for each plane, its last being the result.

    Parameters
    ----------
    part
        ``test``, or ``train`` for cases that the model was trained on.
    """
    rows = []
    for case in cases:
        start = time.perf_counter()
        identity = {
            "model": name, "fold": fold, "part": part, "specimen": case.name,
            "person": case.owner, "side": case.side,
        }  # fmt: skip
        try:
            found = model.find(case.image, case.affine)
        except ExcludedError as exclusion:
            rows.append(identity | {"variant": "", "reason": exclusion.reason})
            continue
        seconds = time.perf_counter() - start
        for variant in found.probability:
            rows.append(
                identity
                | {"variant": variant}
                | _measures(found, variant, case)
                | {"seconds": seconds}
            )
    return pd.DataFrame(rows)


def _measures(found: Finding, variant: str, case: Case) -> dict[str, float]:
    label = found.mask(variant)
    spacing = np.linalg.norm(case.affine[:3, :3], axis=0)
    errors = {
        f"{name}_mm": float(np.linalg.norm(np.array(found.landmarks[name]) - truth))
        for name, truth in zip(LANDMARKS, case.landmarks)
        if name in found.landmarks
    }
    mean = {"landmark_mm": float(np.mean(list(errors.values())))} if errors else {}
    return {
        **overlap_metrics(label, case.label),
        "auc": area_under_curve(found.probability[variant], case.label),
        **surface_metrics(label, case.label, spacing),
        "volume_error_percent": volume_error_percent(label, case.label),
        **mean,
        **errors,
    }


def summarise_folds(cases: pd.DataFrame) -> pd.DataFrame:
    """Mean, SD, 95 % confidence interval and worst of each measure, by model, variant and part.

    Intervals are over persons, of whom most have one case. `published` is the paper's own figure,
    measured on other data.
    """
    by = ["model", "variant", "part"]
    table = summarise_measures(cases, by, MEASURES, "person")
    known = table[[*by, "measure"]].astype(str).itertuples(index=False, name=None)
    return table.assign(published=[PUBLISHED.get(key, "") for key in known])


def summarise_measures(
    cases: pd.DataFrame, by: Sequence[str], measures: Sequence[str], owner: str
) -> pd.DataFrame:
    """Mean, SD, 95 % confidence interval and worst of each measure, by some columns.

    The interval is Student's, of the mean of all cases, its standard error over owners.

    Parameters
    ----------
    owner
        Column that says whose a case is, for cases of one owner are alike.
    """
    rows = []
    for group, part in cases.groupby(list(by), sort=False):
        for measure in measures:
            known = part.dropna(subset=[measure]) if measure in part else part[:0]
            if known.empty:
                continue
            values = known[measure].to_numpy(float)
            low, high = _interval(known[measure], known[owner])
            small_is_good = measure.endswith(("_mm", "seconds", "percent", "error"))
            rows.append(
                dict(zip(by, group))
                | {
                    "measure": measure,
                    "n": len(values),
                    "mean": values.mean(),
                    "sd": values.std(ddof=1) if len(values) > 1 else np.nan,
                    "ci_low": low,
                    "ci_high": high,
                    "worst": max(values, key=abs) if small_is_good else values.min(),
                }
            )
    columns = [*by, "measure", "n", "mean", "sd", "ci_low", "ci_high", "worst"]
    return pd.DataFrame(rows, columns=columns)


def side_by_side(table: pd.DataFrame, rows: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """What `summarise_measures` gives as a page shows it: a row a measure, a column a model.

    Parameters
    ----------
    table
        With the papers' own figures as `published`.
    rows, columns
        What else tells rows apart, and what tells models.
    """
    index = [*rows, "measure"]
    named = table.assign(column=table[list(columns)].agg(" ".join, axis=1))
    named["shown"] = [_mean_and_spread(row) for _, row in named.iterrows()]
    wide = named.pivot_table("shown", index, "column", aggfunc="first", sort=False)
    papers = named[named["published"] != ""]
    papers = papers.assign(published=papers["column"] + ": " + papers["published"])
    wide["published"] = papers.groupby(index)["published"].agg("; ".join)
    return wide.reset_index()


def _mean_and_spread(row: pd.Series) -> str:
    """Mean, SD, interval and worst of a row of `summarise_measures`; of a single value, itself."""
    if row["n"] < 2:
        return f"{row['mean']:.3f}"
    told = [] if np.isnan(row["ci_low"]) else [f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"]
    told.append(f"worst {row['worst']:.3f}")
    return f"{row['mean']:.3f} ± {row['sd']:.3f} ({'; '.join(told)})"


def compare_variants(cases: pd.DataFrame, measures: Sequence[str] = ("dice",)) -> pd.DataFrame:
    """Paired Wilcoxon signed-rank tests of every two variants on the same specimens.

    Those of one person count once, by their mean. p is corrected by Holm's method over the tests of
    the table.
    """
    named = cases.assign(name=cases["model"] + " " + cases["variant"])
    rows = []
    for measure in measures:
        index = ["person", "specimen"]
        table = named.pivot_table(index=index, columns="name", values=measure, sort=False)
        for first, second in combinations(table.columns, 2):
            pair = table[[first, second]].dropna()
            difference = (pair[first] - pair[second]).groupby("person").mean().to_numpy(float)
            if not len(difference):
                continue
            rows.append(
                {
                    "measure": measure, "first": first, "second": second, "n": len(difference),
                    "median_difference": float(np.median(difference)),
                    "p": signed_rank_p(difference),
                }
            )  # fmt: skip
    columns = ["measure", "first", "second", "n", "median_difference", "p"]
    return corrected_by_holm(pd.DataFrame(rows, columns=columns))


def signed_rank_p(difference: npt.NDArray[np.float64]) -> float:
    """p of Wilcoxon's signed-rank test of paired differences; 1 where there are none."""
    return float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0


def corrected_by_holm(tests: pd.DataFrame) -> pd.DataFrame:
    """A table of tests with `p_corrected` beside its `p`, by Holm's method."""
    corrected = multipletests(tests["p"], method="holm")[1] if len(tests) else []
    return tests.assign(p_corrected=corrected)


def compare_parts(cases: pd.DataFrame) -> pd.DataFrame:
    """Dice of training beside test, by model, with a flag of overfitting.

    Returns
    -------
    Columns measure, model, train, test, gap, overfitting (yes or no, see `OVERFITTING_GAP`),
    n_train, n_test.
    """
    means = cases.groupby(["model", "part"], sort=False)["dice"].agg(["mean", "size"])
    rows = []
    for model in cases["model"].unique():
        train, test = (means.loc[(model, part)] for part in ("train", "test"))
        gap = float(train["mean"] - test["mean"])
        rows.append(
            {
                "measure": "dice", "model": model, "train": float(train["mean"]),
                "test": float(test["mean"]), "gap": gap,
                "overfitting": "yes" if gap > OVERFITTING_GAP else "no",
                "n_train": int(train["size"]), "n_test": int(test["size"]),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _interval(values: pd.Series, owners: pd.Series) -> tuple[float, float]:
    """95 % confidence interval of a mean; NaN of a single owner.

    Student's, with the standard error of clustered values (Liang and Zeger, Biometrika 1986;73:13),
    which is the usual one where each owner has one value.
    """
    mean = values.mean()
    apart = (values - mean).groupby(owners).sum()
    count = len(apart)
    if count < 2:
        return float("nan"), float("nan")
    error = np.sqrt(count / (count - 1) * (apart**2).sum()) / len(values)
    half = stats.t.ppf(0.975, count - 1) * error
    return float(mean - half), float(mean + half)
