"""How the intensities of an ear are scaled before a network sees them."""

from __future__ import annotations

import torch


def prepare(mrc: torch.Tensor, mi2: torch.Tensor | None, gain: float = 1.0) -> torch.Tensor:
    """Scale the images of an ear to what the networks are trained on.

    MRC is divided by its 99.5th percentile, which is the brightness of fluid. HYDROPS-Mi2, a
    product of two images, is brought back to the scale of one by a square root that keeps its
    sign, and divided by the 99.5th percentile of its modulus. So neither scanner gain nor units
    matter. A missing HYDROPS-Mi2 is a channel of zeros.

    Parameters
    ----------
    mrc, mi2
        (x, y, z).
    gain
        Factor on the result, for augmentation.

    Returns
    -------
    (2, x, y, z)
    """
    first = mrc / _bright(mrc)
    if mi2 is None:
        second = torch.zeros_like(mrc)
    else:
        root = mi2.abs().sqrt()
        second = torch.sign(mi2) * root / _bright(root)
    return torch.stack([first, second]).clamp(-2.0, 2.0) * gain


def _bright(image: torch.Tensor) -> torch.Tensor:
    """99.5th percentile, at least a tiny positive number."""
    rank = max(1, round(0.995 * image.numel()))
    return image.flatten().kthvalue(rank).values.clamp_min(1e-6)
