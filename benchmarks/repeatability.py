"""How well an EH ratio repeats itself when a head lies a little differently (simulation).

    python benchmarks/repeatability.py [--heads 10]

Takes the true regions of simulated heads on the voxels of a usual examination, and the same heads
turned by less than a degree and moved by a fraction of a voxel: what a perfect reader would
measure again. Compared are the EH area ratio on the representative slice, as published (Cho et al.
2020), on that slice and its two neighbours, on all slices, and the volume ratio. The anatomy is
that of phantoms and of the specimens that the training of paired_unet3d has seen. Leaves
repeatability.tsv and repeatability.png in benchmarks/results.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from hydrops.cohort import write_table  # noqa: E402
from hydrops.images import majority_labels  # noqa: E402
from hydrops.labels import ORGANS, SIDES, endolymph_code, perilymph_code  # noqa: E402
from hydrops.model.simulate import load_specimens, specimen_ear  # noqa: E402
from hydrops.model.train import TrainOptions  # noqa: E402
from hydrops.phantom.anatomy import Ear, draw_ear, draw_hydrops  # noqa: E402
from hydrops.phantom.head import (  # noqa: E402
    MATRIX,
    VOXEL_MM,
    draw_head,
    ear_fractions,
    scanner_affine,
)
from hydrops.slices import representative_slice  # noqa: E402

RESULTS = Path(__file__).parent / "results"
SEED = 7_500_000
#: Times that a head is scanned, and SD of how it lies: degrees about each axis, mm along each.
SCANS, TILT_DEG, SHIFT_MM = 3, 0.7, 0.15
ORGAN_COLOURS = {"cochlea": "#0072b2", "vestibule": "#d55e00"}


def ratios(fractions: npt.NDArray[np.float32], organ: str) -> dict[str, float]:
    """An organ's ratios by the true fractions (7, x, y, z), the lowest slice first."""
    fluid = fractions[1::2] + fractions[2::2]
    perilymph, endolymph = fractions[perilymph_code(organ)], fractions[endolymph_code(organ)]
    inside = majority_labels(fluid) == ORGANS.index(organ) + 1
    # HYDROPS is negative where more than half of the fluid is endolymph.
    negative = inside & (endolymph > perilymph)
    middle = representative_slice(organ, fluid, VOXEL_MM[:2])
    if middle is None:
        raise ValueError(f"no {organ}")
    near = slice(max(0, middle - 1), middle + 2)
    return {
        "area, representative slice": negative[..., middle].sum() / inside[..., middle].sum(),
        "area, that and its neighbours": negative[..., near].sum() / inside[..., near].sum(),
        "area, all slices": negative.sum() / inside.sum(),
        "volume": float(endolymph.sum() / (endolymph.sum() + perilymph.sum())),
    }


def scans(left: Ear, right: Ear, rng: np.random.Generator) -> Iterator[dict[str, object]]:
    """Ratios of both ears of a head in each scan."""
    affine = scanner_affine(MATRIX, VOXEL_MM, (0.0, 0.0, 8.0), 0.0)
    tilt, offset, seed = rng.normal(0.0, 4.0, 3), rng.normal(0.0, 4.0, 3), int(rng.integers(2**31))
    for number in range(SCANS):
        turned = tilt + TILT_DEG * rng.standard_normal(3)
        moved = offset + SHIFT_MM * rng.standard_normal(3)
        head = draw_head(np.random.default_rng(seed), left, right, list(turned), list(moved))
        for side in SIDES:
            fractions, _ = ear_fractions(head, side, MATRIX, affine)
            upwards = fractions if affine[2, 2] > 0 else fractions[..., ::-1]
            for organ in ORGAN_COLOURS:
                for measure, ratio in ratios(upwards, organ).items():
                    yield {
                        "side": side, "scan": number, "organ": organ, "measure": measure,
                        "ratio": float(ratio),
                    }  # fmt: skip


