"""How the intensities of an ear are scaled before a network sees them."""

from __future__ import annotations

import numpy as np
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
        (..., x, y, z), of one ear or of many.
    gain
        Factor on the result, for augmentation.

    Returns
    -------
    (..., 3, x, y, z)
    """
    every = torch.ones_like(mrc, dtype=torch.bool)
    first = mrc / _of_ear(_quantile(mrc, every, FLUID_QUANTILE).clamp_min(TINY))
    if mi2 is None:
        second = enhancement = torch.zeros_like(mrc)
    else:
        share = mi2 / (first.square() + NO_FLUID**2)
        bright, dark = map(_of_ear, fluid_levels(share, first > FLUID))
        second = (2.0 * share - bright - dark) / (bright - dark).clamp_min(TINY)
        enhancement = torch.ones_like(mrc) * (bright / -dark)
    scaled = torch.stack([first, second], dim=-4).clamp(-2.0, 2.0) * gain
    return torch.cat([scaled, enhancement.clamp(0.0, 2.0).unsqueeze(-4)], dim=-4)


def fluid_levels(share: torch.Tensor, fluid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Levels of HYDROPS over MRC in perilymph and in the fluids that take up no gadolinium.

    HYDROPS is positive in perilymph and negative in CSF and endolymph. The perilymph's level is
    the upper quartile of what is positive, which partial volume hardly moves; the dark level is
    the lowest tenth, CSF where there is a cistern.

    Parameters
    ----------
    share
        (..., x, y, z) HYDROPS over MRC, any unit.
    fluid
        (..., x, y, z) where there is nothing but fluid; if that is nowhere, all counts as fluid.

    Returns
    -------
    (...) both.
    """
    counted = fluid | ~_of_ear(fluid.flatten(-3).any(-1))
    largest = torch.where(counted, share, 0.0).abs().flatten(-3).amax(-1)
    dark = torch.minimum(_quantile(share, counted, 0.1), -1e-6 * largest.clamp_min(TINY))
    bright = _quantile(share, counted & (share > 0), 0.75)
    return torch.maximum(bright, -LEAST_ENHANCEMENT * dark), dark


def _of_ear(number: torch.Tensor) -> torch.Tensor:
    """A number of each ear (...) as its images are told (..., 1, 1, 1)."""
    return number[..., None, None, None]


def _quantile(values: torch.Tensor, counted: torch.Tensor, share: float) -> torch.Tensor:
    """Quantile (...) of those values (..., x, y, z) that are counted; zero where none is."""
    rows, among = (part.reshape(-1, values.shape[-3:].numel()) for part in (values, counted))
    select = quantile_by_sorting if values.is_cuda else quantile_one_by_one
    return select(rows, among, share).reshape(values.shape[:-3])


def quantile_one_by_one(rows: torch.Tensor, among: torch.Tensor, share: float) -> torch.Tensor:
    """Quantile (n,) of what is counted among each row (n, m); zero where nothing is.

    For a processor, which selects a value many times faster than it sorts them all.
    """
    found = rows.new_zeros(len(rows))
    for place, (row, counted) in enumerate(zip(rows, among)):
        known = (row if bool(counted.all()) else row[counted]).numpy()
        if known.size:
            rank = max(1, round(share * known.size)) - 1
            found[place] = float(np.partition(known, rank)[rank])
    return found


def quantile_by_sorting(rows: torch.Tensor, among: torch.Tensor, share: float) -> torch.Tensor:
    """As `quantile_one_by_one`, for a GPU: all rows at once, and nothing waits for a count."""
    counts = among.sum(1)
    ranks = (share * counts.double()).round().long().clamp_min(1)
    ordered = rows.masked_fill(~among, torch.inf).sort(1).values
    return torch.where(counts > 0, ordered.gather(1, ranks[:, None] - 1)[:, 0], 0.0)
