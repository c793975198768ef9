"""The sign that a magnitude has lost, told by two of them: what a pair shows of any fluid.

HYDROPS, the difference of two magnitudes, falls evenly with the share of endolymph in a voxel only
where the PPI nulls endolymph and the PEI perilymph; a fluid beyond either null shows no more of it.
The signed signals of PPI and PEI, though, lie apart by nearly the same distance d in all fluids,
for near a null the recovery between two inversion times hangs little on T1. So as a voxel goes from
perilymph to endolymph, the sum and the difference of its magnitudes follow one line: where one
signal is positive and the other negative the sum is d and the difference falls from d to -d; where
both have the same sign the difference stays and the sum grows. The place on that line, unfolded, is
the signed sum of both, which falls evenly. How bright the pure fluids are in it, the voxels tell
where the network is sure (`hydrops.model.pure`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from hydrops.arrays import FloatGrid
from hydrops.errors import ExcludedError
from hydrops.model.preprocess import FLUID, fluid_levels, prepare
from hydrops.model.pure import SURE, PureVoxels, mean_of
from hydrops.sampling import LEAST_FLUID

#: d as a multiple of what HYDROPS falls to in the darkest tenth of an ear's fluid, which noise
#: makes darker, and the SD of difference and sum about their line as a share of d: noise, motion
#: and what the fluids differ in. Of 0.8 to 1.0 and 0.2 to 0.55, chosen on simulated ears of
#: development; ratio and Dice hang on them little.
DISTANCE, SPREAD = 0.9, 0.3
#: Places on the line that are looked at, multiples of d.
PLACES = np.linspace(-6.0, 6.0, 25, dtype=np.float32)
#: Place of pure endolymph from which on, with all doubt, the PPI does not null it. Less its doubt
#: that is -1.0 to -0.7 in simulated ears of development where the PPI does, and -0.6 to -0.4 in
#: most of those where its T1 is 3.5 % shorter. A network takes endolymph beyond for a mixture.
LEAST_NULLED = -0.65
#: Least that a network is shown of what falls from one in perilymph to minus one in endolymph: a
#: magnitude's fluids are no darker, but for noise. Of -1.1 to -1.6, chosen on simulated ears of
#: development whose endolymph has a T1 that is 3.5 or 7 % shorter than what the PPI nulls.
DARKEST = -1.35


@dataclass(frozen=True)
class Unfolded:
    """What the pair of an ear shows, unfolded, and what its pure fluids show.

    Parameters
    ----------
    place
        (x, y, z), see `unfold`.
    perilymph, endolymph
        Places of the pure fluids; the former is the larger.
    doubt
        How far the latter may be off: two standard errors of its mean, and what the purest
        endolymph lacks of being sure, for in an ear with little of it the network may give voxels
        more than they hold.
    """

    place: FloatGrid
    perilymph: float
    endolymph: float
    doubt: float

    @staticmethod
    def of(mi2: FloatGrid, summed: FloatGrid, mrc: FloatGrid, pure: PureVoxels) -> Unfolded:
        """That of an ear, as far as the pair and the network's places tell.

        Parameters
        ----------
        mi2, summed
            (x, y, z): HYDROPS-Mi2, and the sum of PPI and PEI times the MRC; one unit, any.
        mrc
            (x, y, z), fluid at one.

        Raises
        ------
        ExcludedError
            If endolymph is not darker than perilymph.
        """
        place = unfold(mi2, summed, mrc)
        both = (pure.perilymph, pure.endolymph)
        bright, dark = (mean_of(place, where) for where in both)
        if dark >= bright:
            raise ExcludedError(
                "what the network takes for endolymph is brighter in PPI beside PEI than what it "
                "takes for perilymph: were they swapped, or taken at other inversion times than is "
                "told?"
            )
        first, last = (float(pure.share[where].mean()) for where in both)
        whole = (bright - dark) / (last - first)
        seen = place[pure.endolymph]
        error = float(seen.std()) / seen.size**0.5 / (last - first)
        doubt = 2.0 * error + max(0.0, SURE - pure.purest)
        return Unfolded(place, bright + first * whole, bright - (1.0 - first) * whole, doubt)

    @property
    def nulled(self) -> bool:
        """Whether endolymph may be as dark in HYDROPS as a network expects (`LEAST_NULLED`)."""
        return self.endolymph - self.doubt <= LEAST_NULLED

    def channels(self, channels: FloatGrid) -> FloatGrid:
        """Channels whose HYDROPS over MRC is replaced by what falls evenly from one to minus one.

        From pure perilymph to pure endolymph.

        Parameters
        ----------
        channels
            (3, x, y, z) as `hydrops.model.preprocess.prepare` returns them.
        """
        found = (self.perilymph - self.place) / (self.perilymph - self.endolymph)
        return np.stack([channels[0], np.asarray(1.0 - 2.0 * found, np.float32), channels[2]])

    def as_if_nulled(self, channels: FloatGrid) -> FloatGrid:
        """Channels as of an ear whose endolymph the PPI nulls: as dark as CSF.

        Prepared for a network as those of images are (`hydrops.model.preprocess.prepare`).

        Parameters
        ----------
        channels
            As of `channels`.
        """
        even = np.maximum(self.channels(channels)[1], np.float32(DARKEST))
        mrc = channels[0]
        mi2 = even * np.maximum(mrc, np.float32(LEAST_FLUID)) ** 2
        shown = prepare(torch.from_numpy(mrc), torch.from_numpy(mi2)).numpy()
        return np.stack([mrc, shown[1], shown[2]])


def unfold(mi2: FloatGrid, summed: FloatGrid, mrc: FloatGrid) -> FloatGrid:
    """Signed sum of PPI and PEI over MRC, in multiples of their distance d.

    The mean over the places on the line that difference and sum may come from, all as likely
    beforehand, under normal noise.

    Parameters
    ----------
    mi2, summed
        As of `Unfolded.of`.
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
    # Logarithm of the likelihood, but for what is the same at all places.
    line = np.stack([np.clip(PLACES, -1.0, 1.0), np.maximum(1.0, np.abs(PLACES))], 1)
    # Not by a BLAS, whose threads would wait for those of the network.
    likely = np.einsum("pk,kn->pn", line, np.stack([difference[bright], total[bright]]))
    likely -= 0.5 * (line**2).sum(1, keepdims=True)
    share = torch.softmax(torch.from_numpy(likely) / SPREAD**2, dim=0).numpy()
    place[bright] = np.einsum("p,pn->n", PLACES, share)
    return np.asarray(place, np.float32)
