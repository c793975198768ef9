"""Training on labelled CT: what a configuration says, patches, and the dual-headed network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from hydrops.errors import HydropsError
from hydrops.model.architectures import build_network, fast_layout
from hydrops.model.augment import Augmentation, Prepared, draw_patch
from hydrops.model.course import Phase
from hydrops.model.losses import (
    LANDMARK_WEIGHT,
    landmark_loss,
    soft_cross_entropy,
    soft_dice_loss,
)
from hydrops.model.metrics import overlap_metrics
from hydrops.model.network import NetworkOptions
from hydrops.model.options import make_options
from hydrops.model.precision import mixed_precision
from hydrops.model.tasks import CT_KINDS
from hydrops.validate import read_yaml

Kind = Literal["joint", "cascade"]
#: Patches that a validation sees of each case, always the same.
PATCHES_WATCHED = 8
#: What stages of a training's patches are numbered by, added for those of a validation.
WATCHING = 10


@dataclass(frozen=True)
class CtOptions:
    """One training on labelled CT, as its configuration file gives it.

    Parameters
    ----------
    validation
        Persons of each training, by lot, whose cases are not learned from but watch it, so that a
        phase may end early and leaves its best weights (`hydrops.model.course.run_course`).
    averaged
        Whether the weights are a mean of the last steps, see `hydrops.model.course.run_course`.
    pose
        Of a cascade: the joint network that tells how the ear lies.
    """

    kind: Kind
    name: str
    version: str
    description: str
    changes: str
    seed: int
    folds: int
    spacing_mm: float
    phases: tuple[Phase, ...]
    batch: int
    patch: int
    weight_decay: float
    validation: int
    validate_every: int
    augmentation: Augmentation
    network: NetworkOptions
    averaged: bool = True
    pose: CtOptions | None = None

    @staticmethod
    def load(path: Path) -> CtOptions:
        """Read a configuration.

        Raises
        ------
        HydropsError
            See `make`.
        """
        return CtOptions.make(read_yaml(path), path)

    @staticmethod
    def make(values: Mapping[str, Any], path: Path) -> CtOptions:
        """From a configuration's keys; those under `pose` stand for it where they differ.

        Raises
        ------
        HydropsError
            If a key is missing or unknown, the kind is, or a cascade has no pose or another has.
        """
        around = {key: value for key, value in values.items() if key != "pose"}
        options = make_options(around, path, CtOptions)
        if options.kind not in CT_KINDS:
            raise HydropsError(f"{path}: kind {options.kind} is neither joint nor cascade")
        if (options.kind == "cascade") != ("pose" in values):
            raise HydropsError(f"{path}: a cascade has a pose, and nothing else has")
        if options.kind != "cascade":
            return options
        pose = make_options({**around, "kind": "joint", **values["pose"]}, path, CtOptions)
        return replace(options, pose=pose)

    @property
    def design(self) -> Design:
        """What must be known of the network once it is trained."""
        pose = self.pose.design if self.pose else None
        return Design(self.kind, self.network, self.spacing_mm, self.patch, pose)


@dataclass(frozen=True)
class Design:
    """A trained network's kind and size, its voxel in mm, and the edge of its cube in voxels."""

    kind: Kind
    network: NetworkOptions
    spacing_mm: float
    patch: int
    pose: Design | None

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Design:
        """From the numbers of a bundle's metadata."""
        pose = values.get("pose")
        return Design(
            values["kind"],
            NetworkOptions.from_dict(values["network"]),
            float(np.atleast_1d(values["spacing_mm"])[0]),
            int(values["patch"]),
            Design.from_dict(pose) if pose else None,
        )


class Patches(Dataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """Patches `first` to `last` of a training, the same whenever and wherever they are drawn.

    The spread of a phase scales how far the levels of the labyrinth and around it are changed.
    """

    def __init__(
        self,
        cases: Sequence[Prepared],
        options: CtOptions,
        part: tuple[int, int],
        spread: float,
        stage: int = 0,
    ) -> None:
        self.cases, self.options, self.stage = cases, options, stage
        self.first, self.last = part
        made = options.augmentation
        self.augmentation = replace(made, fill=made.fill * spread, surround=made.surround * spread)

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        options = self.options
        rng = np.random.default_rng([options.seed, 13, self.stage, self.first + index])
        case = self.cases[int(rng.integers(len(self.cases)))]
        return draw_patch(case, rng, options.patch, options.spacing_mm, self.augmentation)


class JointTask:
    """Segment and find landmarks; a `hydrops.model.course.Task`.

    Parameters
    ----------
    watching
        Cases that are not learned from.
    """

    def __init__(
        self, options: CtOptions, cases: Sequence[Prepared], watching: Sequence[Prepared] = ()
    ) -> None:
        self.options, self.cases, self.watching = options, cases, watching
        torch.manual_seed(options.seed)
        self.network = fast_layout(build_network(options.network))

    def samples(self, phase: Phase, first: int, last: int) -> Patches:
        """Patches `first` to `last` of the training."""
        return Patches(self.cases, self.options, (first, last), phase.spread)

    def loss(
        self, network: torch.nn.Module, batch: Sequence[torch.Tensor], phase: Phase
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Cross entropy, Dice and error of the landmarks."""
        image, label, points = batch
        image = image.to(memory_format=torch.channels_last_3d)
        with mixed_precision(image.device):
            logits, heat = network(image)
        parts = overlap_losses(logits, label)
        parts["landmarks"] = landmark_loss(heat.float(), points)
        overlap = phase.overlap(parts["entropy"], parts["dice"])
        loss = overlap + LANDMARK_WEIGHT * parts["landmarks"]
        return loss, {name: float(part.detach()) for name, part in parts.items()}

    def validate(self, network: torch.nn.Module, phase: Phase) -> dict[str, float]:
        """Dice on patches of cases that watch; a fold's test specimens are never among them."""
        part = (0, PATCHES_WATCHED * len(self.watching))
        patches = Patches(self.watching, self.options, part, phase.spread, WATCHING)
        return dice_in(patches, network, lambda image: more_than_background(network(image)[0]))


def overlap_losses(logits: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
    """Cross entropy and Dice loss.

    Parameters
    ----------
    logits
        Of background and what is sought, (batch, 2, x, y, z).
    label
        Share of each voxel that is sought, (batch, 1, x, y, z).
    """
    logits, target = logits.float(), torch.cat([1.0 - label, label], dim=1)
    return {
        "entropy": soft_cross_entropy(logits, target),
        "dice": soft_dice_loss(torch.softmax(logits, dim=1), target),
    }


def more_than_background(logits: torch.Tensor) -> torch.Tensor:
    """Mask (x, y, z) of logits (1, 2, x, y, z) of background and what is sought."""
    return torch.gt(logits[0, 1], logits[0, 0])


def dice_in(
    patches: Dataset[Any], network: torch.nn.Module, found: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, float]:
    """Dice of what a network finds in patches, over all of them; nothing where there are none.

    Parameters
    ----------
    patches
        Each an image and a label (1, x, y, z), and what else there is.
    found
        Mask (x, y, z) that the network gives for an image (1, 1, x, y, z).
    """
    where = next(network.parameters()).device
    drawn = [patches[index] for index in range(len(patches))]  # type: ignore[arg-type]
    if not drawn:
        return {}
    with mixed_precision(where):
        masks = [found(image[None].to(where)).cpu().numpy() for image, *_ in drawn]
    truth = [label[0].numpy() > 0.5 for _, label, *_ in drawn]
    return {"dice": round(overlap_metrics(np.stack(masks), np.stack(truth))["dice"], 4)}
