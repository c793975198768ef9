"""Compare models that were cross-validated on the same folds: one table, paired tests, pictures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from hydrops.cohort import markdown_table, write_table
from hydrops.errors import HydropsError
from hydrops.files import write_text_atomically
from hydrops.model.crossval import compare_variants, side_by_side, summarise_folds
from hydrops.model.ct_package import USED_OF_CT, course_told, draw_boxes, steps_told
from hydrops.model.ct_task import CtOptions
from hydrops.model.package import source_of

#: Those that models are tested on.
TESTED = ("dice", "surface_distance_mm")


def join_folds(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of several models, of `hydrops.model.crossval.evaluate_cases`, in one table.

    Raises
    ------
    HydropsError
        If two models were not tested on the same specimens in the same folds.
    """
    folds = [dict(zip(table["specimen"], table["fold"])) for table in tables]
    for table, dealt in zip(tables, folds):
        if dealt != folds[0]:
            names = [str(t["model"].iloc[0]) for t in (tables[0], table)]
            raise HydropsError(
                f"{names[0]} and {names[1]} were not tested on the same specimens in the same "
                "folds, so they cannot be compared; give both the same `folds` and `seed`"
            )
    return pd.concat(tables, ignore_index=True)


def describe_trainings(trainings: Sequence[CtOptions]) -> pd.DataFrame:
    """What each model is, its folds and the steps of each of its networks."""
    return pd.DataFrame(
        {
            "model": training.name,
            "what it is": training.description.strip(),
            "folds": training.folds,
            "training steps": steps_told(course_told(training)),
        }
        for training in trainings
    )


def count_tested(cases: pd.DataFrame) -> pd.DataFrame:
    """How many specimens each model was tested on and found, and why it refused the others."""
    rows = []
    for model, part in cases.groupby("model", sort=False):
        found = part.dropna(subset=["dice"])["specimen"].nunique()
        refused = part[part["dice"].isna()]
        reasons = [f"{row.specimen}: {row.reason}" for row in refused.itertuples()]
        rows.append(
            {
                "model": model,
                "tested": part["specimen"].nunique(),
                "found": found,
                "refused": "; ".join(reasons) or "none",
            }
        )
    return pd.DataFrame(rows)


def write_fold_comparison(
    trainings: Sequence[CtOptions],
    tables: Sequence[pd.DataFrame],
    overlays: Mapping[str, Path],
    folder: Path,
) -> None:
    """Write ``measures.tsv``, ``comparison.tsv``, the pictures and a ``README.md`` of them all.

    Parameters
    ----------
    tables
        Rows of `hydrops.model.crossval.evaluate_cases`, a table for each of `trainings`.
    overlays
        Picture of the best, the median and the worst case of each model, by its name.

    Raises
    ------
    HydropsError
        See `join_folds`.
    """
    cases = join_folds(tables)
    folder.mkdir(parents=True, exist_ok=True)
    measures = summarise_folds(cases)
    tests = compare_variants(cases, TESTED)
    for name, table in (("measures", measures), ("comparison", tests)):
        write_table(table.round(5), folder / f"{name}.tsv")
    draw_boxes(cases).savefig(folder / "boxes.png", dpi=100, metadata={"Software": None})
    for name, picture in overlays.items():
        shutil.copyfile(picture, folder / f"{name}.png")
    count = cases["specimen"].nunique()
    text = f"""# Models of CT compared

Real CT of {count} specimens. Every model was tested on the same folds, each specimen by a network
that was trained without it. The last plane of a cascade is its result; its first plane is the
single 2D U-Net, with residual units as all planes have them. `published` is the paper's own figure,
measured on other data. Sources: {source_of(cases["specimen"].unique())} {USED_OF_CT}

{markdown_table(describe_trainings(trainings))}

{markdown_table(count_tested(cases))}

## Measures

Mean and SD over specimens, in brackets the 95 % confidence interval of the mean, and the worst.

{markdown_table(side_by_side(measures, [], ["model", "variant"]))}

## Tests

Paired Wilcoxon signed-rank tests over specimens, p corrected by Holm's method over the table.

{markdown_table(tests)}

![boxes](boxes.png)

The best, the median and the worst case of each: the label dashed, the model's contour solid.

{chr(10).join(f"![{name}]({name}.png)" for name in overlays)}
"""
    write_text_atomically(folder / "README.md", text)
