"""How often the interval of an EH ratio holds where patients and scanners differ (simulation).

    python benchmarks/coverage.py [--heads 16] [--model paired_unet3d]

`snakemake evaluate` scans heads of usual fluids by a scanner of usual noise. Here fluids, uptake of
gadolinium and noise are drawn for each head as they are for a calibration, and the anatomy is that
which no training and no calibration saw: the real labyrinths kept out, and phantoms of other seeds.
In voxels of each size that models are calibrated for. Leaves coverage.tsv and coverage.png in
benchmarks/results.
"""

from __future__ import annotations

import argparse
import logging
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import yaml
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from hydrops.cohort import write_table  # noqa: E402
from hydrops.model.bundle import find_bundle  # noqa: E402
from hydrops.model.calibrate import CALIBRATED_MM, examine_as_people_differ  # noqa: E402
from hydrops.model.evaluate import evaluate, refuse_seen  # noqa: E402
from hydrops.model.metrics import ratio_errors  # noqa: E402

RESULTS = Path(__file__).parent / "results"
SEED = 7_300_000
COLOURS = {"phantom": "#0072b2", "specimen": "#d55e00"}


def summarise(ears: pd.DataFrame) -> pd.DataFrame:
    """Errors of the ratio, and how often its interval holds, by anatomy and voxel."""
    return (
        ratio_errors(ears)
        .groupby(["voxel_mm", "anatomy"], sort=False)
        .agg(heads=("seed", "nunique"), ears=("seed", "size"), refused=("refused", "sum"),
             bias=("error", "mean"), sd=("error", "std"),
             mean_absolute_error=("absolute", "mean"), largest_error=("absolute", "max"),
             half_width=("half_width", "mean"), interval_held=("held", "mean"))
        .reset_index()
    )  # fmt: skip


def draw(ears: pd.DataFrame) -> Figure:
    """Error and interval of each ear against its true ratio, by voxel."""
    sizes = list(dict.fromkeys(ears["voxel_mm"]))
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    for panel, size in zip(panels, sizes):
        for anatomy, colour in COLOURS.items():
            part = ears[(ears["voxel_mm"] == size) & (ears["anatomy"] == anatomy)]
            panel.errorbar(
                part["ratio_true"], part["ratio"] - part["ratio_true"], yerr=part["half_width"],
                fmt="o", ms=4, lw=0.6, color=colour, label=anatomy,
            )  # fmt: skip
        panel.axhline(0.0, color="#888888", lw=1, ls="--", zorder=0)
        panel.set(title=f"voxels of {size} mm", xlabel="true EH volume ratio")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("measured minus true, with its interval")
    panels[0].legend(frameon=False, fontsize=9)
    figure.suptitle("Simulation", fontsize=10, color="#a00000")
    return figure


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--model", default="paired_unet3d")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    known = config["training"]
    folder = find_bundle(ROOT / "models", chosen.model).folder
    specimens = (ROOT / known["specimens"]).resolve()
    refuse_seen([folder], specimens, known["test_specimens"])
    ears = pd.concat(
        evaluate(
            [folder],
            specimens,
            known["test_specimens"],
            chosen.heads,
            SEED,
            scan=partial(examine_as_people_differ, voxel_mm=voxel_mm),
        ).assign(voxel_mm=" x ".join(map(str, voxel_mm)))
        for voxel_mm in CALIBRATED_MM
    )
    summary = summarise(ears)
    RESULTS.mkdir(exist_ok=True)
    write_table(summary.round(4), RESULTS / "coverage.tsv")
    draw(ears).savefig(RESULTS / "coverage.png", dpi=110)
    print(summary.round(4).to_string(index=False))
    for reason, count in ears["reason"].value_counts().items():
        print(f"refused {count}: {reason}")


if __name__ == "__main__":
    main()
