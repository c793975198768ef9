"""The dual-headed 3D U-Net: compartments of the labyrinth, and heatmaps of its landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from monai.networks.blocks.squeeze_and_excitation import ChannelSELayer
from monai.networks.nets import UNet

from hydrops.errors import HydropsError
from hydrops.labels import LABELS, LANDMARKS
from hydrops.model.preprocess import CHANNELS

#: How far from the peak of a heatmap its landmark's mean position reaches, voxels.
NEAR_PEAK_VOXELS = 3
#: A normalisation by MONAI's name for it, and its options.
Norm = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class NetworkOptions:
    """Size of a network: features by level, residual units a level, channels in, classes out.

    `strides` are the steps from level to level along each axis; None halves all axes each time.
    `fold` voxels along each axis become channels before the first level and voxels again after the
    last (sub-pixel convolution, Shi et al., CVPR 2016): full resolution at a coarser one's cost.
    `normalised` puts instance normalisation after each convolution, `excited` a squeeze-excitation
    after each level on the way down (Hu et al., CVPR 2018); `architecture` is one of
    `hydrops.model.architectures.ARCHITECTURES`.
    """

    channels: tuple[int, ...] = (16, 32, 64, 128)
    residual_units: int = 2
    inputs: int = len(CHANNELS)
    labels: int = len(LABELS)
    normalised: bool = False
    excited: bool = False
    architecture: str = "dual"
    strides: tuple[tuple[int, ...], ...] | None = None
    fold: tuple[int, ...] = (1, 1, 1)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> NetworkOptions:
        """From the numbers of a configuration, whose sequences are lists."""
        strides = values.get("strides")
        return NetworkOptions(
            **{
                **values,
                "channels": tuple(values["channels"]),
                "strides": None if strides is None else tuple(tuple(step) for step in strides),
                "fold": tuple(values.get("fold", (1, 1, 1))),
            }
        )


def unet(
    dimensions: int, options: NetworkOptions, inputs: int, outputs: int, norm: Norm | None = None
) -> torch.nn.Module:
    """MONAI's U-Net of the options' features, residual units and strides.

    Parameters
    ----------
    dimensions
        2 takes the first two of each step of the strides.
    norm
        That of the options when None.
    """
    steps = options.strides or ((2,) * dimensions,) * (len(options.channels) - 1)
    kind = _ExcitedUNet if options.excited else UNet
    network: torch.nn.Module = kind(
        spatial_dims=dimensions,
        in_channels=inputs,
        out_channels=outputs,
        channels=options.channels,
        strides=[step[:dimensions] for step in steps],
        num_res_units=options.residual_units,
        norm=norm or (("instance", {}) if options.normalised else None),
    )
    return network


class _ExcitedUNet(UNet):  # type: ignore[misc]  # MONAI tells no types
    """MONAI's U-Net with squeeze-excitation after each level on the way down."""

    def _get_down_layer(
        self, in_channels: int, out_channels: int, strides: int, is_top: bool
    ) -> torch.nn.Module:
        plain = super()._get_down_layer(in_channels, out_channels, strides, is_top)
        return torch.nn.Sequential(plain, ChannelSELayer(self.dimensions, out_channels))


