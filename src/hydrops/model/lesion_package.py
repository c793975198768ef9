"""Test a lesion model fold by fold, on training and test cases alike, and make its bundle."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from hydrops.cohort import markdown_table
from hydrops.files import write_text_atomically
from hydrops.model.bundle import CARD, Bundle, understood, verify_weights
from hydrops.model.cases import set_aside, split_cases
from hydrops.model.crossval import OVERFITTING_GAP, evaluate_cases
from hydrops.model.ct_package import CAPTIONS, draw_tested
from hydrops.model.lesion import LesionModel, LesionOptions
from hydrops.model.network import NetworkOptions
from hydrops.model.package import (
    common_metadata,
    data_format,
    network_definition,
    phases_trained,
    place_bundle,
    place_pictures,
)
from hydrops.model.taught import refuse_taught
from hydrops.records import sha256_of_file

LOG = logging.getLogger(__name__)

SIMULATED = "Simulated lesions of this project (simulation, not patients)."
CLASSES = ("background", "lesion")


def evaluate_lesion_folds(options: LesionOptions, weights: Sequence[Path]) -> pd.DataFrame:
    """Rows of `hydrops.model.crossval.evaluate_cases` of every fold, in the order of `weights`.

    Each fold's network is tried on its own training cases too, part ``train``.

    Raises
    ------
    HydropsError
        If it has seen one of its test cases, for they were others when it was trained.
    """
    cases = options.cases()
    tables = []
    for fold, path in enumerate(weights):
        model = _fold_model(options, path)
        taught, tested = split_cases(cases, options.folds, options.seed, str(fold))
        refuse_taught(path, {case.name: case.digest for case in tested})
        # Those that watched the training were not learned from, and chose its weights.
        learned, _ = set_aside(taught, options.validation, options.seed)
        for part, chosen in (("train", learned), ("test", tested)):
            tables.append(evaluate_cases(options.name, model, chosen, fold, part))
        LOG.info("tested fold %d of %d", fold + 1, len(weights))
    return pd.concat(tables, ignore_index=True)


def draw_lesion_folds(
    options: LesionOptions, weights: Sequence[Path], cases: pd.DataFrame, target: Path
) -> None:
    """See `hydrops.model.ct_package.draw_tested`."""
    known = {case.name: case for case in options.cases()}
    draw_tested(
        cases,
        known.__getitem__,
        lambda fold: _fold_model(options, weights[fold]),
        target,
        simulated=options.data is None,
    )


def _fold_model(options: LesionOptions, weights: Path) -> LesionModel:
    return LesionModel.load(
        options.network, options.spacing_mm, options.patch, weights, torch.device("cpu")
    )


def write_lesion_bundle(options: LesionOptions, weights: Path, models_dir: Path) -> Bundle:
    """Write ``models/<name>/<version>``; its card is for `write_lesion_card`."""
    names = [case.name for case in options.cases()]
    source = SIMULATED if options.data is None else f"{len(names)} labelled images of the user's."
    known = common_metadata(options, sha256_of_file(weights), [source]) | {
        "task": f"Lesion on {options.role}",
        "kind": options.kind,
        "network": asdict(options.network),
        "training": {
            "seed": options.seed,
            "phases": phases_trained(options.phases, weights),
            "cases": len(names),
            "folds": options.folds,
            "validation": options.validation,
            "simulated": options.data is None,
            "augmentation": asdict(options.augmentation),
        },
        "roles": [options.role],
        "optional_roles": [],
        "organs": [],
        "endolymph": False,
        "landmarks": [],
        "spacing_mm": [options.spacing_mm] * 3,
        "patch": options.patch,
        "network_data_format": data_format(
            "MR", (options.role,), CLASSES, (options.patch,) * 3, (-4.0, 4.0)
        ),
    }
    network = network_definition("hydrops.model.lesion.lesion_network", options=options.network)
    return place_bundle(models_dir, weights, known, network)


def load_lesion_bundle(bundle: Bundle, device: torch.device) -> LesionModel:
    """Load a lesion bundle's network; only weights are read from its file, never code.

    Raises
    ------
    HydropsError
        If the weights are missing, changed, or do not fit the network.
    """
    known = bundle.metadata
    with understood(bundle):
        options = NetworkOptions.from_dict(known["network"])
        spacing_mm, patch = float(known["spacing_mm"][0]), int(known["patch"])
    return LesionModel.load(options, spacing_mm, patch, verify_weights(bundle), device)


def write_lesion_card(
    bundle: Bundle,
    summary: pd.DataFrame,
    comparison: pd.DataFrame,
    pictures: Sequence[Path],
    notes: str = "",
) -> Path:
    """Write the model card, training and test side by side, and put its pictures beside it.

    Parameters
    ----------
    summary, comparison
        See `hydrops.model.crossval.summarise_folds` and `compare_parts`.
    notes
        What a person adds, Markdown; may be empty.
    """
    training = bundle.metadata["training"]
    steps = " + ".join(str(phase["steps"]) for phase in training["phases"])
    simulated = "\n**Simulation**: no figure here says anything about patients.\n"
    captions = {
        name: f"**Simulation.** {caption}" if training["simulated"] else caption
        for name, caption in CAPTIONS.items()
    }
    columns = ["measure", "part", "n", "mean", "sd", "ci_low", "ci_high", "worst", "published"]
    text = f"""# {bundle.name} {bundle.version}

{bundle.metadata["description"]}.
Research only; not a medical device. Licence: {bundle.metadata["copyright"]}.

- **In**: one image ({bundle.metadata["roles"][0]}), any orientation and voxel size.
- **Out**: the lesion, in one piece or several; no landmarks.
- **Weights**: sha256 `{bundle.sha256}`.

## Trained on

{training["cases"]} cases, {steps} steps, seed {training["seed"]}. Of these, the cases of
{training["validation"]} person(s) were not learned from: on them a training was watched, and ended
where it did not get better.
Source: {bundle.metadata["data_source"]}
{simulated if training["simulated"] else ""}
## How it did

Cross-validation in {training["folds"]} folds by person. `train` is each fold's network on what it
was trained on, `test` on what it never saw; a gap of more than {OVERFITTING_GAP} in Dice is flagged
as overfitting. The shipped weights were trained the same way, none of the cases set aside for a
test. `published` is the
paper's own figure, measured on other data.

{markdown_table(comparison)}

{markdown_table(summary[columns])}

{place_pictures(bundle, pictures, captions)}
{notes}"""
    path = bundle.folder / CARD
    write_text_atomically(path, text)
    return path
