"""The sign that a magnitude has lost, told by two of them: what a pair shows of any fluid.

HYDROPS, the difference of two magnitudes, falls evenly with the share of endolymph in a voxel only
where the PPI nulls endolymph and the PEI perilymph; a fluid beyond either null shows no more of it.
The signed signals of PPI and PEI, though, lie apart by nearly the same distance d in all fluids,
for near a null the recovery between two inversion times hangs little on T1. So as a voxel goes from
perilymph to endolymph, the sum and the difference of its magnitudes follow one line: where one
signal is positive and the other negative the sum is d and the difference falls from d to -d; where
both have the same sign the difference stays and the sum grows. The place on that line, unfolded, is
the signed sum of both, which falls evenly. How bright the pure fluids are in it, the voxels tell
where the network is sure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from scipy.stats import trim_mean

from hydrops.errors import ExcludedError
from hydrops.images import blur_of_larger
from hydrops.model.geometry import CROP_SPACING_MM
from hydrops.model.preprocess import FLUID, fluid_levels
from hydrops.model.unmix import LEAST_FLUID

FloatGrid = npt.NDArray[np.float32]

#: d as a multiple of what HYDROPS falls to in the darkest tenth of an ear's fluid, which noise
#: makes darker, and the SD of difference and sum about their line as a share of d: noise, motion
#: and what the fluids differ in. Of 0.8 to 1.0 and 0.2 to 0.55, chosen on simulated ears of
#: development; ratio and Dice hang on them little.
DISTANCE, SPREAD = 0.9, 0.3
#: Places on the line that are looked at, multiples of d.
PLACES = np.linspace(-6.0, 6.0, 25, dtype=np.float32)
#: Network's share of a fluid from which its voxels count as pure; of 0.8 to 0.98, chosen on
#: simulated ears of development.
SURE = 0.98
#: Voxels of each fluid that count as pure at least, should the network be sure of fewer.
LEAST_SURE = 20
#: Share of the pure voxels that is left out at either end of their mean. Noise moves what lies at
#: a corner of the line inwards, so that a median is not what the mean of an ear is to be held to.
TRIMMED = 0.1
#: Network's fluid above which a voxel counts as full.
FULL = 0.9
#: By what the variance of an image's voxel beyond the crop's is multiplied to blur the network's
#: places as the image is: it was interpolated, too, and the network draws places sharper than they
#: can be seen. Of 0.5 to 3, chosen on phantoms of development with voxels of 0.6 to 1.4 mm.
BLUR = 2.0


def unfolded_channels(
    mi2: FloatGrid,
    summed: FloatGrid,
    channels: FloatGrid,
    fractions: FloatGrid,
    voxel_mm: Sequence[float] = CROP_SPACING_MM,
) -> FloatGrid:
    """Channels whose HYDROPS over MRC is replaced by what falls evenly from one to minus one.

    From pure perilymph to pure endolymph, as far as the pair and the network's places tell.

    Parameters
    ----------
    mi2, summed
        (x, y, z): HYDROPS-Mi2, and the sum of PPI and PEI times the MRC; one unit, any.
    channels
        (3, x, y, z) as `hydrops.model.preprocess.prepare` returns them.
    fractions
        (7, x, y, z) volume fractions of `hydrops.labels.LABELS`, the network's.
    voxel_mm
        Voxel of the coarsest of the images along the axes of the crop.

    Raises
    ------
    ExcludedError
        If endolymph is not darker than perilymph, or too little of the fluid is full.
    """
    place = unfold(mi2, summed, channels[0])
    fluid, endolymph = _as_imaged([fractions[1:].sum(0), fractions[2::2].sum(0)], voxel_mm)
    full = (fluid > FULL) & (channels[0] > FLUID)
    if full.sum() < 2 * LEAST_SURE:
        raise ExcludedError(
            f"only {full.sum()} voxels are full of the labyrinth's fluid, at least "
            f"{2 * LEAST_SURE} are needed to tell its endolymph: are the voxels too large?"
        )
    known, share = place[full], endolymph[full] / fluid[full]
    ranked = np.sort(share)
    pure = (
        share <= max(1.0 - SURE, ranked[LEAST_SURE - 1]),
        share >= min(SURE, ranked[-LEAST_SURE]),
    )
    bright, dark = (float(trim_mean(known[where], TRIMMED)) for where in pure)
    if dark >= bright:
        raise ExcludedError(
            "what the network takes for endolymph is brighter in PPI beside PEI than what it takes "
            "for perilymph: were they swapped, or taken at other inversion times than is told?"
        )
    first, last = (float(share[where].mean()) for where in pure)
    found = first + (bright - place) / (bright - dark) * (last - first)
    return np.stack([channels[0], np.asarray(1.0 - 2.0 * found, np.float32), channels[2]])


def unfold(mi2: FloatGrid, summed: FloatGrid, mrc: FloatGrid) -> FloatGrid:
    """Signed sum of PPI and PEI over MRC, in multiples of their distance d.

    The mean over the places on the line that difference and sum may come from, all as likely
    beforehand, under normal noise.

    Parameters
    ----------
    mi2, summed
        As of `unfolded_channels`.
    mrc
        (x, y, z), fluid at one.
    """
    # Divided by all the fluid that a voxel holds, not damped as for a network: that would make
    # what is half bone look half endolymph.
    over = np.maximum(mrc, np.float32(LEAST_FLUID)) ** 2
    difference, total = mi2 / over, summed / over
    _, dark = fluid_levels(torch.from_numpy(difference), torch.from_numpy(mrc > FLUID))
    distance = -DISTANCE * float(dark)
    difference, total = difference / distance, total / distance
    # Their product is the place where there is no noise, and stays near it far from the line.
    place = np.clip(difference * total, PLACES[0], PLACES[-1])
    bright = mrc > LEAST_FLUID
    apart = (difference[bright][:, None] - np.clip(PLACES, -1.0, 1.0)) ** 2
    apart += (total[bright][:, None] - np.maximum(1.0, np.abs(PLACES))) ** 2
    likely = np.exp(-0.5 * (apart - apart.min(1, keepdims=True)) / SPREAD**2)
    place[bright] = (likely @ PLACES) / likely.sum(1)
    return np.asarray(place, np.float32)


def _as_imaged(volumes: Sequence[FloatGrid], voxel_mm: Sequence[float]) -> list[FloatGrid]:
    """Volumes of the crop as blurred as an image whose voxels are larger than the crop's.

    Otherwise what the network is sure of would count as pure though its voxels hold both fluids.
    """
    width = np.sqrt(BLUR) * blur_of_larger(CROP_SPACING_MM, voxel_mm)
    return [np.asarray(ndimage.gaussian_filter(v, width), np.float32) for v in volumes]
