"""How much of an ear's fluid is endolymph, from its signal rather than from voxels counted.

A voxel's HYDROPS falls evenly from perilymph to endolymph with its share of endolymph, and bone
adds nothing to HYDROPS or MRC. So the sum of HYDROPS over the labyrinth, divided by that of MRC,
gives the share of the whole whatever the size of the voxels, and no voxel has to be called one
or the other. The levels of the two pure fluids are a model's calibration, `FluidLevels`; they are
told from an ear's own brightest and darkest fluid, which large voxels mix, so a calibration holds
for voxels like those it was made with (`benchmarks/resolution.py` shows how far).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit

FloatGrid = npt.NDArray[np.float32]

#: MRC relative to fluid, below which a voxel says nothing about it.
LEAST_FLUID = 0.2
#: The share is kept from the ends, where no voxel could differ from another.
LEAST_SHARE = 0.005


@dataclass(frozen=True)
class FluidLevels:
    """Share of endolymph = offset + slope x level + enhancement x (level of the enhancement).

    The level is that of `hydrops_level`; pure perilymph lies where the share is zero, pure
    endolymph where it is one. The perilymph's level is estimated from an ear's brightest fluid,
    more too high the less gadolinium there is, which is what the third number takes back.
    """

    offset: float
    slope: float
    enhancement: float

    def share(self, level: float, enhancement: float) -> float:
        """Share of endolymph in the fluid, within `LEAST_SHARE` of its ends."""
        share = self.offset + self.slope * level + self.enhancement * enhancement
        return float(np.clip(share, LEAST_SHARE, 1.0 - LEAST_SHARE))

    @staticmethod
    def fit(
        levels: npt.ArrayLike, enhancements: npt.ArrayLike, shares: npt.ArrayLike
    ) -> FluidLevels:
        """Least squares over ears whose share of endolymph is known."""
        columns = [np.ones(len(np.asarray(levels))), np.asarray(levels), np.asarray(enhancements)]
        numbers = np.linalg.lstsq(np.stack(columns, axis=1), np.asarray(shares), rcond=None)[0]
        return FluidLevels(*(round(float(number), 4) for number in numbers))


def half_width(
    levels: npt.ArrayLike, enhancements: npt.ArrayLike, shares: npt.ArrayLike, coverage: float
) -> float:
    """Half the width of an interval of the share that holds for `coverage` of ears like these.

    Conformal: the quantile of the absolute errors, each of an ear that the fit left out, with the
    correction for their number (Lei et al., J Am Stat Assoc 2018;113:1094, section 2). One width
    for all, because neither the share nor the enhancement foretells the error.

    Raises
    ------
    ValueError
        If there are too few ears for such a coverage.
    """
    columns = np.stack(
        [np.ones(len(np.asarray(levels))), np.asarray(levels), np.asarray(enhancements)], axis=1
    )
    hat = columns @ np.linalg.pinv(columns)
    truth = np.asarray(shares, dtype=float)
    errors = np.sort(np.abs((truth - hat @ truth) / (1.0 - np.diag(hat))))
    rank = int(np.ceil(coverage * (len(errors) + 1)))
    if rank > len(errors):
        raise ValueError(f"{len(errors)} ears are too few for an interval of {coverage:.0%}")
    return float(errors[rank - 1])


def hydrops_level(channels: FloatGrid, fluid: FloatGrid) -> float:
    """Mean HYDROPS over MRC of a region, weighted by its fluid.

    Parameters
    ----------
    channels
        (3, x, y, z) as `hydrops.model.preprocess.prepare` returns them: about one in perilymph,
        minus one in CSF.
    fluid
        (x, y, z) share of each voxel that is fluid of the region.
    """
    mrc, share = channels[0], channels[1]
    weights = np.where(mrc > LEAST_FLUID, mrc * fluid, 0.0)
    return float((weights * share).sum() / max(float(weights.sum()), 1e-6))


def set_endolymph(fractions: FloatGrid, share: float) -> FloatGrid:
    """Keep where the endolymph lies and change how much there is.

    The odds of endolymph are multiplied by one number in every voxel, the one that brings its
    volume to `share` of the fluid.

    Parameters
    ----------
    fractions
        (7, x, y, z) volume fractions of `hydrops.labels.LABELS`.
    """
    fluid = fractions[1::2] + fractions[2::2]
    inside = fluid > 1e-6
    volume = fluid[inside].astype(np.float64)
    odds = logit(np.clip(fractions[2::2][inside] / volume, 1e-4, 1.0 - 1e-4))
    wanted = share * volume.sum()
    shift = brentq(lambda by: float((volume * expit(odds + by)).sum()) - wanted, -20.0, 20.0)
    endolymph = np.zeros_like(fluid)
    endolymph[inside] = volume * expit(odds + shift)
    result = fractions.copy()
    result[2::2] = endolymph
    result[1::2] = fluid - endolymph
    return result
