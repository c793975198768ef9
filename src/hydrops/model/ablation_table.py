"""The table of an ablation: every change beside the model as it is, on the same specimens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pandas as pd

from hydrops.model.ablate import changed_options
from hydrops.model.ablation import UNCHANGED, Grid
from hydrops.model.cases import load_cases, specimens_in
from hydrops.model.crossval import corrected_by_holm, evaluate_cases, signed_rank_p
from hydrops.model.ct_package import tested_fold

LOG = logging.getLogger(__name__)

#: What is shown of each change.
SHOWN = ("dice", "hausdorff95_mm", "landmark_mm")
#: Persons below which Wilcoxon's two-sided test cannot reach 0.05, whatever they show.
LEAST_TESTED = 6


def evaluate_changes(
    grid: Grid, configuration: Path, specimens: Path, weights_of: Callable[[str, int], Path]
) -> pd.DataFrame:
    """Table of `tabulate_changes` over the specimens that the grid's folds test.

    Parameters
    ----------
    weights_of
        File of weights of a change and a fold.
    """
    cases = load_cases(specimens, specimens_in(specimens))
    tables = []
    for change in grid.changes:
        options = changed_options(grid, configuration, change)
        for fold in grid.folds:
            model, tested = tested_fold(options, cases, weights_of(change, fold), fold)
            tables.append(evaluate_cases(change, model, tested, fold))
        LOG.info("tested: %s", change)
    return tabulate_changes(pd.concat(tables, ignore_index=True), grid)


def tabulate_changes(cases: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    """One row a change and stage: mean of each measure, and its difference from the model as it is.

    A cascade's stages are its planes, of which the first is a network alone and the last the
    result; other models have one. Every difference is from the last stage of the model as it is,
    and a mean over the specimens that both found, so they can be fewer than `n`, those that the
    changed model found something in. `p` is that of Wilcoxon's signed-rank test of the difference
    in Dice, of `LEAST_TESTED` persons or more, `p_corrected` by Holm's method over the table.

    Parameters
    ----------
    cases
        Of `hydrops.model.crossval.evaluate_cases`, `model` naming the change.
    """
    found = cases[cases["variant"] != ""]
    stages = list(found["variant"].unique()) or [""]
    person = cases.drop_duplicates("specimen").set_index("specimen")["person"]

    def measured(change: str, stage: str) -> pd.DataFrame:
        rows = found[(found["model"] == change) & (found["variant"] == stage)]
        known = rows.set_index("specimen").reindex(person.index, columns=list(SHOWN))
        return known.astype(float)

    base = measured(UNCHANGED, stages[-1])
    rows = []
    for change, stage in product(grid.changes, stages):
        seen = measured(change, stage)
        row: dict[str, object] = {"change": change, "what": grid.changes[change]["what"]}
        row |= {"stage": stage, "n": int(seen["dice"].notna().sum()), "tested": len(seen)}
        for measure in SHOWN:
            row[measure] = seen[measure].mean()
            row[f"{measure}_difference"] = (seen[measure] - base[measure]).mean()
        rows.append(row | {"p": _difference_p(seen["dice"] - base["dice"], person)})
    table = pd.DataFrame(rows)
    tested = corrected_by_holm(table.dropna(subset="p"))
    return table.assign(p_corrected=tested["p_corrected"]).round(4)


def _difference_p(difference: pd.Series, person: pd.Series) -> float:
    """p of a difference told by specimen; NaN of too few persons, or of no difference at all."""
    apart = difference.dropna().groupby(person).mean().to_numpy(float)
    tested = len(apart) >= LEAST_TESTED and apart.any()
    return signed_rank_p(apart) if tested else float("nan")
