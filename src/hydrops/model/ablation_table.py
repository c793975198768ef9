"""The table of an ablation: every change beside the model as it is, on the same specimens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from hydrops.model.ablate import changed_options
from hydrops.model.ablation import UNCHANGED, Grid
from hydrops.model.cases import load_cases, specimens_in
from hydrops.model.crossval import evaluate_cases
from hydrops.model.ct_package import tested_fold

LOG = logging.getLogger(__name__)

#: What is shown of each change.
SHOWN = ("dice", "hausdorff95_mm", "landmark_mm")


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
    """One row a change: mean of each measure and its difference from the model as it is.

    Differences are means over the specimens that both found, so they can be fewer than `n`, those
    that the changed model found something in.

    Parameters
    ----------
    cases
        Of `hydrops.model.crossval.evaluate_cases`, `model` naming the change.
    """
    last = cases.groupby(["model", "specimen"], sort=False).tail(1)
    measures = last.set_index(["model", "specimen"]).reindex(columns=list(SHOWN))
    base = measures.loc[UNCHANGED]
    rows = []
    for change, words in grid.changes.items():
        found = measures.loc[change]
        row: dict[str, object] = {"change": change, "what": words["what"]}
        row |= {"n": int(found["dice"].notna().sum()), "tested": len(found)}
        for measure in SHOWN:
            row[measure] = found[measure].mean()
            row[f"{measure}_difference"] = (found[measure] - base[measure]).mean()
        rows.append(row)
    return pd.DataFrame(rows).round(4)
