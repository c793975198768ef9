"""Make a bundle of a CT training: metadata, model card, pictures of how it did."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from hydrops.cohort import markdown_table
from hydrops.figures import PALETTE, draw_box
from hydrops.files import write_text_atomically
from hydrops.images import spacing_mm
from hydrops.labels import LANDMARKS
from hydrops.model.bundle import CARD, Bundle, understood, verify_weights
from hydrops.model.cases import Case, split_cases
from hydrops.model.crossval import Model, evaluate_cases
from hydrops.model.ct import CtModel, load_ct_model
from hydrops.model.ct_task import CtOptions, Design
from hydrops.model.package import (
    WIMMER,
    common_metadata,
    data_format,
    network_definition,
    phases_trained,
    place_bundle,
    place_pictures,
    source_of,
)
from hydrops.model.surface import MIDDLE, surface_share
from hydrops.model.taught import refuse_taught
from hydrops.records import sha256_of_file

LOG = logging.getLogger(__name__)

USED_OF_CT = "(CT, labels and landmarks)."
#: What the specimens of `hydrops.model.package.WIMMER` are.
SPECIMENS_OF_WIMMER = (
    "post-mortem specimens without pathology, from one scanner, voxels of 0.16 to 0.2 mm"
)
CAPTIONS = {
    "overlays": "Best, median and worst case of the cross-validation, each by the network that "
    "never saw it: the image with the contour of the label (dashed) and the model's.",
    "boxes": "Each case of the cross-validation.",
}
CLASSES = ("background", "labyrinth")


def write_ct_bundle(
    options: CtOptions, taught: Sequence[Case], weights: Path, models_dir: Path
) -> Bundle:
    """Write ``models/<name>/<version>`` of a training on cases; its card is for `write_ct_card`."""
    joint = options.kind == "joint"
    names = [case.name for case in taught]
    sources = [f"{source_of(names)} {USED_OF_CT}"]
    known = common_metadata(options, sha256_of_file(weights), sources) | {
        "task": "Labyrinth on temporal-bone CT" + (", and its landmarks" if joint else ""),
        "kind": options.kind,
        "network": asdict(options.network),
        "training": course_told(options, weights)
        | {
            "seed": options.seed,
            "specimens": names,
            "folds": options.folds,
            "validation": options.validation,
        },
        "roles": ["CT"],
        "optional_roles": [],
        "landmarks": list(LANDMARKS) if joint else [],
        "spacing_mm": [options.spacing_mm] * 3,
        "patch": options.patch,
        "surface_share": surface_share(taught),
        "network_data_format": data_format(
            "CT", ("CT",), CLASSES, (options.patch,) * 3, (-4.0, 4.0)
        ),
    }
    if options.pose is None:
        target = "hydrops.model.architectures.segmentation_network"
        network = network_definition(target, options=options.network)
    else:
        known["pose"] = asdict(options.pose.design)
        target = "hydrops.model.cascade.segmentation_cascade"
        network = network_definition(target, options=options.network, pose=options.pose.network)
    return place_bundle(models_dir, weights, known, network)


def course_told(options: CtOptions, weights: Path | None = None) -> dict[str, Any]:
    """The course of a training, and of a cascade's pose, as a bundle's metadata tell it.

    As planned; without a pose, as it was trained, if its weights are given.
    """
    told: dict[str, Any] = {} if options.pose is None else {"pose": course_told(options.pose)}
    phases = [asdict(phase) for phase in options.phases]
    if options.pose is None and weights is not None:
        phases = phases_trained(options.phases, weights)
    return told | {
        "phases": phases,
        "augmentation": asdict(options.augmentation),
    }


def load_ct_bundle(bundle: Bundle, device: torch.device) -> CtModel:
    """Load a CT bundle's network; only weights are read from its file, never code.

    Raises
    ------
    HydropsError
        If the weights are missing, changed, or do not fit the network.
    """
    with understood(bundle):
        # Bundles of before it was fitted to labels drew the surface in the middle.
        share = float(bundle.metadata.get("surface_share", MIDDLE))
        design = Design.from_dict(bundle.metadata)
    return load_ct_model(design, verify_weights(bundle), device, share)


def evaluate_folds(name: str, folds: Sequence[tuple[CtModel, list[Case]]]) -> pd.DataFrame:
    """Rows of `hydrops.model.crossval.evaluate_cases` of a model's folds, see `tested_fold`."""
    tables = []
    for fold, (model, tested) in enumerate(folds):
        tables.append(evaluate_cases(name, model, tested, fold))
        names = ", ".join(case.name for case in tested)
        LOG.info("tested %s of fold %d of %d", names, fold + 1, len(folds))
    return pd.concat(tables, ignore_index=True)


