"""The dual-headed 3D U-Net: compartments of the labyrinth, and heatmaps of its landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.networks.nets import UNet

from hydrops.labels import LABELS, LANDMARKS
from hydrops.model.preprocess import CHANNELS


@dataclass(frozen=True)
class NetworkOptions:
    """Size of a network: features by level, residual units a level, channels in, classes out.

    `normalised` puts instance normalisation after each convolution; `architecture` is one of
    `hydrops.model.architectures.ARCHITECTURES`.
    """

    channels: tuple[int, ...] = (16, 32, 64, 128)
    residual_units: int = 2
    inputs: int = len(CHANNELS)
    labels: int = len(LABELS)
    normalised: bool = False
    architecture: str = "dual"

    @staticmethod
    def from_dict(values: dict[str, Any]) -> NetworkOptions:
        """From the numbers of a configuration, whose sequences are lists."""
        return NetworkOptions(**{**values, "channels": tuple(values["channels"])})


def unet(
    dimensions: int, options: NetworkOptions, inputs: int, outputs: int, norm: str | None = None
) -> torch.nn.Module:
    """MONAI's U-Net of the options' features and residual units, halving at each level.

    Parameters
    ----------
    norm
        That of the options when None.
    """
    network: torch.nn.Module = UNet(
        spatial_dims=dimensions,
        in_channels=inputs,
        out_channels=outputs,
        channels=options.channels,
        strides=(2,) * (len(options.channels) - 1),
        num_res_units=options.residual_units,
        norm=norm or ("instance" if options.normalised else None),
    )
    return network


class DualHeadUNet(torch.nn.Module):
    """3D U-Net (Cicek et al., MICCAI 2016) with a segmentation and a landmark head.

    Paired input as in Yoo et al. 2024 (MRC and HYDROPS-Mi2), two heads on one trunk as in Stebani
    et al. 2023. Input (batch, inputs, x, y, z), on MR as `hydrops.model.preprocess.prepare` gives
    it, each size a multiple of eight for four levels; output the logits of the classes and of
    `LANDMARKS` as a pair.

    For ratios, features are not normalised: instance normalisation scales the many endolymph
    voxels of a hydropic ear and the few of a normal one to the same strength, and ratios then
    shrink to their mean (measured: more error after 5000 steps than without after 900).
    """

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        width = options.channels[0]
        self.trunk = unet(3, options, options.inputs, width)
        self.segmentation = torch.nn.Conv3d(width, options.labels, kernel_size=1)
        self.landmarks = torch.nn.Conv3d(width, len(LANDMARKS), kernel_size=1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.nn.functional.leaky_relu(self.trunk(images), 0.01)
        return self.segmentation(features), self.landmarks(features)


def landmark_positions(logits: torch.Tensor, window: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Sub-voxel landmarks from heatmap logits.

    The heatmap is a softmax over space; a landmark is the mean position within `window` voxels
    of its peak, and its confidence the share of the heatmap that lies there.

    Parameters
    ----------
    logits
        (landmarks, x, y, z).

    Returns
    -------
    Positions (landmarks, 3) in voxels and confidences (landmarks,).
    """
    shape = logits.shape[1:]
    heat = torch.softmax(logits.flatten(1).float(), dim=1)
    peaks = torch.stack(torch.unravel_index(heat.argmax(1), shape), dim=1)
    heat = heat.view(-1, *shape)
    positions, confidences = [], []
    for channel, peak in zip(heat, peaks):
        ranges = [_window(int(p), n, window) for p, n in zip(peak, shape)]
        local = channel[tuple(slice(r[0], r[-1] + 1) for r in ranges)]
        mass = local.sum()
        positions.append(
            torch.stack(
                [
                    (local.sum(dim=_others(axis)) * torch.tensor(r, device=local.device)).sum()
                    / mass
                    for axis, r in enumerate(ranges)
                ]
            )
        )
        confidences.append(mass)
    return torch.stack(positions), torch.stack(confidences)


def _window(peak: int, size: int, reach: int) -> range:
    return range(max(0, peak - reach), min(size, peak + reach + 1))


def _others(axis: int) -> Sequence[int]:
    return [other for other in range(3) if other != axis]
