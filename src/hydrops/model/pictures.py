"""Pictures of a model's card: agreement with the truth, and a real ear to look at."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from nibabel.affines import apply_affine
from nibabel.orientations import io_orientation
from scipy import ndimage

from hydrops.arrays import Affine, FloatGrid
from hydrops.draw import EarPicture, draw_ear_overlay
from hydrops.ears import SearchOptions, find_ears
from hydrops.errors import ExcludedError
from hydrops.figures import PALETTE, draw_bland_altman
from hydrops.images import (
    crop_affine,
    crop_image,
    cube_affine,
    in_cubes,
    load_image,
    resample,
    spacing_mm,
)
from hydrops.model.evaluate import agreement_of_heads
from hydrops.model.geometry import CROP_SPACING_MM
from hydrops.model.segmenter import Segmenter, segment_ear

LOG = logging.getLogger(__name__)

#: SD of the scanner's point spread, as a share of the voxel.
POINT_SPREAD = 0.42
CAPTIONS = {
    "agreement": "EH ratio (of the labyrinth's volume or, of a model that has none, of the "
    "vestibule's area), measured against truth. **Simulation.** Left: each ear; then, by anatomy, "
    "Bland-Altman with bias, 95 % limits of agreement and the 95 % CI of each, resampling heads.",
    "real-ear": "A real left ear on T2-weighted MRI, resampled to a clinical grid of "
    "0.5 x 0.5 x 1.0 mm and segmented from MRC alone. The image is from IE-Vnet (Ahmadi et al., "
    "Front Neurol 2022;13:663200; Apache-2.0).",
}


def draw_agreement(ears: pd.DataFrame) -> Figure:
    """Scatter and Bland-Altman of an evaluation's ears, see `hydrops.model.evaluate.evaluate`.

    Of the labyrinth's EH volume ratio or, of a model that has none, the vestibule's area ratio.
    """
    column, name = ("ratio", "EH volume ratio")
    if ears[column].isna().all():
        column, name = ("vestibule_area", "EH area ratio of the vestibule")
    columns = (column, f"{column}_true")
    measured = ears.dropna(subset=list(columns))
    kinds = list(measured.groupby("anatomy", sort=False))
    figure = Figure(figsize=(4.4 * (1 + max(1, len(kinds))), 4.4), layout="constrained")
    figure.suptitle("Simulation", fontsize=10, color="#a00000")
    if not kinds:
        panel = figure.subplots()
        panel.set_title(f"nothing was measured: all {len(ears)} ears were refused", y=0.5)
        panel.axis("off")
        return figure
    scatter, *differences = figure.subplots(1, 1 + len(kinds))
    top = 1.1 * float(measured[list(columns)].max().max())
    for (kind, part), colour, difference in zip(kinds, PALETTE, differences):
        ours, truth = (part[c].to_numpy(float) for c in columns)
        (icc, low, high), limits = agreement_of_heads(part, columns)
        label = f"{kind}: {len(part)} ears\nICC {icc:.3f} ({low:.3f} to {high:.3f})"
        scatter.plot(truth, ours, "o", color=colour, ms=6, alpha=0.75, mew=0, label=label)
        draw_bland_altman(difference, ours, truth, limits, colour)
        difference.set(title=kind, xlabel="mean of measured and true", xlim=(0, top))
    differences[0].set_ylabel("measured minus true")
    for panel in differences[1:]:
        panel.sharey(differences[0])
        panel.autoscale(axis="y")
    scatter.plot([0, top], [0, top], "--", color="#888888", lw=1, zorder=0)
    scatter.set(xlabel=f"true {name}", ylabel=f"measured {name}",
                xlim=(0, top), ylim=(0, top), aspect="equal")  # fmt: skip
    scatter.legend(loc="upper left", frameon=False, fontsize=8.5)
    for panel in (scatter, *differences):
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def to_clinical_grid(image: FloatGrid, affine: Affine) -> tuple[FloatGrid, Affine]:
    """Bring a finer image to the voxels of the clinical protocol, blurred as a scanner would.

    Parameters
    ----------
    image, affine
        Voxels smaller than `CROP_SPACING_MM`, along axes near R, A and S in any order.
    """
    # Each image axis gets the voxel of the one of R, A and S that it is nearest to.
    wanted = np.array(CROP_SPACING_MM)[io_orientation(affine)[:, 0].astype(int)]
    step = wanted / spacing_mm(affine)
    point_spread = np.sqrt(np.maximum(step**2 - 1.0, 0.0)) * POINT_SPREAD
    blurred = ndimage.gaussian_filter(image, point_spread)
    shape = tuple(int(n) for n in np.floor((np.array(image.shape) - 1) / step) + 1)
    target = affine @ np.diag([*step, 1.0])
    return resample(blurred, affine, shape, target), target


def segment_real_ear(segmenter: Segmenter, path: Path) -> EarPicture:
    """Find and segment the ear of a T2-weighted image from that image alone.

    Raises
    ------
    ExcludedError
        If no ear is recognised in it.
    """
    image, affine = to_clinical_grid(*load_image(path))
    found = find_ears(image, affine, SearchOptions())
    if not found.centres:
        raise ExcludedError(f"{path.name}: no inner ear can be recognised")
    side, centre = max(found.centres.items(), key=lambda item: found.scores[item[0]])
    grid = crop_affine(centre.tolist(), affine)
    crop = crop_image(image, affine, grid)
    ear = segment_ear(segmenter, crop, None, side)
    points = apply_affine(np.linalg.inv(cube_affine(grid)) @ grid, ear.landmarks)
    return EarPicture(in_cubes(crop), None, in_cubes(ear.fractions), points)


def write_pictures(
    ears: pd.DataFrame, segmenter: Segmenter, real_ear: Path | None, folder: Path
) -> None:
    """Write ``agreement.png`` and, where the real ear's image is, ``real-ear.png``.

    A model that recognises nothing in the real ear has no picture of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"agreement": draw_agreement(ears)}
    if real_ear is not None and real_ear.is_file():
        try:
            picture = segment_real_ear(segmenter, real_ear)
            figures["real-ear"] = draw_ear_overlay(picture, "real ear, MRC alone")
        except ExcludedError as exclusion:
            LOG.warning("%s: no picture: %s", real_ear, exclusion.reason)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=100, metadata={"Software": None})