def draw_folds_tested(
    folds: Sequence[tuple[CtModel, list[Case]]], rows: pd.DataFrame, target: Path
) -> None:
    """See `draw_tested`; `rows` are those of `evaluate_folds`."""
    known = {case.name: case for _, tested in folds for case in tested}
    draw_tested(rows, known.__getitem__, lambda fold: folds[fold][0], target)


def draw_tested(
    cases: pd.DataFrame,
    case_of: Callable[[str], Case],
    model_of: Callable[[int], Model],
    target: Path,
    simulated: bool = False,
) -> None:
    """Draw the boxes, and the best, the median and the worst case tested, into a folder.

    Parameters
    ----------
    cases
        As `hydrops.model.crossval.evaluate_cases` returns them.
    case_of, model_of
        The case of a name, and the network of a fold.
    simulated
        Whether the cases are, which is then said in the pictures.
    """
    tested = cases[cases["part"] == "test"].dropna(subset=["dice"])
    last = tested.groupby("specimen", sort=False).tail(1)
    ranked = last.sort_values("dice", ascending=False).reset_index(drop=True)
    shown = [
        (model_of(int(row.fold)), case_of(str(row.specimen)), float(row.dice))
        for row in ranked.iloc[[0, len(ranked) // 2, len(ranked) - 1]].itertuples()
    ]
    target.mkdir(parents=True, exist_ok=True)
    for name, figure in (("overlays", draw_overlays(shown)), ("boxes", draw_boxes(cases))):
        if simulated:
            figure.suptitle("Simulation", fontsize=10, color="#a00000")
        figure.savefig(target / f"{name}.png", dpi=110)


def tested_fold(
    options: CtOptions, cases: Sequence[Case], weights: Path, fold: int
) -> tuple[CtModel, list[Case]]:
    """The network of a fold, from its file of weights, and the cases that it never saw.

    Raises
    ------
    HydropsError
        If it has seen one of them, for the specimens were others when it was trained.
    """
    taught, tested = split_cases(cases, options.folds, options.seed, str(fold))
    refuse_taught(weights, {case.name: case.digest for case in tested})
    share = surface_share(taught)
    return load_ct_model(options.design, weights, torch.device("cpu"), share), tested


def draw_overlays(models: Sequence[tuple[Model, Case, float]]) -> Figure:
    """Cases as (model, case, Dice) in the order to show: two slices of each with both contours."""
    figure = Figure(figsize=(3.4 * len(models), 6.6), layout="constrained")
    panels = figure.subplots(2, len(models), squeeze=False)
    for column, (model, case, dice) in enumerate(models):
        found = model.find(case.image, case.affine)
        voxel = spacing_mm(case.affine)
        for row, axis in enumerate((2, 1)):
            panel = panels[row, column]
            place = int(case.label.sum(tuple(a for a in range(3) if a != axis)).argmax())
            cut: tuple[slice | int, ...] = tuple(
                place if a == axis else slice(None) for a in range(3)
            )
            sides = [voxel[a] for a in range(3) if a != axis]
            low, high = np.percentile(case.image, (1, 99.5))
            panel.imshow(case.image[cut].T, cmap="gray", vmin=low, vmax=high, origin="lower",
                         aspect=sides[1] / sides[0])  # fmt: skip
            panel.contour(case.label[cut].T, [0.5], colors="#f0e442", linewidths=1.2,
                          linestyles="dashed")  # fmt: skip
            if found.label[cut].any():
                panel.contour(found.label[cut].T, [0.5], colors="#56b4e9", linewidths=1.2)
            panel.set(xticks=[], yticks=[])
        panels[0, column].set_title(f"{case.name}, Dice {dice:.3f}", fontsize=10)
    panels[0, 0].set_ylabel("most of it, third axis", fontsize=9)
    panels[1, 0].set_ylabel("second axis", fontsize=9)
    return figure


def steps_told(training: Mapping[str, Any]) -> str:
    """For how many steps a bundle's networks were trained, by the `training` of its metadata."""
    steps = str(sum(phase["steps"] for phase in training["phases"]))
    if "pose" not in training:
        return steps
    pose = sum(phase["steps"] for phase in training["pose"]["phases"])
    return f"{pose} (pose), {steps} a plane"


def draw_boxes(cases: pd.DataFrame) -> Figure:
    """Dice, distances and landmark errors of each case, by model and variant, or by part of two.

    Cases that were refused have no variant, and are passed over.
    """
    cases = cases.dropna(subset=["dice"])
    shown = [m for m in ("dice", "hausdorff95_mm", "landmark_mm") if m in cases]
    names = {"dice": "Dice", "hausdorff95_mm": "95 % Hausdorff distance, mm",
             "landmark_mm": "landmark error, mm"}  # fmt: skip
    of_two = [column for column in ("model", "part") if cases[column].nunique() > 1]
    by = of_two if "part" in of_two else [*of_two, "variant"]
    groups = [(" ".join(group), part) for group, part in cases.groupby(by, sort=False)]
    figure = Figure(figsize=(3.6 * len(shown), 1.2 + 0.6 * len(groups)), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for panel, measure in zip(panels, shown):
        for (height, (_, part)), colour in zip(enumerate(groups), cycle(PALETTE)):
            draw_box(panel, part[measure].dropna().to_numpy(float), height, 0.5, colour)
        panel.set_xlabel(names[measure])
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(groups)), [name for name, _ in groups])
    panels[0].set_ylim(len(groups) - 0.5, -0.5)
    return figure


def write_ct_card(
    bundle: Bundle,
    summary: pd.DataFrame,
    comparison: pd.DataFrame,
    pictures: Sequence[Path],
    notes: str = "",
) -> Path:
    """Write the model card from the cross-validation's tables, and put its pictures beside it.

    Parameters
    ----------
    notes
        What a person adds, Markdown; may be empty.
    """
    training: dict[str, Any] = bundle.metadata["training"]
    table = summary.drop(columns=["model", "part"])
    tests = "" if comparison.empty else f"\n{markdown_table(comparison, 5)}\n"
    landmarks = ", ".join(bundle.metadata["landmarks"]) or "none"
    watched = training.get("validation", 0)
    aside = (
        f"On {watched} of them, set aside for that, the training was watched.\n" if watched else ""
    )
    tried = SPECIMENS_OF_WIMMER if source_of(training["specimens"]) == WIMMER else "those specimens"
    text = f"""# {bundle.name} {bundle.version}

{bundle.metadata["description"]}.
Research only; not a medical device. Licence: {bundle.metadata["copyright"]}.

- **In**: one CT of a temporal bone, any orientation and voxel size, either side.
- **Out**: the labyrinth (total fluid space); landmarks: {landmarks}. No endolymph: CT shows none.
- **Weights**: sha256 `{bundle.sha256}`.

## Trained on

Real CT of {len(training["specimens"])} specimens ({", ".join(training["specimens"])}).
{aside}Training steps: {steps_told(training)}; seed {training["seed"]}.
Sources: {bundle.metadata["data_source"]}

## How it did

Cross-validation in {training["folds"]} folds by specimen, `snakemake evaluate`: each specimen was
tested by a network that was trained without it. The shipped
weights were trained the same way on all specimens, so there is no test of these very weights.
`worst` is the worst specimen; `published` is the paper's own figure, measured on other data.

{markdown_table(table)}
{tests}
{place_pictures(bundle, pictures, CAPTIONS)}
{notes}
## Limits

Tried on {tried}. Not
for MRI.
"""
    path = bundle.folder / CARD
    write_text_atomically(path, text)
    return path
