"""Models of CT on images unlike those of their training: coarser, noisier, larger, oblique.

    python benchmarks/ct_images.py [joint_unet3d_ct autocasnet] [--fold 6]

Each specimen is changed in some way and tested by the network of its fold, which never saw it:
`snakemake train --config model=NAME` must have left `training/NAME/<fold>/weights.pt`. Leaves
ct_images.tsv and ct_images.png in benchmarks/results; of one fold, prints each specimen instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from hydrops.cohort import write_table  # noqa: E402
from hydrops.figures import PALETTE, draw_box  # noqa: E402
from hydrops.images import average_onto, corners_of, resample, spacing_mm  # noqa: E402
from hydrops.model.cases import Case, load_cases, specimens_in  # noqa: E402
from hydrops.model.crossval import evaluate_cases  # noqa: E402
from hydrops.model.ct_package import tested_fold  # noqa: E402
from hydrops.model.ct_task import CtOptions  # noqa: E402

RESULTS = Path(__file__).parent / "results"
MODELS = ("joint_unet3d_ct", "autocasnet")
#: What a scanner writes where it saw nothing, HU.
EMPTY = np.float32(-1024.0)
#: Columns of a specimen; a model without landmarks leaves theirs empty.
SHOWN = ["model", "specimen", "change", "dice", "hausdorff95_mm", "landmark_mm"]
MEASURES = {"dice": "Dice", "hausdorff95_mm": "95 % Hausdorff distance, mm"}


def in_voxels(*voxel_mm: float) -> Callable[[Case], Case]:
    """The case in larger voxels along its own axes, image and label averaged alike."""

    def change(case: Case) -> Case:
        size = np.array(voxel_mm)
        voxel = spacing_mm(case.affine)
        shape = tuple(int(n * v // s) for n, v, s in zip(case.image.shape, voxel, size))
        affine = case.affine.copy()
        affine[:3, :3] *= size / voxel
        affine[:3, 3] += case.affine[:3, :3] @ ((size / voxel - 1) / 2)
        image, label = (
            average_onto(part[None].astype(np.float32), case.affine, shape, affine)[0]
            for part in (case.image, case.label)
        )
        return replace(case, image=image, label=label > 0.5, affine=affine)

    return change


def with_noise(share: float) -> Callable[[Case], Case]:
    """The case with white noise of a share of its range from the 1st to the 99th percentile."""

    def change(case: Case) -> Case:
        low, high = np.percentile(case.image, (1, 99))
        noise = np.random.default_rng(0).normal(0.0, share * (high - low), case.image.shape)
        return replace(case, image=(case.image + noise).astype(np.float32))

    return change


def enlarged(by_mm: float, texture: bool) -> Callable[[Case], Case]:
    """The case in a larger volume: of one value as padding has, or of a texture as bone has."""

    def change(case: Case) -> Case:
        counts = [int(by_mm / voxel) for voxel in spacing_mm(case.affine)]
        widths = [(n, n) for n in counts]
        affine = case.affine.copy()
        affine[:3, 3] -= affine[:3, :3] @ counts
        image = np.pad(case.image, widths, constant_values=EMPTY)
        if texture:
            inside = np.pad(np.ones(case.image.shape, bool), widths)
            image = np.where(inside, image, _bone(case.image, image.shape))
        return replace(case, image=image, label=np.pad(case.label, widths), affine=affine)

    return change


def oblique(degrees: float) -> Callable[[Case], Case]:
    """The case as if its slices lay so far off the axes of the body, about each of them."""

    def change(case: Case) -> Case:
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_euler("xyz", [degrees] * 3, degrees=True).as_matrix()
        landmarks = apply_affine(turn, case.landmarks)
        return replace(case, affine=turn @ case.affine, landmarks=landmarks)

    return change


def turned(degrees: float) -> Callable[[Case], Case]:
    """An oblique case that other software brought to the body's axes: its corners are empty."""

    def change(case: Case) -> Case:
        lying = oblique(degrees)(case)
        voxel = spacing_mm(case.affine)
        reach = corners_of(case.image.shape, lying.affine)
        grid = np.diag([*voxel, 1.0])
        grid[:3, 3] = reach.min(0)
        shape = tuple(int(n) for n in np.ceil(np.ptp(reach, axis=0) / voxel) + 1)
        image, label = (
            resample(part, lying.affine, shape, grid, order=1)
            for part in (case.image - EMPTY, case.label.astype(np.float32))
        )
        return replace(lying, image=image + EMPTY, label=label > 0.5, affine=grid)

    return change


