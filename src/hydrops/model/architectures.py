"""The networks of MR by name, what each can tell, and what the paired one is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

import torch
from monai.networks.nets import DynUNet

from hydrops.errors import HydropsError
from hydrops.labels import LANDMARKS, ORGANS
from hydrops.model.geometry import CROP_SHAPE, CROP_SPACING_MM
from hydrops.model.inhearit import SLICE_ORGANS, Inhearit
from hydrops.model.network import DualHeadUNet, FoldedUNet, NetworkOptions

#: nnU-Net's limits (Isensee et al., Nat Methods 2021;18:203, Methods and supplementary note 2):
#: features of the first level and at most, and the size below which an axis is not pooled further.
FIRST_FEATURES, MOST_FEATURES, LEAST_SIZE = 32, 320, 4
#: An axis whose voxels are this many times the finest, or more, is not pooled or convolved along at
#: first.
ANISOTROPY = 2.0
#: Logit of a class that a network does not tell: its probability is zero.
NEVER = -30.0

Output = tuple[torch.Tensor, torch.Tensor | None]


class SliceUNet(torch.nn.Module):
    """2D U-Net on axial slices: the comparison of Yoo et al. 2024 that sees no third dimension.

    Input (batch, inputs, x, y, z), output logits (batch, labels, x, y, z) and None.
    """

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        self.trunk = FoldedUNet(2, options, options.inputs, options.labels)

    def forward(self, images: torch.Tensor) -> Output:
        slices = images.movedim(-1, 1)
        found: torch.Tensor = self.trunk(slices.flatten(0, 1))
        return found.unflatten(0, slices.shape[:2]).movedim(1, -1), None


class SingleUNets(torch.nn.Module):
    """A network for each image alone: MRC gives the organs, HYDROPS-Mi2 the endolymph.

    The single-task comparison of Yoo et al. 2024, where each network sees its own image. Here that
    of HYDROPS-Mi2 sees it as `hydrops.model.preprocess` brings it to a scale, with the MRC: no
    organ, and no voxel's fullness, but which voxels it is scaled by. Input and output as
    `SliceUNet`; the logits are logarithms of the product of both.
    """

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        if options.inputs < 2 or options.labels != 2 * len(ORGANS) + 1:
            raise HydropsError("single networks need two images and the compartments as classes")
        self.fluid = FoldedUNet(3, options, 1, len(ORGANS) + 1)
        self.endolymph = FoldedUNet(3, options, options.inputs - 1, 1)

    def forward(self, images: torch.Tensor) -> Output:
        organs = torch.log_softmax(self.fluid(images[:, :1]), dim=1)
        odds = self.endolymph(images[:, 1:])
        inside, outside = (torch.nn.functional.logsigmoid(sign * odds) for sign in (1.0, -1.0))
        parts = [organs[:, :1]]
        for organ in range(1, len(ORGANS) + 1):
            fluid = organs[:, organ : organ + 1]
            parts += [fluid + outside, fluid + inside]
        return torch.cat(parts, dim=1), None


class ApartUNet(torch.nn.Module):
    """A network for each head: what `DualHeadUNet` is without a trunk that both share.

    Input and output as those of `DualHeadUNet`. The ablation of Stebani et al. 2023.
    """

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        self.segmentation = FoldedUNet(3, options, options.inputs, options.labels)
        self.landmarks = FoldedUNet(3, options, options.inputs, len(LANDMARKS))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.segmentation(images), self.landmarks(images)


class MrcUNet(torch.nn.Module):
    """Both heads on MRC alone: organs and landmarks, as Stebani et al. 2023 found them on CT.

    Input and output as `SliceUNet`, with the heatmaps of the landmarks; it looks at the first
    channel only. Nothing sets endolymph apart there, so all fluid is perilymph.
    """

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        if options.labels != 2 * len(ORGANS) + 1:
            raise HydropsError("a network of organs needs the compartments as classes")
        self.heads = DualHeadUNet(replace(options, inputs=1, labels=len(ORGANS) + 1))

    def forward(self, images: torch.Tensor) -> Output:
        organs, heat = self.heads(images[:, :1])
        never = torch.full_like(organs[:, :1], NEVER)
        parts = [organs[:, :1]]
        for organ in range(1, len(ORGANS) + 1):
            parts += [organs[:, organ : organ + 1], never]
        return torch.cat(parts, dim=1), heat


@dataclass(frozen=True)
class Plan:
    """What nnU-Net makes of a data set's fingerprint: kernels and strides by level, features."""

    kernels: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    features: tuple[int, ...]


