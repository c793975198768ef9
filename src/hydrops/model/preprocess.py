"""How the intensities of an ear are scaled before a network sees them."""

from __future__ import annotations

import torch

from hydrops.sampling import FLUID_QUANTILE

#: MRC relative to fluid, below which HYDROPS-Mi2 is damped rather than divided.
NO_FLUID = 0.2
#: MRC relative to fluid, above which a voxel counts as full of it.
FLUID = 0.65
#: Least distance of the perilymph's level from zero, as a share of that of the dark fluids; an
#: ear that took up no gadolinium has no brighter one.
LEAST_ENHANCEMENT = 0.2
#: What no level of an image comes near to, whatever its unit.
TINY = 1e-20


#: Channels of a network's input.
CHANNELS = ("MRC", "HYDROPS-Mi2", "enhancement")


def prepare(mrc: torch.Tensor, mi2: torch.Tensor | None, gain: float = 1.0) -> torch.Tensor:
    """Scale the images of an ear to what the networks are trained on.

    MRC is divided by its quantile `FLUID_QUANTILE`, the brightness of fluid. HYDROPS-Mi2, the
    product of HYDROPS and MRC, is divided by the MRC squared where there is fluid: that leaves
    HYDROPS over MRC, free of the coil's shading and of the noise outside fluid, in which a
    voxel's value falls with its share of endolymph. Its scale is set by the two fluids that every
    ear shows, so that no gain matters: one is the level of perilymph and minus one that of CSF,
    see `fluid_levels`. How evenly it falls depends on how much gadolinium there is, so the ratio
    of the two levels is given along, a channel that is the same everywhere. Without HYDROPS-Mi2
    both channels are zero.

    Parameters
    ----------
    mrc, mi2
        (x, y, z).
    gain
        Factor on the result, for augmentation.

    Returns
    -------
    (3, x, y, z)
    """
    first = mrc / _quantile(mrc.flatten(), FLUID_QUANTILE).clamp_min(TINY)
    if mi2 is None:
        second = enhancement = torch.zeros_like(mrc)
    else:
        share = mi2 / (first.square() + NO_FLUID**2)
        bright, dark = fluid_levels(share, first > FLUID)
        second = (2.0 * share - bright - dark) / (bright - dark).clamp_min(TINY)
        enhancement = torch.ones_like(mrc) * (bright / -dark)
    scaled = torch.stack([first, second]).clamp(-2.0, 2.0) * gain
    return torch.cat([scaled, enhancement.clamp(0.0, 2.0)[None]])


def fluid_levels(share: torch.Tensor, fluid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Levels of HYDROPS over MRC in perilymph and in the fluids that take up no gadolinium.

    HYDROPS is positive in perilymph and negative in CSF and endolymph. The perilymph's level is
    the upper quartile of what is positive, which partial volume hardly moves; the dark level is
    the lowest tenth, CSF where there is a cistern.

    Parameters
    ----------
    share
        (x, y, z) HYDROPS over MRC, any unit.
    fluid
        (x, y, z) where there is nothing but fluid.
    """
    levels = share[fluid] if bool(fluid.any()) else share.flatten()
    least = 1e-6 * levels.abs().max().clamp_min(TINY)
    dark = torch.minimum(_quantile(levels, 0.1), -least)
    positive = levels[levels > 0]
    bright = _quantile(positive, 0.75) if len(positive) else torch.zeros(())
    return torch.maximum(bright, -LEAST_ENHANCEMENT * dark), dark


def _quantile(values: torch.Tensor, share: float) -> torch.Tensor:
    return values.kthvalue(max(1, round(share * values.numel()))).values