def _bone(like: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    low, high = np.percentile(like, (5, 95))
    noise = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    coarse = ndimage.gaussian_filter(noise, 6.0)
    texture = like.mean() + 0.35 * (high - low) * coarse / coarse.std()
    return np.asarray(np.clip(texture, low, high) + 0.03 * (high - low) * noise)


CHANGES: dict[str, Callable[[Case], Case]] = {
    "as it is": lambda case: case,
    "0.4 mm": in_voxels(0.4, 0.4, 0.4),
    "0.6 mm": in_voxels(0.6, 0.6, 0.6),
    "0.25 x 0.25 x 0.6 mm": in_voxels(0.25, 0.25, 0.6),
    "5 % noise": with_noise(0.05),
    "15 % noise": with_noise(0.15),
    "padded by 15 mm": enlarged(15.0, texture=False),
    "10 mm of texture around": enlarged(10.0, texture=True),
    "oblique by 20 degrees": oblique(20.0),
    "turned by 20 degrees, empty corners": turned(20.0),
}


def test_model(name: str, specimens: Path, chosen: int | None) -> pd.DataFrame:
    """`SHOWN` of the last stage, by specimen and change, of one fold or of all when None."""
    options = CtOptions.load(ROOT / "config" / "models" / f"{name}.yaml")
    cases = load_cases(specimens, specimens_in(specimens))
    tables = []
    for fold in range(options.folds):
        if chosen not in (None, fold):
            continue
        weights = ROOT / "training" / name / str(fold) / "weights.pt"
        model, tested = tested_fold(options, cases, weights, fold)
        for case in tested:
            for change, make in CHANGES.items():
                table = evaluate_cases(name, model, [make(case)], fold).tail(1)
                tables.append(table.assign(change=change))
            print(f"{name}: {case.name}", file=sys.stderr)
    return pd.concat(tables, ignore_index=True).reindex(columns=SHOWN)


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and worst by model and change; a specimen in which nothing was found counts as 0."""
    rows = rows.assign(dice=rows["dice"].fillna(0.0))
    return (
        rows.groupby(["change", "model"], sort=False)
        .agg(
            specimens=("dice", "size"),
            dice=("dice", "mean"),
            lowest_dice=("dice", "min"),
            hausdorff95_mm=("hausdorff95_mm", "mean"),
            landmark_mm=("landmark_mm", "mean"),
        )
        .reset_index()
    )


def draw(rows: pd.DataFrame) -> Figure:
    """Each specimen by change and model."""
    models = list(rows["model"].unique())
    figure = Figure(figsize=(10, 6), layout="constrained")
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    for panel, (measure, title) in zip(panels, MEASURES.items()):
        for height, change in enumerate(CHANGES):
            for place, (model, colour) in enumerate(zip(models, PALETTE)):
                chosen = rows[(rows["change"] == change) & (rows["model"] == model)]
                middle = height + (place - (len(models) - 1) / 2) * 0.36
                label = model if not height and panel is panels[0] else None
                values = chosen[measure].dropna().to_numpy(float)
                draw_box(panel, values, middle, 0.28, colour, label)
        panel.set_xlabel(title)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(CHANGES)), list(CHANGES))
    panels[0].set_ylim(len(CHANGES) - 0.5, -0.5)
    figure.legend(loc="outside upper right", frameon=False, ncols=len(models))
    return figure


def main() -> None:
    """Run the benchmark."""
    import yaml

    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    specimens = (ROOT / config["training"]["specimens"]).resolve()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--fold", type=int)
    asked = parser.parse_args()
    tables = [test_model(name, specimens, asked.fold) for name in asked.models]
    rows = pd.concat(tables, ignore_index=True)
    if asked.fold is not None:
        print(rows.round(4).to_string(index=False))
        return
    summary = summarise(rows)
    RESULTS.mkdir(exist_ok=True)
    write_table(summary.round(4), RESULTS / "ct_images.tsv")
    draw(rows).savefig(RESULTS / "ct_images.png", dpi=110)
    print(summary.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
