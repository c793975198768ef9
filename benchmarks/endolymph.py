"""What limits the Dice of the endolymph: motion between images, noise, the model (simulation).

    python benchmarks/endolymph.py [--heads 8] [--model paired_unet3d]

Runs simulated heads that no training drew through register, locate, segment and measure: as they
are, without motion, without noise, and without either. The real anatomy is that of specimens which
the training has seen, so that nothing is learned here of those kept out. Leaves endolymph.tsv in
benchmarks/results.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from hydrops.cohort import write_table  # noqa: E402
from hydrops.model.bundle import find_bundle  # noqa: E402
from hydrops.model.evaluate import evaluate  # noqa: E402
from hydrops.model.train import TrainOptions  # noqa: E402
from hydrops.phantom.cohort import examine  # noqa: E402

RESULTS = Path(__file__).parent / "results"
SEED = 7_100_000
SCANS = {
    "as it is": examine,
    "no motion": partial(examine, moved=False),
    "no noise": partial(examine, noise=0.0),
    "neither": partial(examine, moved=False, noise=0.0),
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--model", default="paired_unet3d")
    chosen = parser.parse_args()
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    bundle = find_bundle(ROOT / "models", chosen.model)
    options = TrainOptions.load(ROOT / "config" / "models" / f"{bundle.name}.yaml")
    tables = []
    for name, scan in SCANS.items():
        ears = evaluate(
            [bundle.folder],
            (ROOT / config["training"]["specimens"]).resolve(),
            [*options.train_specimens, *options.validation_specimens],
            chosen.heads,
            SEED,
            scan=scan,
        )
        tables.append(ears.assign(images=name))
        print(f"{name}: done", file=sys.stderr)
    rows = pd.concat(tables)
    summary = (
        rows.assign(error=rows["ratio"] - rows["ratio_true"])
        .groupby(["anatomy", "images"], sort=False)
        .agg(ears=("els_dice", "count"), tfs_dice=("tfs_dice", "mean"),
             els_dice=("els_dice", "mean"), ratio_bias=("error", "mean"), ratio_sd=("error", "std"))
        .reset_index()
        .round(4)
    )  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    write_table(summary, RESULTS / "endolymph.tsv")
    print(summary.to_string(index=False))


if __name__ == "__main__":
    main()
