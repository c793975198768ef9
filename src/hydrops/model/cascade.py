"""AutoCasNet: 2D U-Nets over three planes in cascade (Hussain et al. 2021).

Its micro-CTs all lay alike. Here they lie any way, and a slice alone does not tell a semicircular
canal from an air cell; so a small 3D network finds first how the ear lies, and the planes are those
of the ear's own axes, see `hydrops.model.pose`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hydrops.model.augment import Prepared
from hydrops.model.course import Phase
from hydrops.model.ct_task import PATCHES_WATCHED, WATCHING, CtOptions, Patches, dice_in
from hydrops.model.losses import soft_dice_loss
from hydrops.model.network import DualHeadUNet, NetworkOptions, unet
from hydrops.model.precision import mixed_precision
from hydrops.model.whole import largest_component

#: Planes of the cascade in their order (Hussain et al. 2021, section 2.3), and the axis of the ear
#: across which each is cut.
PLANES = {"coronal": 1, "sagittal": 0, "axial": 2}
#: Over all slices of a volume, in training and after it: what one plane tells the next then does
#: not depend on which of both it is.
OVER_VOLUME = ("batch", {"track_running_stats": False})
#: How sure a plane takes what was found so far to be, at most: it may still mend it.
LEAST_DOUBT = 1e-4


class PlaneUNet(torch.nn.Module):
    """2D U-Net on the slices of one plane: image and the labyrinth found so far, logit out.

    Input (slices, 1 or 2, y, z), output (slices, 1, y, z). Given what was found so far, it mends
    that, and before it has learned anything leaves it as it is (ReZero, Bachlechner et al., UAI
    2021).
    """

    def __init__(self, inputs: int, options: NetworkOptions) -> None:
        super().__init__()
        self.trunk = unet(2, options, inputs, 1, OVER_VOLUME)
        self.weight = torch.nn.Parameter(torch.zeros(())) if inputs > 1 else None

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.trunk(slices)
        if self.weight is None:
            return found
        return torch.logit(slices[:, 1:], LEAST_DOUBT) + self.weight * found


class Cascade(torch.nn.Module):
    """The networks of all planes, in their order, and the one that finds how the ear lies."""

    def __init__(self, options: NetworkOptions, pose: NetworkOptions) -> None:
        super().__init__()
        self.pose = DualHeadUNet(pose)
        self.planes = torch.nn.ModuleDict(
            {name: PlaneUNet(1 + (place > 0), options) for place, name in enumerate(PLANES)}
        )

    def forward(self, volume: torch.Tensor) -> dict[str, torch.Tensor]:
        """Probability (x, y, z) by each plane in turn of a volume (1, x, y, z) on an ear's axes."""
        found: dict[str, torch.Tensor] = {}
        context = None
        for name, network in self.planes.items():
            found[name] = torch.sigmoid(_by_plane(network, volume, context, name))
            context = handed_on(found[name])
        return found


def segmentation_cascade(options: NetworkOptions, pose: NetworkOptions) -> torch.nn.Module:
    """The cascade as MONAI's tools expect a network: (1, 1, x, y, z) in, both classes out.

    Its weights have the same names.
    """
    cascade = Cascade(options, pose)
    cascade.register_forward_pre_hook(lambda _module, given: (given[0][0],))
    cascade.register_forward_hook(lambda _module, _given, found: _both_classes(found))
    return cascade


def _both_classes(found: dict[str, torch.Tensor]) -> torch.Tensor:
    last = list(found.values())[-1]
    return torch.stack([1.0 - last, last])[None]


def handed_on(probability: torch.Tensor) -> torch.Tensor:
    """The largest piece (1, x, y, z) of a probability (x, y, z), and its partial volume around."""
    piece = (largest_component(probability) > 0).float()[None]
    return probability * torch.nn.functional.max_pool3d(piece, 3, 1, 1)


def _by_plane(
    network: torch.nn.Module, volume: torch.Tensor, context: torch.Tensor | None, plane: str
) -> torch.Tensor:
    """Logits (x, y, z) of a volume (1, x, y, z), slice by slice."""
    axis = PLANES[plane] + 1
    stacked = volume if context is None else torch.cat([volume, context])
    slices = stacked.movedim(axis, 0)
    logits: torch.Tensor = network(slices)[:, 0].float()
    return logits.movedim(0, axis - 1)


class PlaneTask:
    """Train the network of one plane, those before it fixed; a `hydrops.model.course.Task`.

    Parameters
    ----------
    watching
        Cases that are not learned from.
    """

    def __init__(
        self,
        options: CtOptions,
        cases: Sequence[Prepared],
        cascade: Cascade,
        plane: str,
        watching: Sequence[Prepared] = (),
    ) -> None:
        self.options, self.cases, self.plane = options, cases, plane
        self.watching = watching
        self.before = list(PLANES)[: list(PLANES).index(plane)]
        self.cascade = cascade
        self.network: torch.nn.Module = cascade.planes[plane]

    @property
    def stage(self) -> int:
        """Its number in a training: the pose's is 0."""
        return 1 + len(self.before)

    def samples(self, phase: Phase, first: int, last: int) -> Patches:
        """Patches `first` to `last` of the training."""
        return Patches(self.cases, self.options, (first, last), phase.spread, self.stage)

    def loss(
        self, network: torch.nn.Module, batch: Sequence[torch.Tensor], phase: Phase
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Binary cross entropy over all slices of the patches, and Dice."""
        images, labels, _ = batch
        with mixed_precision(images.device):
            logits = torch.stack(
                [_by_plane(network, image, self._context(image), self.plane) for image in images]
            )
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels[:, 0])
        found = torch.sigmoid(logits)[:, None]
        dice = soft_dice_loss(
            torch.cat([1.0 - found, found], 1), torch.cat([1 - labels, labels], 1)
        )
        parts = {"entropy": float(entropy.detach()), "dice": float(dice.detach())}
        return phase.overlap(entropy, dice), parts

    def validate(self, network: torch.nn.Module, phase: Phase) -> dict[str, float]:
        """Dice on patches of cases that watch; a fold's test specimens are never among them."""

        def found(image: torch.Tensor) -> torch.Tensor:
            return _by_plane(network, image[0], self._context(image[0]), self.plane) > 0.0

        part = (0, PATCHES_WATCHED * len(self.watching))
        stage = WATCHING + self.stage
        patches = Patches(self.watching, self.options, part, phase.spread, stage)
        return dice_in(patches, network, found)

    @torch.no_grad()
    def _context(self, image: torch.Tensor) -> torch.Tensor | None:
        context = None
        for name in self.before:
            network = self.cascade.planes[name].eval()
            context = handed_on(torch.sigmoid(_by_plane(network, image, context, name)))
        return context
