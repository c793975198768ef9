"""Test and package what was trained fold by fold, whatever kind of model a configuration is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from hydrops.errors import HydropsError
from hydrops.model.bundle import Bundle
from hydrops.model.cases import load_cases, specimens_in
from hydrops.model.crossval import compare_parts, compare_variants, summarise_folds
from hydrops.model.ct_package import (
    draw_folds_tested,
    evaluate_folds,
    tested_fold,
    write_ct_bundle,
    write_ct_card,
)
from hydrops.model.fold_training import load_options
from hydrops.model.lesion import LesionOptions
from hydrops.model.lesion_package import (
    draw_lesion_folds,
    evaluate_lesion_folds,
    write_lesion_bundle,
    write_lesion_card,
)
from hydrops.model.package import publish_bundle


def evaluate_parts(
    configuration: Path, specimens: Path, weights: Sequence[Path], pictures: Path
) -> dict[str, pd.DataFrame]:
    """Tables cases, summary and comparison of all folds; the pictures go into a folder.

    The comparison is of a cascade's stages with each other, of a lesion's training with its test.

    Raises
    ------
    HydropsError
        If the networks found nothing in any case.
    """
    options = load_options(configuration)
    if isinstance(options, LesionOptions):
        cases = _some_found(evaluate_lesion_folds(options, weights))
        draw_lesion_folds(options, weights, cases, pictures)
        comparison = compare_parts(cases)
    else:
        known = load_cases(specimens, specimens_in(specimens))
        folds = [
            tested_fold(options, known, path, fold)
            for fold, path in zip(range(options.folds), weights, strict=True)
        ]
        cases = _some_found(evaluate_folds(options.name, folds))
        draw_folds_tested(folds, cases, pictures)
        comparison = compare_variants(cases)
    return {"cases": cases, "summary": summarise_folds(cases), "comparison": comparison}


def _some_found(cases: pd.DataFrame) -> pd.DataFrame:
    if "dice" not in cases:
        reasons = ", ".join(cases["reason"].unique())
        raise HydropsError(f"nothing was found in any case ({reasons}); train with more steps")
    return cases


def package_folds(
    configuration: Path,
    specimens: Path,
    weights: Path,
    models_dir: Path,
    tables: Mapping[str, pd.DataFrame],
    pictures: Sequence[Path],
    notes: str,
) -> Bundle:
    """Make the bundle of the network that was trained on all cases, with its card.

    It is put among the models once it is whole, see `hydrops.model.package.publish_bundle`.
    """
    options = load_options(configuration)
    beside = weights.parent / "bundle"
    if isinstance(options, LesionOptions):
        bundle = write_lesion_bundle(options, weights, beside)
        write_lesion_card(bundle, tables["summary"], tables["comparison"], pictures, notes)
    else:
        taught = load_cases(specimens, specimens_in(specimens))
        bundle = write_ct_bundle(options, taught, weights, beside)
        write_ct_card(bundle, tables["summary"], tables["comparison"], pictures, notes)
    return publish_bundle(bundle, models_dir)
