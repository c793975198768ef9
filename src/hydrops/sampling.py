"""What it costs that the voxels of PPI and PEI lie between those of the MRC.

A patient moves between two images, and a voxel that lies half in the labyrinth and half in bone for
one may lie well inside for the other. Both are compared voxel by voxel, so what the moved image
shows at the borders of the fluid is less than the MRC has there, and endolymph, which is what is
missing from perilymph, seems to be more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from hydrops.arrays import Affine, FloatGrid
from hydrops.images import (
    affine_of,
    average_onto,
    blur_of_larger,
    coarsest_voxel_mm,
    corners_of,
    resample,
    spacing_mm,
)
from hydrops.model.geometry import CROP_SHAPE, EAR_SHAPE

#: Quantile of an MRC around an ear that is the brightness of fluid.
FLUID_QUANTILE = 0.995
#: MRC relative to fluid, below which a voxel says nothing about it; noise in bone is well below.
LEAST_FLUID = 0.2
#: Where an ear lies in its crop.
EAR = tuple(slice((n - ear) // 2, (n + ear) // 2) for n, ear in zip(CROP_SHAPE, EAR_SHAPE))
#: What the images of a head that moved lose of their signal, and least of `share_kept` of one that
#: did not: all heads of a calibration move, and of ears of development that moved 0.994 at most is
#: kept. Of 0 to 0.07, chosen on such ears, 32 of real anatomy and 24 phantoms: still ones are read
#: 0.004 and 0.000 lower than moved ones with it, 0.011 and 0.007 without. How much of its MRC a
#: moved ear loses says no more: a loss in proportion made the errors of 229 ears of a calibration
#: larger.
MOVED_LOSS, STILL = 0.05, 0.995
#: Voxels on either side of a place that cubic splines need to be exact to a thousandth.
SPLINE_REACH = 6


def share_kept(mrc: FloatGrid, affine: Affine, crop: Affine, others: Sequence[Affine]) -> float:
    """How much of an ear's MRC is left on its way to other images' voxels and back.

    One where they lie on those of the MRC. Where they lie between them, each mixes fluid with the
    bone beside it, and what an image shows of the fluid is less than the MRC has there. What larger
    voxels mix wherever they lie is left out: a ratio allows for their size
    (`hydrops.model.unmix.calibration_of`).

    Parameters
    ----------
    mrc, affine
        The whole image.
    crop
        Affine of the crop grid around the ear.
    others
        Affine of each other image, moved to where it fits the MRC.
    """
    if not others:
        return 1.0
    grid = affine_of(EAR, crop)
    ear = resample(mrc, affine, EAR_SHAPE, grid)
    bright = ear > LEAST_FLUID * np.quantile(ear, FLUID_QUANTILE)
    if not bright.any():
        return 1.0
    own_mm = np.array(coarsest_voxel_mm(grid, affine))
    shares = []
    for other in others:
        width = blur_of_larger(own_mm, coarsest_voxel_mm(grid, other)) * own_mm / spacing_mm(grid)
        before = ndimage.gaussian_filter(ear, width)
        after = _there_and_back(mrc, affine, grid, other)
        shares.append(after[bright].sum() / before[bright].sum())
    return float(np.mean(shares))


def as_if_moved(channels: FloatGrid, kept: float) -> FloatGrid:
    """Channels that have lost what those of a head that moved have, as a calibration knows them.

    Parameters
    ----------
    channels
        (3, x, y, z) whose second falls from one in perilymph to minus one in endolymph.
    kept
        See `share_kept`.
    """
    loss = MOVED_LOSS * max(0.0, kept - STILL) / (1.0 - STILL)
    return np.stack([channels[0], np.float32(1.0 - loss) * channels[1], channels[2]])


def _there_and_back(mrc: FloatGrid, affine: Affine, grid: Affine, other: Affine) -> FloatGrid:
    """An MRC as another image's voxels would show it, interpolated to the middle of a crop."""
    reach = corners_of(EAR_SHAPE, np.linalg.inv(other) @ grid)
    first = np.floor(reach.min(0)).astype(int) - SPLINE_REACH
    last = np.ceil(reach.max(0)).astype(int) + SPLINE_REACH
    shape = tuple(int(count) for count in last - first + 1)
    part = affine_of([slice(int(start), None) for start in first], other)
    there = average_onto(mrc[None], affine, shape, part, order=3)[0]
    return resample(there, part, EAR_SHAPE, grid)
