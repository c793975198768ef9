"""What limits the Dice of the endolymph and the bias of its ratio (simulation).

    python benchmarks/endolymph.py [--heads 4] [--model paired_unet3d] [--images NAME...]

Runs simulated heads that no training drew through register, locate, segment and measure: as they
are, without motion, without noise, without either, with more and less noise, scanned with other
inversion times than the published ones, which the sidecars tell, with fluids of other T1, which
nothing tells but the head's CSF, and with organs that took up more or less gadolinium than others.
The real anatomy is that of specimens which the training has seen, so that nothing is learned here
of those kept out. Leaves endolymph.tsv and endolymph.png in benchmarks/results; with `--images` the
rows of other images are kept as they were.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import yaml
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from tables import beside_earlier  # noqa: E402

from hydrops.cohort import write_table  # noqa: E402
from hydrops.model.bundle import find_bundle  # noqa: E402
from hydrops.model.evaluate import evaluate  # noqa: E402
from hydrops.model.metrics import ratio_errors  # noqa: E402
from hydrops.model.train import TrainOptions  # noqa: E402
from hydrops.phantom.cohort import Examination, examine  # noqa: E402
from hydrops.phantom.signal import (  # noqa: E402
    MRC,
    PEI,
    PPI,
    USUAL_FLUIDS,
    Fluids,
    Sequence,
    gadolinium_for,
    null_t1_ms,
)

RESULTS = Path(__file__).parent / "results"
SEED = 7_100_000
#: Noise (times that of `hydrops.phantom.head.NOISE`), whether the head moves, and how much later
#: than usual the pair's inversion images are taken, ms.
SCANS = {
    "as it is": (1.0, True, 0.0),
    "no motion": (1.0, False, 0.0),
    "neither motion nor noise": (0.0, False, 0.0),
    "no noise": (0.0, True, 0.0),
    "half the noise": (0.5, True, 0.0),
    "1.5 times the noise": (1.5, True, 0.0),
    "50 ms earlier": (1.0, True, -50.0),
    "25 ms earlier": (1.0, True, -25.0),
    "25 ms later": (1.0, True, 25.0),
    "50 ms later": (1.0, True, 50.0),
}
#: T1 of what the published PPI nulls, ms.
NULLED_MS = null_t1_ms(PPI)
#: Scans of other fluids: nobody knows a patient's. First those of other T1, three of them longer
#: than what the published inversion times null, then those that gadolinium has reached unevenly.
FLUIDS = {
    "T1 of all fluids 1 % longer": USUAL_FLUIDS.longer(0.01),
    "T1 of all fluids 1 % shorter": USUAL_FLUIDS.longer(-0.01),
    "CSF 4300, endolymph 4050 ms": Fluids(4300.0, 4050.0, 4150.0, gadolinium_for(3200.0, 4150.0)),
    "all fluids 4000 ms": Fluids(4000.0, 4000.0, 4000.0, gadolinium_for(3000.0, 4000.0)),
    "all fluids 4300 ms": Fluids(4300.0, 4300.0, 4300.0, gadolinium_for(3000.0, 4300.0)),
    "PPI nulls CSF, too": replace(USUAL_FLUIDS, csf_ms=NULLED_MS, endolymph_ms=NULLED_MS),
    "CSF and endolymph 2 % beyond the null": replace(
        USUAL_FLUIDS, csf_ms=0.98 * NULLED_MS, endolymph_ms=0.98 * NULLED_MS
    ),
    "endolymph 3.5 % beyond the null": replace(USUAL_FLUIDS, endolymph_ms=0.965 * NULLED_MS),
    "endolymph 7 % beyond the null": replace(USUAL_FLUIDS, endolymph_ms=0.93 * NULLED_MS),
    "cochlea took up 0.7 of the gadolinium": replace(USUAL_FLUIDS, uptake=(0.7, 1.0, 1.0)),
    "cochlea took up 1.4 times as much": replace(USUAL_FLUIDS, uptake=(1.4, 1.0, 1.0)),
    "canals took up 0.6 of it": replace(USUAL_FLUIDS, uptake=(1.0, 1.0, 0.6)),
    "canals took up 0.2 of it": replace(USUAL_FLUIDS, uptake=(1.0, 1.0, 0.2)),
    "vestibule and canals took up 0.8 of it": replace(USUAL_FLUIDS, uptake=(1.0, 0.8, 0.8)),
    "vestibule and canals took up 0.4 of it": replace(USUAL_FLUIDS, uptake=(1.0, 0.4, 0.4)),
}
COLOURS = {"phantom": "#0072b2", "specimen": "#d55e00"}


def sequences(later_ms: float) -> tuple[Sequence, ...]:
    """MRC and the pair, whose inversion times are so much longer."""
    return (MRC, *(replace(s, ti_ms=(s.ti_ms or 0.0) + later_ms) for s in (PPI, PEI)))


def scans() -> Mapping[str, Callable[..., Examination]]:
    """Ways of scanning a head of its generator and its ears, by name."""
    timed = {
        name: partial(examine, noise=noise, moved=moved, sequences=sequences(later_ms))
        for name, (noise, moved, later_ms) in SCANS.items()
    }
    return timed | {name: partial(examine, fluids=fluids) for name, fluids in FLUIDS.items()}


def draw(summary: pd.DataFrame) -> Figure:
    """Bias and SD of the ratio, by kind of scan."""
    figure = Figure(figsize=(7.5, 7.0), layout="constrained")
    panel = figure.subplots()
    names = list(scans())
    for (anatomy, colour), aside in zip(COLOURS.items(), (-0.12, 0.12)):
        part = summary[summary["anatomy"] == anatomy]
        panel.errorbar(
            part["ratio_bias"], [names.index(name) + aside for name in part["images"]],
            xerr=part["ratio_sd"], fmt="o", color=colour, capsize=3, label=anatomy,
        )  # fmt: skip
    panel.axvline(0.0, color="#888888", lw=1, ls="--", zorder=0)
    panel.locator_params(axis="x", nbins=6)
    panel.set(xlabel="measured minus true EH volume ratio, bias and SD")
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)
    for name, ears in summary.groupby("images")["ears"].sum().items():
        if not ears:
            panel.text(0.0, names.index(str(name)), "all refused", ha="center", va="center",
                       backgroundcolor="white", fontsize=8.5)  # fmt: skip
    panel.legend(frameon=False, fontsize=8.5)
    panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Simulation", fontsize=10, color="#a00000")
    return figure


def in_order(summary: pd.DataFrame) -> pd.DataFrame:
    """A summary in the order of `scans`, phantoms first."""
    order = {"images": list(scans()), "anatomy": list(COLOURS)}
    return summary.sort_values(
        list(order), key=lambda column: column.map(order[str(column.name)].index)
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--model", default="paired_unet3d")
    parser.add_argument("--images", nargs="+", choices=list(scans()), metavar="NAME")
    chosen = parser.parse_args()
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    bundle = find_bundle(ROOT / "models", chosen.model)
    options = TrainOptions.load(ROOT / "config" / "models" / f"{bundle.name}.yaml")
    tables = []
    for name, scan in scans().items():
        if name not in (chosen.images or scans()):
            continue
        ears = evaluate(
            [bundle.folder],
            (ROOT / config["training"]["specimens"]).resolve(),
            options.seen_specimens,
            chosen.heads,
            SEED,
            scan=scan,
        )
        tables.append(ears.assign(images=name))
        print(f"{name}: done", file=sys.stderr)
    rows = pd.concat(tables)
    summary = (
        ratio_errors(rows)
        .groupby(["anatomy", "images"], sort=False)
        .agg(ears=("els_dice", "count"), tfs_dice=("tfs_dice", "mean"),
             els_dice=("els_dice", "mean"), ratio_bias=("error", "mean"),
             ratio_sd=("error", "std"), interval_held=("held", "mean"),
             half_width=("half_width", "mean"))
        .reset_index()
        .round(4)
    )  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    summary = in_order(beside_earlier(summary, RESULTS / "endolymph.tsv", ["images"]))
    write_table(summary, RESULTS / "endolymph.tsv")
    draw(summary).savefig(RESULTS / "endolymph.png", dpi=110)
    print(summary.to_string(index=False))


if __name__ == "__main__":
    main()
