"""How blurred an image is beyond its voxels, told by the labyrinth that it shows.

Filters that take away noise, echoes that decay while they are read, and voxels that were made
smaller when an image was stored all make neighbours share their signal, as larger voxels would.
What a network finds is drawn sharply; how much that must be blurred to look like the MRC tells how
blurred the MRC is, and PPI and PEI with it, which are read out in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.optimize import minimize_scalar

from hydrops.arrays import FloatGrid
from hydrops.images import blur_of_larger, box_around, grown
from hydrops.model.geometry import CROP_SPACING_MM

#: Blur, in voxels of the image, up to which its voxels are what they are told to be. It is 0.36 to
#: 0.40 in simulated ears of development with a point spread like that of the training or none, 0.46
#: at most where the outer 30 % of k-space in the slices was filled with zeros, and 0.46 to 0.47 in
#: a real image of voxels that were stored smaller than they were measured.
SHARP = 0.45
#: Blur from which on people are told of it.
BLURRED = 0.5
#: Most that is told apart.
MOST_BLUR = 1.2
#: Blurs, and the voxels that images count as, multiples of their own; in between, straight lines.
#: Chosen on simulated ears of development with point spreads of SD 0.5 to 0.85 voxels and with a
#: Hamming window: ratios are read the lower the smaller the voxels count. Up to a blur of 0.7 the
#: intervals held; beyond, voxels of the usual size are too large for a ratio.
BLURS, COUNTED_AS = (SHARP, 0.57, 0.7, MOST_BLUR), (1.0, 1.5, 1.57, 3.0)
#: Fluid of a voxel from which it counts as the labyrinth's, and how far around it is looked at.
INSIDE, AROUND_VOXELS = 0.5, 2
#: Voxels around those that are looked at, from which a blur takes signal.
BLUR_REACH = 4
#: How finely blur is told.
TOLERANCE = 0.01


def image_blur(mrc: FloatGrid, fractions: FloatGrid, voxel_mm: Sequence[float]) -> float:
    """SD of the Gaussian that a network's labyrinth, blurred with, looks most like the MRC.

    In voxels of the image, or of the crop where these are larger, alike along all axes, up to
    `MOST_BLUR`; beyond what voxels larger than the crop's do. Up to `SHARP` it is told no more
    closely than that.

    Parameters
    ----------
    mrc
        (x, y, z) on the crop grid, any unit.
    fractions
        (7, x, y, z) volume fractions of `hydrops.labels.LABELS`, one labyrinth, the network's.
    voxel_mm
        Voxel of the coarsest of the images along the axes of the crop.
    """
    fluid = fractions[1:].sum(0)
    near = grown(fluid > INSIDE, AROUND_VOXELS)
    box = box_around(near, (BLUR_REACH,) * 3)
    fluid, near = fluid[box], near[box]
    seen = mrc[box][near]
    crop = np.array(CROP_SPACING_MM)
    voxel = np.maximum(voxel_mm, crop)
    larger = blur_of_larger(crop, voxel)

    def left_over(blur: float) -> float:
        """Variance of the MRC that the blurred labyrinth does not tell."""
        width = np.hypot(larger, blur * voxel / crop)
        shown = ndimage.gaussian_filter(fluid, width, truncate=3.0)[near]
        return 1.0 - float(np.corrcoef(shown, seen)[0, 1]) ** 2

    if left_over(SHARP - TOLERANCE) <= left_over(SHARP + TOLERANCE):
        return SHARP
    found = minimize_scalar(
        left_over, bounds=(SHARP, MOST_BLUR), method="bounded", options={"xatol": TOLERANCE}
    )
    return float(found.x)


def voxel_as_seen(voxel_mm: Sequence[float], blur: float) -> tuple[float, float, float]:
    """The voxel that an image counts as, whose voxels are told and whose blur is `image_blur`."""
    factor = float(np.interp(blur, BLURS, COUNTED_AS))
    return voxel_mm[0] * factor, voxel_mm[1] * factor, voxel_mm[2] * factor
