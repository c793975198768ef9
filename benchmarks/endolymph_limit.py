"""The most that noise lets anybody see of the endolymph, voxel by voxel (simulation).

    python benchmarks/endolymph_limit.py

Takes the ears that the models are evaluated on, and those of which `endolymph.py` tells more, on
the voxels that the scanner made, and reads each voxel by itself as nobody can: nobody moved between
the images, the levels of both fluids are known and so is the sign that a magnitude has lost, and
there is no shading. What is left is noise. The shares of both fluids are those that fit MRC, PPI
and PEI best, each weighted by its noise, and the Dice is that of the endolymph's majority labels,
as the evaluation gives it. A reading that knows what lies next to a voxel can do better; one of
images that had to be brought together does worse. Leaves endolymph_limit.tsv in benchmarks/results.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from endolymph import SEED as DEVELOPMENT_SEED  # noqa: E402

from hydrops.cohort import write_table  # noqa: E402
from hydrops.labels import LABYRINTH, SIDES  # noqa: E402
from hydrops.model.evaluate import SimulatedHead, draw_heads  # noqa: E402
from hydrops.model.metrics import overlap_metrics  # noqa: E402
from hydrops.model.train import TrainOptions  # noqa: E402
from hydrops.phantom.cohort import Examination, examine  # noqa: E402
from hydrops.phantom.head import MATRIX, NOISE, ear_fractions  # noqa: E402
from hydrops.phantom.signal import MRC, PEI, PPI, TISSUES, gadolinium, signal  # noqa: E402

RESULTS = Path(__file__).parent / "results"
#: Heads of each kind in the figures kept of `endolymph.py`.
DEVELOPMENT_HEADS = 3
#: Times the noise of `hydrops.phantom.head.NOISE`.
NOISES = (0.25, 0.5, 1.0, 1.5)
#: Upper ends of the true EH ratios that are told apart.
RATIOS = (0.2, 0.4, 1.0)


def dice_by_noise(
    examination: Examination, side: str, rng: np.random.Generator
) -> dict[float, float]:
    """Dice of an ear's endolymph as the noise alone allows, by each of `NOISES`."""
    there, _ = ear_fractions(examination.head, side, MATRIX, examination.affine)
    shares = np.stack([there[1::2].sum(0), there[2::2].sum(0)]).reshape(2, -1)
    mmol = examination.head.gadolinium_mmol[side]
    fluids = (gadolinium(TISSUES["perilymph"], mmol), TISSUES["endolymph"])
    scans = (MRC, PPI, PEI)
    # In multiples of each image's usual noise, so that all weigh as they should.
    levels = np.array([[signal(f, s) / NOISE[s.name] for f in fluids] for s in scans])
    dice = {}
    for noise in NOISES:
        seen = levels @ shares + noise * rng.standard_normal((len(scans), shares.shape[1]))
        found = np.linalg.lstsq(levels, seen, rcond=None)[0]
        dice[noise] = overlap_metrics(found[1] > 0.5, shares[1] > 0.5)["dice"]
    return dice


def sets_of_heads() -> Mapping[str, list[SimulatedHead]]:
    """Heads by what they are known from."""
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    known = config["training"]
    specimens = (ROOT / known["specimens"]).resolve()
    options = TrainOptions.load(ROOT / "config" / "models" / "paired_unet3d.yaml")
    return {
        "evaluation": draw_heads(
            specimens, known["test_specimens"], known["test_heads"], known["test_seed"]
        ),
        "endolymph.py": draw_heads(
            specimens, options.seen_specimens, DEVELOPMENT_HEADS, DEVELOPMENT_SEED
        ),
    }


def main() -> None:
    """Run the benchmark."""
    rows = []
    for name, heads in sets_of_heads().items():
        for head in heads:
            examination = head.examined(partial(examine, moved=False, sequences=()))
            for side in SIDES:
                ratio = examination.head.ears[side].ratios()[LABYRINTH]
                rng = np.random.default_rng([head.seed, SIDES.index(side)])
                known = {
                    "ears_of": name,
                    "anatomy": head.kind,
                    "true_ratio": f"to {next(end for end in RATIOS if ratio <= end)}",
                }
                dice = dice_by_noise(examination, side, rng)
                rows += [known | {"noise": n, "els_dice": d} for n, d in dice.items()]
            print(f"{name} {head.kind} {head.seed}: done", file=sys.stderr)
    table = pd.DataFrame(rows)
    by = ["ears_of", "anatomy", "noise", "true_ratio"]
    summary = (
        pd.concat([table.assign(true_ratio="all"), table])
        .groupby(by, sort=False)["els_dice"]
        .agg(ears="count", els_dice="mean", sd="std")
        .reset_index()
        .round(4)
    )
    RESULTS.mkdir(exist_ok=True)
    write_table(summary, RESULTS / "endolymph_limit.tsv")
    print(summary.to_string(index=False))


if __name__ == "__main__":
    main()
