"""What MRC, PPI and PEI show of a made-up ear, for the tests of how they are read."""

from __future__ import annotations

import numpy as np

from hydrops.arrays import FloatGrid
from hydrops.labels import ORGANS, perilymph_code
from hydrops.phantom.signal import MRC, PEI, PPI, Fluids, Sequence, gadolinium, signal


def shown(fluids: Fluids, sequence: Sequence, fractions: FloatGrid) -> FloatGrid:
    """Magnitude of an ear in bone that gives no signal, and of a cistern beside it."""
    tissues = fluids.tissues()
    image = signal(tissues["endolymph"], sequence) * fractions[2::2].sum(0)
    for organ, uptake in zip(ORGANS, fluids.uptake):
        reached = gadolinium(tissues["perilymph"], uptake * fluids.perilymph_mmol)
        image += signal(reached, sequence) * fractions[perilymph_code(organ)]
    image[:, :2] += signal(tissues["csf"], sequence)
    return np.abs(image).astype(np.float32)


def given_images(
    fluids: Fluids, fractions: FloatGrid, gain: float = 1.0
) -> tuple[FloatGrid, FloatGrid, FloatGrid]:
    """HYDROPS-Mi2 of an ear, the sum of PPI and PEI times the MRC, and channels with that MRC."""
    mrc, ppi, pei = (shown(fluids, sequence, fractions) for sequence in (MRC, PPI, PEI))
    channels = np.stack([mrc / mrc.max(), np.zeros_like(mrc), np.ones_like(mrc)])
    mi2, summed = (gain * (ppi + sign * pei) * mrc for sign in (-1.0, 1.0))
    return mi2, summed, channels