def heads(count: int) -> Iterator[tuple[str, Ear, Ear, np.random.Generator]]:
    """Heads of each kind of anatomy, and their generators."""
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    options = TrainOptions.load(ROOT / "config" / "models" / "paired_unet3d.yaml")
    folder = (ROOT / config["training"]["specimens"]).resolve()
    names = options.seen_specimens
    known = load_specimens(folder, names) if folder.is_dir() else []
    for number in range(count):
        rng = np.random.default_rng([SEED, number])
        drawn = [draw_ear(rng, side, draw_hydrops(rng, float(rng.random()))) for side in SIDES]
        yield "phantom", drawn[0], drawn[1], rng
        if known:
            pair = [known[(2 * number + i) % len(known)] for i in range(2)]
            drawn = [specimen_ear(specimen, rng, side) for specimen, side in zip(pair, SIDES)]
            yield "specimen", drawn[0], drawn[1], rng


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """SD within an ear, SD between ears, and ICC(1,1) (Shrout and Fleiss 1979), by measure."""
    found = []
    for key, part in rows.groupby(["anatomy", "organ", "measure"], sort=False):
        ears = part.pivot_table(index=["head", "side"], columns="scan", values="ratio").to_numpy()
        within = float(ears.var(axis=1, ddof=1).mean())
        between = max(0.0, float(ears.mean(axis=1).var(ddof=1)) - within / ears.shape[1])
        found.append(
            dict(zip(("anatomy", "organ", "measure"), key))
            | {"ears": len(ears), "sd_within": within**0.5, "sd_between": between**0.5}
            | {"icc_1_1": between / (between + within)}
        )
    return pd.DataFrame(found).round(4)


def draw(summary: pd.DataFrame) -> Figure:
    """SD within an ear by measure, organ and anatomy."""
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    measures = list(dict.fromkeys(summary["measure"]))
    kinds = summary["anatomy"].nunique()
    panels = figure.subplots(1, kinds, sharey=True, squeeze=False)[0]
    for panel, (anatomy, part) in zip(panels, summary.groupby("anatomy")):
        for (organ, colour), aside in zip(ORGAN_COLOURS.items(), (-0.18, 0.18)):
            of_organ = part[part["organ"] == organ].set_index("measure").loc[measures]
            places = [measures.index(measure) + aside for measure in of_organ.index]
            panel.barh(places, of_organ["sd_within"], height=0.34, color=colour, label=organ)
            for place, row in zip(places, of_organ.itertuples()):
                panel.text(row.sd_within + 0.004, place, f"ICC {row.icc_1_1:.3f}", va="center",
                           fontsize=7.5)  # fmt: skip
        panel.set(title=f"anatomy: {anatomy}", xlabel="SD of a repeated EH ratio")
        panel.set_xlim(0.0, 1.35 * summary["sd_within"].max())
        panel.set_xticks([0.0, 0.05, 0.1])
        panel.set_yticks(range(len(measures)), measures)
        panel.set_ylim(len(measures) - 0.5, -0.5)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].legend(frameon=False, fontsize=8.5, loc="lower right")
    figure.suptitle(
        "Simulation: the true regions of an ear, scanned again", fontsize=10, color="#a00000"
    )
    return figure


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=10)
    count = parser.parse_args().heads
    rows = []
    for number, (anatomy, left, right, rng) in enumerate(heads(count)):
        known = {"anatomy": anatomy, "head": number}
        rows += [known | row for row in scans(left, right, rng)]
        print(f"head {number + 1}: done", file=sys.stderr)
    summary = summarise(pd.DataFrame(rows))
    RESULTS.mkdir(exist_ok=True)
    write_table(summary, RESULTS / "repeatability.tsv")
    draw(summary).savefig(RESULTS / "repeatability.png", dpi=110)
    print(summary.to_string(index=False))


if __name__ == "__main__":
    main()
