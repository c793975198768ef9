"""Losses of volume fractions, EH ratios and landmarks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

#: Weight of the landmarks beside a cross entropy of weight one: of similar size after a while.
LANDMARK_WEIGHT = 0.05


def soft_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy against volume fractions, mean over voxels; both (batch, classes, ...)."""
    return -(target * torch.log_softmax(logits, dim=1)).sum(1).mean()


def soft_dice_loss(probabilities: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One minus the Dice of volume fractions, mean over samples and foreground classes.

    After Milletari et al., 3DV 2016, eq. 3, for volume fractions: what both have of a voxel is the
    smaller of the two, and the sums are not of squares, so that it is zero for a perfect fraction.
    """
    p, t = probabilities[:, 1:].flatten(2), target[:, 1:].flatten(2)
    overlap = 2.0 * torch.minimum(p, t).sum(2)
    return (1.0 - (overlap + 1.0) / (p.sum(2) + t.sum(2) + 1.0)).mean()


def ratio_loss(probabilities: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean error of the EH volume ratio of the organs and of the labyrinth."""
    return (_ratios(probabilities) - _ratios(target)).abs().mean()


def _ratios(fractions: torch.Tensor) -> torch.Tensor:
    """EH volume ratios (batch, 4); twenty voxels more keep an organ outside the patch harmless."""
    volumes = fractions.flatten(2).sum(2)
    endolymph, perilymph = volumes[:, 2::2], volumes[:, 1::2]
    endolymph = torch.cat([endolymph, endolymph.sum(1, keepdim=True)], dim=1)
    perilymph = torch.cat([perilymph, perilymph.sum(1, keepdim=True)], dim=1)
    return endolymph / (endolymph + perilymph + 20.0)


def landmark_loss(
    logits: torch.Tensor, points: torch.Tensor, sigma: Sequence[float] = (1.2, 1.2, 1.2)
) -> torch.Tensor:
    """Cross entropy of the spatial softmax against a Gaussian of `sigma` voxels along each axis.

    Landmarks outside the patch do not count.
    """
    shape = logits.shape[2:]
    axes = [torch.arange(n, device=logits.device, dtype=torch.float32) for n in shape]
    profiles = [
        torch.exp(-0.5 * ((axis - points[..., k, None]) / sigma[k]) ** 2)
        for k, axis in enumerate(axes)
    ]
    heat = torch.einsum("blx,bly,blz->blxyz", *profiles).flatten(2)
    size = torch.tensor(shape, device=logits.device)
    inside = ((points > 1) & (points < size - 2)).all(-1)
    heat = heat / heat.sum(2, keepdim=True).clamp_min(1e-6)
    entropy = -(heat * torch.log_softmax(logits.flatten(2), dim=2)).sum(2)
    return (entropy * inside).sum() / inside.sum().clamp_min(1)
