"""What of the fluid that a network marks belongs to the labyrinth.

Fractions are (7, x, y, z), of `hydrops.labels.LABELS`, on the crop grid.
"""

from __future__ import annotations

from math import prod

import numpy as np
from scipy import ndimage

from hydrops.arrays import FloatGrid
from hydrops.errors import ExcludedError
from hydrops.images import box_around, grown
from hydrops.labels import organ_codes
from hydrops.model.geometry import CROP_SPACING_MM
from hydrops.model.inhearit import SLICE_ORGANS

#: How far beyond the surface of the labyrinth its partial volume reaches, voxels.
RIM_VOXELS = 2
#: Volume of a voxel of a crop, mm3.
VOXEL_MM3 = prod(CROP_SPACING_MM)
#: Least volume of the largest piece for it to be taken for an ear, mm3.
LEAST_EAR_MM3 = 20.0
#: Largest area within a slice of what may be the rim of other fluid, voxels (2 mm2). In simulated
#: crops of development 0.4 % of 56 such pieces was labyrinth; of seven larger ones, more.
LARGEST_RIM = 8
#: What touches within a slice, and nothing beyond it.
_IN_SLICE = np.zeros((3, 3, 3), bool)
_IN_SLICE[:, :, 1] = True


def keep_labyrinth(probabilities: FloatGrid) -> FloatGrid:
    """Keep the largest piece of fluid and the partial volume at its rim; the rest is background.

    A labyrinth is one connected space; what else a network marks are vessels and cisterns.

    Raises
    ------
    ExcludedError
        If the largest piece is too small to be an ear.
    """
    fluid = probabilities[1:].sum(0) > 0.5
    pieces, count = ndimage.label(fluid, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(pieces[fluid])[1:] if count else np.zeros(1)
    if sizes.max() * VOXEL_MM3 < LEAST_EAR_MM3:
        raise ExcludedError("the model finds no inner ear where one was expected")
    largest = pieces == int(sizes.argmax()) + 1
    part = box_around(largest, (RIM_VOXELS,) * 3)
    near = grown(largest[part], RIM_VOXELS)
    fractions = np.zeros(probabilities.shape, np.float32)
    fractions[0] = 1.0
    kept = probabilities[1:, *part] * near
    fractions[1:, *part] = kept
    fractions[0][part] -= kept.sum(0)
    return fractions


def keep_organs(fractions: FloatGrid) -> FloatGrid:
    """As `keep_labyrinth`, `SLICE_ORGANS` each for itself: slice by slice they need not touch.

    Raises
    ------
    ExcludedError
        If the largest piece of either is too small.
    """
    kept = np.zeros_like(fractions)
    for organ in SLICE_ORGANS:
        codes = organ_codes(organ)
        alone = np.zeros_like(fractions)
        alone[codes] = fractions[codes]
        kept[codes] = keep_labyrinth(alone)[codes]
    kept[0] = 1.0 - kept[1:].sum(0)
    return kept


def without_rims(mrc: FloatGrid, fractions: FloatGrid) -> FloatGrid:
    """Take away small pieces of cochlea and vestibule that are the rim of brighter fluid.

    Where a nerve leaves the internal auditory canal a network may take the canal's rim, partial
    volume as dim as a turn of the cochlea, for one. In a slice such a piece stands alone, and
    beside it lies fluid of no labyrinth that is brighter than it is; beside a turn lies bone. The
    semicircular canals are as small, and vessels run along them: they are left as they are.

    Parameters
    ----------
    mrc
        (x, y, z), of any scale; slices are along z.
    """
    fluid = fractions[0] < 0.5
    if not fluid.any():
        return fractions
    box = box_around(fluid, (1,) * 3)
    shares, image = fractions[1:, *box], mrc[box]
    pieces, _ = ndimage.label(fluid[box], _IN_SLICE)
    places = ndimage.find_objects(pieces)
    organs = [code - 1 for organ in SLICE_ORGANS for code in organ_codes(organ)]
    rims = np.zeros(image.shape, bool)
    for piece in np.flatnonzero(np.bincount(pieces.ravel()) <= LARGEST_RIM):
        part = tuple(slice(max(0, along.start - 1), along.stop + 1) for along in places[piece - 1])
        inside = pieces[part] == piece
        held = shares[:, *part][:, inside].sum(1)
        if 2 * held[organs].sum() <= held.sum():
            continue
        around = ndimage.binary_dilation(inside, _IN_SLICE) & ~inside
        if image[part][inside].mean() < image[part][around].max(initial=0.0):
            rims[part] |= inside | around
    if not rims.any():
        return fractions
    kept = fractions.copy()
    in_box = kept[:, *box]
    in_box[:, rims] = 0.0
    in_box[0, rims] = 1.0
    return kept