def plan_network(patch: Sequence[int], spacing_mm: Sequence[float]) -> Plan:
    """Topology of a U-Net from patch and voxel size (Isensee et al. 2021, Methods).

    As nnU-Net plans it: at each level the axes that are halved are those that are long enough and
    whose voxels are not much coarser than the finest of these. Kernels are one voxel wide along an
    axis until its voxels come near to the finest, and three from then on; at the bottom they are
    three along all.

    Raises
    ------
    HydropsError
        If the patch is too small to be pooled at all.
    """
    size, spacing = [int(n) for n in patch], [float(s) for s in spacing_mm]
    kernel = [1 for _ in size]
    kernels, strides = [], [tuple(kernel)]
    while any(n >= 2 * LEAST_SIZE for n in size):
        finest = min(s for n, s in zip(size, spacing) if n >= 2 * LEAST_SIZE)
        pooled = [n >= 2 * LEAST_SIZE and s < ANISOTROPY * finest for n, s in zip(size, spacing)]
        # A single axis is not worth a level of its own once it is short.
        if sum(pooled) == 1 and size[pooled.index(True)] < 3 * LEAST_SIZE:
            break
        near = [s < ANISOTROPY * min(spacing) for s in spacing]
        kernel = [3 if close else k for close, k in zip(near, kernel)]
        kernels.append(tuple(kernel))
        step = tuple(2 if p else 1 for p in pooled)
        strides.append(step)
        size = [ceil(n / k) for n, k in zip(size, step)]
        spacing = [s * k for s, k in zip(spacing, step)]
    if len(strides) < 2:
        raise HydropsError(f"a patch of {tuple(patch)} voxels is too small for a U-Net")
    kernels.append(tuple(3 for _ in size))
    features = tuple(min(FIRST_FEATURES * 2**k, MOST_FEATURES) for k in range(len(strides)))
    return Plan(tuple(kernels), tuple(strides), features)


class PlannedUNet(torch.nn.Module):
    """nnU-Net's network, planned from the crop that every model sees; MONAI's DynUNet.

    Input and output as `SliceUNet`; `channels` of the options caps the features of each level.
    """

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        plan = plan_network(CROP_SHAPE, CROP_SPACING_MM)
        levels = min(len(plan.strides), len(options.channels))
        self.trunk = DynUNet(
            spatial_dims=3,
            in_channels=options.inputs,
            out_channels=options.labels,
            kernel_size=plan.kernels[:levels],
            strides=plan.strides[:levels],
            upsample_kernel_size=plan.strides[1:levels],
            filters=[min(a, b) for a, b in zip(plan.features, options.channels)],
        )

    def forward(self, images: torch.Tensor) -> Output:
        found: torch.Tensor = self.trunk(images)
        return found, None


@dataclass(frozen=True)
class Architecture:
    """A kind of network, and what it can tell of an ear.

    Parameters
    ----------
    build
        Makes the untrained network.
    organs
        Those of `hydrops.labels.ORGANS` that it finds.
    endolymph
        Whether it tells endolymph from perilymph.
    landmarks
        Whether it finds `hydrops.labels.LANDMARKS`.
    sided
        Whether it has classes for either side, as `hydrops.model.inhearit.SLICE_CLASSES`; the
        others know right ears and are given left ones mirrored.
    """

    build: Callable[[NetworkOptions], torch.nn.Module]
    organs: tuple[str, ...] = ORGANS
    endolymph: bool = True
    landmarks: bool = False
    sided: bool = False


_slices = partial(Architecture, organs=SLICE_ORGANS, endolymph=False, sided=True)

ARCHITECTURES = {
    "dual": Architecture(DualHeadUNet, landmarks=True),
    "apart": Architecture(ApartUNet, landmarks=True),
    "joint": Architecture(MrcUNet, endolymph=False, landmarks=True),
    "slices": Architecture(SliceUNet),
    "single": Architecture(SingleUNets),
    "planned": Architecture(PlannedUNet),
    "3into3": _slices(partial(Inhearit, fusion="3into3")),
    "concat3into1": _slices(partial(Inhearit, fusion="concat3into1")),
}


def find_architecture(options: NetworkOptions) -> Architecture:
    """What the options name.

    Raises
    ------
    HydropsError
        If it is not one of `ARCHITECTURES`.
    """
    if options.architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise HydropsError(f"architecture {options.architecture} is none of: {known}")
    return ARCHITECTURES[options.architecture]


def build_network(options: NetworkOptions) -> torch.nn.Module:
    """The untrained network that the options describe.

    Raises
    ------
    HydropsError
        See `find_architecture`.
    """
    return find_architecture(options).build(options)


def segmentation_network(options: NetworkOptions) -> torch.nn.Module:
    """The network of `build_network` as MONAI's tools expect one: its logits alone come out.

    Its weights have the same names.

    Raises
    ------
    HydropsError
        See `find_architecture`.
    """
    network = build_network(options)
    network.register_forward_hook(
        lambda _module, _given, found: found[0] if isinstance(found, tuple) else found
    )
    return network


def fast_layout(network: torch.nn.Module) -> torch.nn.Module:
    """Bring a network to channels last, which is convolved faster."""
    flat = any(parameter.ndim == 4 for parameter in network.parameters())
    layout = torch.channels_last if flat else torch.channels_last_3d
    network.to(memory_format=layout)  # type: ignore[call-overload]
    return network
