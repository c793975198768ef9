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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from kept_out import measured_ears, segmenter_of
from matplotlib.figure import Figure

from hydrops.arrays import Affine, FloatGrid
from hydrops.cohort import write_table
from hydrops.errors import ExcludedError
from hydrops.images import average_onto, crop_affine, crop_image
from hydrops.labels import LABYRINTH
from hydrops.measure import organ_volumes
from hydrops.model.metrics import ratio_errors
from hydrops.model.segmenter import EarSegmentation, Segmenter, segment_ear
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
    """Ratio of one ear in each way, at each voxel size, by a model; NaN where it is refused."""
    head = draw_head(np.random.default_rng([seed, 1]), ear, None)
    rows: list[dict[str, object]] = []
    middle = head.to_scanner(head.places["left"])
    for voxel_mm in VOXELS_MM:
        count = np.ceil(40.0 / np.array(voxel_mm)).astype(int)
        grid = np.diag([*voxel_mm, 1.0])
        grid[:3, 3] = middle - np.array(voxel_mm) * (count - 1) / 2
        mrc, ppi, pei = (
            render(head, s, count.tolist(), grid, np.random.default_rng([seed, 2, n]))
            for n, s in enumerate((MRC, PPI, PEI))
        )
        images = _Images(voxel_mm, mrc, ppi, pei, grid, crop_affine(middle.tolist(), grid))
        known = {"anatomy": anatomy, "seed": seed, "voxel_mm": " x ".join(map(str, voxel_mm))}
        known |= {"ratio_true": ear.ratios()[LABYRINTH]}
        found: dict[str, dict[str, float | None]] = {}
        for look in (_signal_and_voxels, _hydrops_alone):
            try:
                found |= look(segmenter_of(folder), images)
            except ExcludedError as error:
                print(f"{anatomy} {seed} {voxel_mm}: {error}", file=sys.stderr)
        rows += [{**known, "way": way, **found.get(way, {})} for way in WAYS]
    return rows


@dataclass(frozen=True)
class _Images:
    """MRC, PPI and PEI of an ear, their grid, and that of its crop."""

    voxel_mm: tuple[float, ...]
    mrc: FloatGrid
    ppi: FloatGrid
    pei: FloatGrid
    grid: Affine
    crop: Affine

    def segmented(self, segmenter: Segmenter, with_sum: bool) -> EarSegmentation:
        """As the pipeline does it, with or without the sum of PPI and PEI."""
        mrc, ppi, pei = (
            crop_image(i, self.grid, self.crop) for i in (self.mrc, self.ppi, self.pei)
        )
        summed = (ppi + pei) * mrc if with_sum else None
        return segment_ear(
            segmenter, mrc, (ppi - pei) * mrc, "left", summed=summed, voxel_mm=self.voxel_mm
        )

    def measured(self, found: EarSegmentation) -> dict[str, float | None]:
        """Ratio by the fractions, with its interval."""
        total, endolymph = organ_volumes(found.fractions, self.crop)[LABYRINTH]
        return {"ratio": endolymph / total, "half_width": found.half_width}


def _signal_and_voxels(segmenter: Segmenter, images: _Images) -> dict[str, dict[str, float | None]]:
    found = images.segmented(segmenter, with_sum=True)
    there = average_onto(found.fractions, images.crop, images.mrc.shape, images.grid)
    fluid = there[1:].sum(0) > 0.5
    labelled = there[2::2].sum(0) > there[1::2].sum(0)
    mi2 = (images.ppi - images.pei) * images.mrc
    return {
        "signal": images.measured(found),
        "labels": {"ratio": float(labelled[fluid].mean())},
        "negative": {"ratio": float((mi2[fluid] < 0).mean())},
    }


def _hydrops_alone(segmenter: Segmenter, images: _Images) -> dict[str, dict[str, float | None]]:
    return {"hydrops": images.measured(images.segmented(segmenter, with_sum=False))}


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Bias, SD and mean absolute error, and how often the interval holds, by anatomy and voxel."""
    return (
        ratio_errors(table)
        .groupby(["anatomy", "way", "voxel_mm"], sort=False)
        .agg(ears=("refused", "size"), refused=("refused", "sum"),
             bias=("error", "mean"), sd=("error", "std"),
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
