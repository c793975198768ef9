"""What is to be seen of the endolymph through noise alone, voxel by voxel (simulation).

    python benchmarks/endolymph_limit.py

Takes the ears that the models are evaluated on, and those of which `endolymph.py` tells more, on
the voxels that the scanner made, and reads each voxel by itself as nobody can: nobody moved between
the images, the levels of both fluids are known and so is the sign that a magnitude has lost, and
there is no shading. What is left is noise. Two readers: one takes the shares of both fluids that
fit MRC, PPI and PEI best, each weighted by its noise, whatever shares they are (least squares); the
other what a voxel most likely holds, given how often voxels of the other heads hold what (Bayes):
no reader of single voxels gets more of them right. The Dice is that of the endolymph's majority
labels, as the evaluation gives it. A reading that knows what lies next to a voxel can do better,
one of images that had to be brought together does worse. Leaves endolymph_limit.tsv in
benchmarks/results.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
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
#: Parts of a voxel that `ear_fractions` counts: 2 x 2 x 4 of a quarter of a millimetre.
STEPS = 16


@dataclass(frozen=True)
class SeenEar:
    """An ear on the scanner's voxels.

    Parameters
    ----------
    known
        Where it is from, its anatomy, and its true ratio in words.
    parts
        (2, n) whole `STEPS` of each voxel that are perilymph and endolymph.
    levels
        (3, 2) of either fluid in MRC, PPI and PEI, as multiples of each image's usual noise.
    """

    known: dict[str, object]
    seed: int
    side: str
    parts: npt.NDArray[np.int64]
    levels: npt.NDArray[np.float64]

    @property
    def histogram(self) -> npt.NDArray[np.float64]:
        """(STEPS + 1, STEPS + 1): how many voxels hold how much perilymph and endolymph."""
        counts = np.zeros((STEPS + 1,) * 2)
        np.add.at(counts, tuple(self.parts), 1.0)
        return counts


def see(examination: Examination, side: str, known: dict[str, object], seed: int) -> SeenEar:
    """An ear of an examination."""
    there, _ = ear_fractions(examination.head, side, MATRIX, examination.affine)
    shares = np.stack([there[1::2].sum(0), there[2::2].sum(0)]).reshape(2, -1)
    mmol = examination.head.gadolinium_mmol[side]
    fluids = (gadolinium(TISSUES["perilymph"], mmol), TISSUES["endolymph"])
    levels = np.array([[signal(f, s) / NOISE[s.name] for f in fluids] for s in (MRC, PPI, PEI)])
    return SeenEar(known, seed, side, np.round(STEPS * shares).astype(np.int64), levels)


def dice_of_readers(ear: SeenEar, prior: npt.NDArray[np.float64]) -> list[dict[str, object]]:
    """Dice of an ear's endolymph by each reader at each of `NOISES`.

    Parameters
    ----------
    prior
        As `SeenEar.histogram`, of other heads.
    """
    rng = np.random.default_rng([ear.seed, SIDES.index(ear.side)])
    shares, truth = ear.parts / STEPS, 2 * ear.parts[1] > STEPS
    cells = np.argwhere(prior > 0)
    chance, many = np.log(prior[prior > 0]), 2 * cells[:, 1] > STEPS
    expected = ear.levels @ (cells.T / STEPS)
    rows = []
    for noise in NOISES:
        seen = ear.levels @ shares + noise * rng.standard_normal((3, shares.shape[1]))
        fitted = np.linalg.lstsq(ear.levels, seen, rcond=None)[0][1] > 0.5
        square = ((seen[:, :, None] - expected[:, None]) ** 2).sum(0)
        likely = chance - 0.5 * square / noise**2
        likely = np.exp(likely - likely.max(1, keepdims=True))
        read = likely[:, many].sum(1) > 0.5 * likely.sum(1)
        for reader, found in (("least squares", fitted), ("Bayes", read)):
            dice = overlap_metrics(found, truth)["dice"]
            rows.append({**ear.known, "reader": reader, "noise": noise, "els_dice": dice})
    return rows


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
        ears = []
        for head in heads:
            examination = head.examined(partial(examine, moved=False, sequences=()))
            for side in SIDES:
                ratio = examination.head.ears[side].ratios()[LABYRINTH]
                end = next(end for end in RATIOS if ratio <= end)
                known: dict[str, object] = {"ears_of": name, "anatomy": head.kind}
                known["true_ratio"] = f"to {end}"
                ears.append(see(examination, side, known, head.seed))
            print(f"{name} {head.kind} {head.seed}: drawn", file=sys.stderr)
        counts = [ear.histogram for ear in ears]
        for ear in ears:
            others = [count for count, other in zip(counts, ears) if other.seed != ear.seed]
            rows += dice_of_readers(ear, np.sum(others, axis=0))
    table = pd.DataFrame(rows)
    by = ["ears_of", "anatomy", "reader", "noise", "true_ratio"]
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