class FoldedUNet(torch.nn.Module):
    """`unet` on blocks of voxels; input and output (batch, channels, ...) as if on voxels."""

    def __init__(self, dimensions: int, options: NetworkOptions, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fold = options.fold[:dimensions]
        count = prod(self.fold)
        self.network = unet(dimensions, options, inputs * count, outputs * count)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return unfolded(self.network(folded(images, self.fold)), self.fold)


def folded(images: torch.Tensor, fold: Sequence[int]) -> torch.Tensor:
    """Blocks of voxels (batch, channels, ...) as channels; each size a multiple of its fold."""
    batch, channels, *sizes = images.shape
    pairs = [part for n, f in zip(sizes, fold) for part in (n // f, f)]
    inner = [3 + 2 * axis for axis in range(len(sizes))]
    outer = [2 + 2 * axis for axis in range(len(sizes))]
    blocks = images.reshape(batch, channels, *pairs).permute(0, 1, *inner, *outer)
    flat = blocks.reshape(batch, channels * prod(fold), *(n // f for n, f in zip(sizes, fold)))
    layout = torch.channels_last_3d if len(sizes) == 3 else torch.channels_last
    return flat.contiguous(memory_format=layout)


def unfolded(features: torch.Tensor, fold: Sequence[int]) -> torch.Tensor:
    """The inverse of `folded`."""
    batch, channels, *sizes = features.shape
    count = len(sizes)
    blocks = features.reshape(batch, channels // prod(fold), *fold, *sizes)
    order = [part for axis in range(count) for part in (2 + count + axis, 2 + axis)]
    return blocks.permute(0, 1, *order).reshape(
        batch, channels // prod(fold), *(n * f for n, f in zip(sizes, fold))
    )


class DualHeadUNet(torch.nn.Module):
    """3D U-Net (Cicek et al., MICCAI 2016) with a segmentation and a landmark head.

    Paired input as in Yoo et al. 2024 (MRC and HYDROPS-Mi2), two heads on one trunk as in Stebani
    et al. 2023. Input (batch, inputs, x, y, z), on MR as `hydrops.model.preprocess.prepare` gives
    it, each size a multiple of the strides' product; output the logits of the classes and of
    `LANDMARKS` as a pair.

    For ratios, features are not normalised: instance normalisation scales the many endolymph
    voxels of a hydropic ear and the few of a normal one to the same strength, and ratios then
    shrink to their mean (measured: more error after 5000 steps than without after 900).
    """

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        width, self.fold = options.channels[0], options.fold
        count = prod(self.fold)
        self.trunk = unet(3, options, options.inputs * count, width)
        self.segmentation = torch.nn.Conv3d(width, options.labels * count, kernel_size=1)
        self.landmarks = torch.nn.Conv3d(width, len(LANDMARKS) * count, kernel_size=1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.nn.functional.leaky_relu(self.trunk(folded(images, self.fold)), 0.01)
        heads = (self.segmentation(features), self.landmarks(features))
        return unfolded(heads[0], self.fold), unfolded(heads[1], self.fold)


def load_weights(network: torch.nn.Module, path: Path) -> torch.nn.Module:
    """Give a network its weights, which alone are read from a file, and set it to be used.

    Raises
    ------
    HydropsError
        If the file is none of weights, or they are not those of such a network.
    """
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, UnpicklingError) as error:
        raise HydropsError(f"{path}: does not fit the network of its metadata") from error
    return network.eval()


def landmark_positions(
    logits: torch.Tensor, peaks: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sub-voxel landmarks from heatmap logits.

    The heatmap is a softmax over space; a landmark is the mean position within `NEAR_PEAK_VOXELS`
    of its peak, and its confidence the share of the heatmap that lies there.

    Parameters
    ----------
    logits
        (landmarks, x, y, z).
    peaks
        (landmarks, 3) voxels of the peaks; the highest ones when None.

    Returns
    -------
    Positions (landmarks, 3) in voxels and confidences (landmarks,).
    """
    shape = logits.shape[1:]
    heat = torch.softmax(logits.flatten(1).float(), dim=1)
    if peaks is None:
        # NumPy's, for torch's loads an algebra system, half a second for each case.
        peaks = torch.tensor(np.stack(np.unravel_index(heat.argmax(1).cpu().numpy(), shape), 1))
    heat = heat.view(-1, *shape)
    positions, confidences = [], []
    for channel, peak in zip(heat, peaks):
        ranges = [_near(int(p), n) for p, n in zip(peak, shape)]
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


def _near(peak: int, size: int) -> range:
    return range(max(0, peak - NEAR_PEAK_VOXELS), min(size, peak + NEAR_PEAK_VOXELS + 1))


def _others(axis: int) -> Sequence[int]:
    return [other for other in range(3) if other != axis]
