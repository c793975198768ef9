"""EH volume ratio against voxel size: from the signal, and by counting voxels (simulation).

    python benchmarks/resolution.py [--ears 24] [--model paired_unet3d]

Draws phantoms that no training drew, images each at several voxel sizes with the same noise, and
measures the labyrinth's EH volume ratio in three ways: from the signal of the whole labyrinth, as
the pipeline does; by counting the network's voxels of endolymph; and as the share of the fluid's
voxels whose HYDROPS-Mi2 is negative, as it is done by hand. Leaves resolution.tsv and
resolution.png in benchmarks/results.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
VOXELS_MM = (0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
SEED = 7_700_000
WAYS = {
    "signal": "from the signal (the pipeline)",
    "labels": "voxels that the network labels endolymph",
    "negative": "fluid voxels with negative HYDROPS-Mi2",
}
COLOURS = ("#0072b2", "#d55e00", "#009e73")


def measure_ear(segmenter: object, seed: int) -> list[dict[str, object]]:
    """Ratio of one phantom's left ear in each way, at each voxel size."""
    from hydrops.images import average_onto, crop_affine, crop_image
    from hydrops.labels import LABYRINTH
    from hydrops.measure import organ_volumes
    from hydrops.phantom.anatomy import draw_ear, draw_hydrops
    from hydrops.phantom.head import draw_head, render
    from hydrops.phantom.signal import MRC, PEI, PPI
    from hydrops.segment import segment_ear

    rng = np.random.default_rng(seed)
    severity = float(rng.uniform(0.0, 1.0))
    ear = draw_ear(rng, "left", draw_hydrops(rng, severity))
    head = draw_head(rng, ear, None)
    rows = []
    for voxel in VOXELS_MM:
        count = int(np.ceil(40.0 / voxel))
        grid = np.diag([voxel] * 3 + [1.0])
        middle = head.to_scanner(head.places["left"])
        grid[:3, 3] = middle - voxel * (count - 1) / 2
        crop = crop_affine(middle.tolist(), grid)
        mrc, ppi, pei = (
            render(head, s, (count,) * 3, grid, np.random.default_rng([seed, n]))
            for n, s in enumerate((MRC, PPI, PEI))
        )
        mi2 = (ppi - pei) * mrc
        cut = [crop_image(image, grid, crop) for image in (mrc, ppi, pei)]
        found = segment_ear(
            segmenter,  # type: ignore[arg-type]
            cut[0],
            (cut[1] - cut[2]) * cut[0],
            "left",
            summed=(cut[1] + cut[2]) * cut[0],
            voxel_mm=(voxel,) * 3,
        )
        total, endolymph = organ_volumes(found.fractions, crop)[LABYRINTH]
        there = average_onto(found.fractions, crop, mrc.shape, grid)
        fluid = there[1:].sum(0) > 0.5
        labelled = there[2::2].sum(0) > there[1::2].sum(0)
        ratios = {
            "signal": endolymph / total,
            "labels": float(labelled[fluid].mean()),
            "negative": float((mi2[fluid] < 0).mean()),
        }
        rows += [
            {"seed": seed, "voxel_mm": voxel, "way": way, "ratio_true": ear.ratios()[LABYRINTH],
             "ratio": ratio}
            for way, ratio in ratios.items()
        ]  # fmt: skip
    return rows


def draw(table: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Bias and SD of the error by voxel size, and every ear at the clinical one."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    bias, spread = figure.subplots(1, 2)
    for (way, name), colour in zip(WAYS.items(), COLOURS):
        part = summary[summary["way"] == way]
        bias.errorbar(part["voxel_mm"], part["bias"], yerr=part["sd"], color=colour, marker="o",
                      capsize=3, label=name)  # fmt: skip
        spread.plot(part["voxel_mm"], part["mean_absolute_error"], color=colour, marker="o")
    bias.axhline(0.0, color="#888888", lw=1, ls="--", zorder=0)
    bias.set(xlabel="voxel, mm (isotropic)", ylabel="measured minus true EH volume ratio",
             title=f"bias and SD, {table['seed'].nunique()} ears")  # fmt: skip
    bias.legend(frameon=False, fontsize=8.5)
    spread.set(xlabel="voxel, mm (isotropic)", ylabel="mean absolute error", ylim=(0, None))
    for panel in (bias, spread):
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Simulation", fontsize=10, color="#a00000")
    return figure


def main() -> None:
    """Run the benchmark."""
    sys.path.insert(0, str(ROOT / "src"))
    from hydrops.cohort import write_table
    from hydrops.errors import ExcludedError
    from hydrops.model.bundle import find_bundle
    from hydrops.segment import load_segmenter

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ears", type=int, default=24)
    parser.add_argument("--model", default="paired_unet3d")
    chosen = parser.parse_args()
    segmenter = load_segmenter(find_bundle(ROOT / "models", chosen.model).folder, "cpu", 2)
    rows: list[dict[str, object]] = []
    for number in range(chosen.ears):
        try:
            rows += measure_ear(segmenter, SEED + number)
        except ExcludedError as error:
            print(f"left out: {error}", file=sys.stderr)
        print(f"{number + 1} of {chosen.ears}", file=sys.stderr)
    table = pd.DataFrame(rows)
    error = table["ratio"] - table["ratio_true"]
    summary = (
        table.assign(error=error, absolute=error.abs())
        .groupby(["way", "voxel_mm"], sort=False)
        .agg(ears=("error", "size"), bias=("error", "mean"), sd=("error", "std"),
             mean_absolute_error=("absolute", "mean"))
        .reset_index()
    )  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    write_table(summary, RESULTS / "resolution.tsv")
    draw(table, summary).savefig(RESULTS / "resolution.png", dpi=110)
    print(summary.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
