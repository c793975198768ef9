"""EH volume ratio against voxel size: from the signal, and by counting voxels (simulation).

    python benchmarks/resolution.py [--ears 24] [--model paired_unet3d]

Draws ears that no training drew, phantoms' and those of the real labyrinths kept out of training
where they are to be had, images each in cubes and in slices of several sizes with the
same noise, and measures the labyrinth's EH volume ratio in four ways: from the signal of the whole
labyrinth, as the pipeline does where it has PPI and PEI, and where it has HYDROPS alone; by
counting the network's voxels of endolymph; and as the share of the fluid's voxels whose HYDROPS-Mi2
is negative, as it is done by hand. Leaves resolution.tsv and resolution.png in benchmarks/results.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from kept_out import measured_ears, segmenter_of
from matplotlib.figure import Figure

from hydrops.cohort import write_table
from hydrops.errors import ExcludedError
from hydrops.images import average_onto, crop_affine, crop_image
from hydrops.labels import LABYRINTH
from hydrops.measure import organ_volumes
from hydrops.model.segmenter import Segmenter, segment_ear
from hydrops.phantom.anatomy import Ear
from hydrops.phantom.head import draw_head, render
from hydrops.phantom.signal import MRC, PEI, PPI

RESULTS = Path(__file__).parent / "results"
#: Along R, A and S.
VOXELS_MM = (
    *((width,) * 3 for width in (0.3, 0.4, 0.5, 0.6, 0.8, 1.0)),
    (0.5, 0.5, 1.0), (0.7, 0.7, 1.0), (0.5, 0.5, 2.0),
)  # fmt: skip
WAYS = {
    "signal": "from PPI and PEI (the pipeline)",
    "hydrops": "from HYDROPS alone (the pipeline)",
    "labels": "voxels that the network labels endolymph",
    "negative": "fluid voxels with negative HYDROPS-Mi2",
}
COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#009e73")


def measure_ear(folder: Path, anatomy: str, seed: int, ear: Ear) -> list[dict[str, object]]:
    """Ratio of one ear in each way, at each voxel size, by a model; none of a refused ear."""
    try:
        return _measured(segmenter_of(folder), anatomy, seed, ear)
    except ExcludedError as error:
        print(f"{anatomy} {seed} left out: {error}", file=sys.stderr)
        return []


def _measured(segmenter: Segmenter, anatomy: str, seed: int, ear: Ear) -> list[dict[str, object]]:
    head = draw_head(np.random.default_rng([seed, 1]), ear, None)
    rows = []
    middle = head.to_scanner(head.places["left"])
    for voxel_mm in VOXELS_MM:
        count = np.ceil(40.0 / np.array(voxel_mm)).astype(int)
        grid = np.diag([*voxel_mm, 1.0])
        grid[:3, 3] = middle - voxel_mm * (count - 1) / 2
        crop = crop_affine(middle.tolist(), grid)
        mrc, ppi, pei = (
            render(head, s, count.tolist(), grid, np.random.default_rng([seed, 2, n]))
            for n, s in enumerate((MRC, PPI, PEI))
        )
        mi2 = (ppi - pei) * mrc
        cut = [crop_image(image, grid, crop) for image in (mrc, ppi, pei)]
        both, alone = (
            segment_ear(
                segmenter,
                cut[0],
                (cut[1] - cut[2]) * cut[0],
                "left",
                summed=summed,
                voxel_mm=voxel_mm,
            )
            for summed in ((cut[1] + cut[2]) * cut[0], None)
        )
        there = average_onto(both.fractions, crop, mrc.shape, grid)
        fluid = there[1:].sum(0) > 0.5
        labelled = there[2::2].sum(0) > there[1::2].sum(0)
        volumes = [organ_volumes(found.fractions, crop)[LABYRINTH] for found in (both, alone)]
        ratios = {
            **{way: endolymph / total for way, (total, endolymph) in zip(WAYS, volumes)},
            "labels": float(labelled[fluid].mean()),
            "negative": float((mi2[fluid] < 0).mean()),
        }
        widths = {"signal": both.half_width, "hydrops": alone.half_width}
        known = {"anatomy": anatomy, "seed": seed, "voxel_mm": " x ".join(map(str, voxel_mm))}
        true = ear.ratios()[LABYRINTH]
        rows += [
            {**known, "way": way, "ratio_true": true, "ratio": ratio, "half_width": widths.get(way)}
            for way, ratio in ratios.items()
        ]
    return rows


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Bias, SD and mean absolute error, and how often the interval holds, by anatomy and voxel."""
    error = table["ratio"] - table["ratio_true"]
    held = (error.abs() <= table["half_width"]).astype(float).where(table["half_width"].notna())
    return (
        table.assign(error=error, absolute=error.abs(), held=held)
        .groupby(["anatomy", "way", "voxel_mm"], sort=False)
        .agg(ears=("error", "size"), bias=("error", "mean"), sd=("error", "std"),
             mean_absolute_error=("absolute", "mean"), half_width=("half_width", "mean"),
             interval_held=("held", "mean"))
        .reset_index()
    )  # fmt: skip


def draw(summary: pd.DataFrame) -> Figure:
    """Bias and SD of the error, and its mean absolute value, by anatomy and voxel."""
    kinds, voxels = (list(dict.fromkeys(summary[c])) for c in ("anatomy", "voxel_mm"))
    figure = Figure(figsize=(12, 1.2 + 3.6 * len(kinds)), layout="constrained")
    for row, kind in zip(figure.subplots(len(kinds), 2, squeeze=False, sharey="col"), kinds):
        shown = summary[summary["anatomy"] == kind]
        for number, ((way, name), colour) in enumerate(zip(WAYS.items(), COLOURS)):
            part = shown[shown["way"] == way].set_index("voxel_mm").loc[voxels]
            places = np.arange(len(voxels)) + 0.14 * (number - (len(WAYS) - 1) / 2)
            row[0].errorbar(places, part["bias"], yerr=part["sd"], color=colour, fmt="o", ms=5,
                            capsize=2.5, label=name if kind == kinds[0] else None)  # fmt: skip
            row[1].plot(places, part["mean_absolute_error"], "o", color=colour)
        row[0].axhline(0.0, color="#888888", lw=1, ls="--", zorder=0)
        row[0].set(ylabel="measured minus true ratio", title=f"{kind}: bias and SD")
        row[1].set(ylabel="mean absolute error", title=f"{kind}: mean absolute error")
        row[1].set_ylim(0, None)
        for panel in row:
            panel.set_xticks(range(len(voxels)), [v.replace(" x ", "\n") for v in voxels])
            for border in np.arange(len(voxels) - 1) + 0.5:
                panel.axvline(border, color="#eeeeee", lw=1, zorder=0)
            panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("voxel along R, A and S, mm", fontsize=10)
    figure.legend(loc="outside upper center", frameon=False, ncols=4, fontsize=9,
                  title="EH volume ratio, simulation")  # fmt: skip
    return figure


def main() -> None:
    """Run the benchmark."""
    summary = summarise(measured_ears(measure_ear, __doc__.splitlines()[0]))
    RESULTS.mkdir(exist_ok=True)
    write_table(summary.round(5), RESULTS / "resolution.tsv")
    draw(summary).savefig(RESULTS / "resolution.png", dpi=110)
    print(summary.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
