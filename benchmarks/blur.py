"""EH volume ratio of images that are more blurred than their voxels tell (simulation).

    python benchmarks/blur.py [--ears 24] [--model paired_unet3d]

Draws the ears of `resolution.py` in voxels of 0.5 x 0.5 x 1.0 mm with several point spreads; nobody
moves. Each is measured as the pipeline does, which counts a blurred image as one of larger voxels,
and as if no blur were noticed. Leaves blur.tsv and blur.png in benchmarks/results.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from kept_out import measured_ears, segmenter_of
from matplotlib.figure import Figure
from scipy import fft, ndimage

from hydrops.arrays import FloatGrid
from hydrops.cohort import write_table
from hydrops.errors import ExcludedError
from hydrops.images import crop_affine
from hydrops.labels import LABYRINTH
from hydrops.measure import organ_volumes
from hydrops.model.blur import SHARP
from hydrops.model.geometry import CROP_SHAPE
from hydrops.model.metrics import ratio_errors
from hydrops.model.segmenter import segment_ear
from hydrops.phantom.anatomy import Ear
from hydrops.phantom.head import draw_head, render, usual_point_spread
from hydrops.phantom.signal import MRC, PEI, PPI

RESULTS = Path(__file__).parent / "results"
#: By how it is measured, and its colour.
WAYS = {"counted": "#0072b2", "not noticed": "#d55e00"}


def windowed(image: FloatGrid, weights: Callable[[FloatGrid], FloatGrid], axes: int) -> FloatGrid:
    """An image whose k-space was weighted, by the share of its reach, along its first axes."""
    spectrum = fft.fftn(image)
    for axis in range(axes):
        places = np.abs(2.0 * fft.fftfreq(image.shape[axis])).astype(np.float32)
        spectrum *= weights(places).reshape([-1 if a == axis else 1 for a in range(image.ndim)])
    return np.asarray(fft.ifftn(spectrum).real, np.float32)


def hamming(part: float) -> Callable[[FloatGrid], FloatGrid]:
    """Weights of so much of a Hamming window, 1 for all of it."""
    return lambda place: 1.0 - part * 0.46 * (1.0 - np.cos(np.pi * place))


def gaussian(*voxels: float) -> Callable[[FloatGrid], FloatGrid]:
    """A Gaussian of an SD along each axis, or along all."""
    return partial(ndimage.gaussian_filter, sigma=voxels if len(voxels) > 1 else voxels[0])


SPREADS: dict[str, Callable[[FloatGrid], FloatGrid]] = {
    "as phantoms usually are": usual_point_spread,
    "outer 30 % of k-space empty in the slices": lambda image: windowed(
        image, lambda place: (place <= 0.7).astype(np.float32), 2
    ),
    "half of a Hamming window": lambda image: windowed(image, hamming(0.5), 3),
    "a Hamming window": lambda image: windowed(image, hamming(1.0), 3),
    "Gaussian, SD 0.5 voxels": gaussian(0.5),
    "Gaussian, SD 0.6 voxels": gaussian(0.6),
    "Gaussian, SD 0.7 voxels": gaussian(0.7),
    "Gaussian, SD 0.85 voxels": gaussian(0.85),
    "SD 0.8 in the slices, 0.25 across": gaussian(0.8, 0.8, 0.25),
    "SD 0.3 in the slices, 0.8 across": gaussian(0.3, 0.3, 0.8),
}


def measure_ear(folder: Path, anatomy: str, seed: int, ear: Ear) -> list[dict[str, object]]:
    """Ratio of one ear with each point spread, each way; NaN where it is refused."""
    head = draw_head(np.random.default_rng([seed, 1]), ear, None)
    grid = crop_affine(head.to_scanner(head.places["left"]).tolist())
    rows: list[dict[str, object]] = []
    for name, spread in SPREADS.items():
        mrc, ppi, pei = (
            render(
                head, s, CROP_SHAPE, grid, np.random.default_rng([seed, 2, n]), point_spread=spread
            )
            for n, s in enumerate((MRC, PPI, PEI))
        )
        for way in WAYS:
            row: dict[str, object] = {"anatomy": anatomy, "images": name, "way": way}
            row |= {"ratio_true": ear.ratios()[LABYRINTH]}
            with suppress(ExcludedError):
                row |= _measured(folder, mrc, ppi, pei, way)
            rows.append(row)
    return rows


def _measured(
    folder: Path, mrc: FloatGrid, ppi: FloatGrid, pei: FloatGrid, way: str
) -> dict[str, object]:
    unseen = patch("hydrops.model.segmenter.image_blur", return_value=SHARP)
    with nullcontext() if way == "counted" else unseen:
        found = segment_ear(
            segmenter_of(folder), mrc, (ppi - pei) * mrc, "left", summed=(ppi + pei) * mrc
        )
    total, endolymph = organ_volumes(found.fractions, crop_affine([0.0] * 3))[LABYRINTH]
    return {"blur": found.blur, "ratio": endolymph / total, "half_width": found.half_width}


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Ears, those refused, blur, bias, SD, and how often the interval holds, of each kind."""
    return (
        ratio_errors(rows)
        .groupby(["anatomy", "images", "way"], sort=False)
        .agg(ears=("refused", "size"), refused=("refused", "sum"), blur=("blur", "mean"),
             bias=("error", "mean"), sd=("error", "std"), half_width=("half_width", "mean"),
             interval_held=("held", "mean"))
        .reset_index()
    )  # fmt: skip


def draw(summary: pd.DataFrame) -> Figure:
    """Bias and SD by point spread, a panel an anatomy."""
    kinds = list(dict.fromkeys(summary["anatomy"]))
    figure = Figure(figsize=(3.2 + 4.2 * len(kinds), 5.2), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, sharex=True, squeeze=False)[0]
    for panel, kind in zip(panels, kinds):
        for (way, colour), aside in zip(WAYS.items(), (-0.14, 0.14)):
            part = summary[(summary["anatomy"] == kind) & (summary["way"] == way)]
            panel.errorbar(
                part["bias"], np.arange(len(part)) + aside, xerr=part["sd"], fmt="o", ms=5,
                color=colour, capsize=3, label=f"blur {way}" if panel is panels[0] else None,
            )  # fmt: skip
        panel.axvline(0.0, color="#888888", lw=1, ls="--", zorder=0)
        panel.set(xlabel="measured minus true EH volume ratio, bias and SD", title=kind)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(SPREADS)), list(SPREADS))
    panels[0].set_ylim(len(SPREADS) - 0.5, -0.5)
    figure.legend(loc="outside upper center", frameon=False, ncols=2, title="Simulation")
    return figure


def main() -> None:
    """Run the benchmark."""
    summary = summarise(measured_ears(measure_ear, __doc__.splitlines()[0]))
    RESULTS.mkdir(exist_ok=True)
    write_table(summary.round(4), RESULTS / "blur.tsv")
    draw(summary).savefig(RESULTS / "blur.png", dpi=110)
    print(summary.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
