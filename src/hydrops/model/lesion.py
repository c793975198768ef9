"""A 3D U-Net for a lesion of any shape on one image (Ryu et al. 2022).

The general task: one image, one label, any orientation and spacing. The paper measured a Dice of
0.9975 on what it had trained on and of 0.6062 on the rest, so both are measured here always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hydrops.arrays import Affine, FloatGrid
from hydrops.images import resample
from hydrops.model.architectures import fast_layout
from hydrops.model.augment import (
    Augmentation,
    Prepared,
    draw_patch,
    prepare_parts,
)
from hydrops.model.cases import Case, load_pairs, set_aside
from hydrops.model.course import Phase, run_course
from hydrops.model.ct_task import (
    PATCHES_WATCHED,
    WATCHING,
    dice_in,
    more_than_background,
    overlap_losses,
)
from hydrops.model.lesions import draw_cases
from hydrops.model.network import NetworkOptions, load_weights, unet
from hydrops.model.options import read_options
from hydrops.model.precision import mixed_precision
from hydrops.model.whole import mirror_mean, to_network

#: Share of patches around a voxel of the lesion; the others lie anywhere in the image.
ON_LESION = 0.7
#: Name of the one stage of what is found.
STAGE = "unet3d"


@dataclass(frozen=True)
class LesionOptions:
    """One training on labelled images, as its configuration file gives it.

    `data` is a folder as `hydrops.model.cases.load_pairs` reads it; without one, `simulated` cases
    are drawn by `hydrops.model.lesions`. `role` says what the image is. `validation` is how many
    persons of each training, by lot, have cases that are not learned from but watch it.
    """

    kind: str
    name: str
    version: str
    description: str
    changes: str
    role: str
    data: str | None
    simulated: int
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

    @staticmethod
    def load(path: Path) -> LesionOptions:
        """Read a configuration.

        Raises
        ------
        HydropsError
            If a key is missing or unknown.
        """
        return read_options(path, LesionOptions)

    def cases(self) -> list[Case]:
        """All cases, read and checked, or simulated.

        Raises
        ------
        HydropsError
            See `hydrops.model.cases.load_pairs`.
        """
        if self.data is None:
            return draw_cases(self.simulated, self.seed)
        return load_pairs(Path(self.data))


class _Patches(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Patches `first` to `last` of a training, the same whenever and wherever they are drawn."""

    def __init__(
        self,
        cases: Sequence[Prepared],
        options: LesionOptions,
        part: tuple[int, int],
        stage: int = 0,
    ) -> None:
        self.cases, self.options, self.stage = cases, options, stage
        self.first, self.last = part

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        options = self.options
        rng = np.random.default_rng([options.seed, 19, self.stage, self.first + index])
        case = self.cases[int(rng.integers(len(self.cases)))]
        around = replace(case, middle=draw_middle(case.case, rng))
        patch = draw_patch(around, rng, options.patch, options.spacing_mm, options.augmentation)
        return patch[0], patch[1]


def draw_middle(case: Case, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Where a patch lies, RAS mm: at a voxel of the lesion, or (see `ON_LESION`) anywhere."""
    voxel = rng.uniform(0, np.array(case.label.shape) - 1.0)
    if rng.random() < ON_LESION:
        inside = np.flatnonzero(case.label)
        chosen = inside[int(rng.integers(len(inside)))]
        voxel = np.array(np.unravel_index(chosen, case.label.shape), dtype=float)
    return np.asarray(case.affine[:3, :3] @ voxel + case.affine[:3, 3])


class LesionTask:
    """Segment a lesion; a `hydrops.model.course.Task`.

    Parameters
    ----------
    watching
        Cases that are not learned from.
    """

    def __init__(
        self, options: LesionOptions, cases: Sequence[Prepared], watching: Sequence[Prepared] = ()
    ) -> None:
        self.options, self.cases, self.watching = options, cases, watching
        torch.manual_seed(options.seed)
        self.network = fast_layout(lesion_network(options.network))

    def samples(self, _phase: Phase, first: int, last: int) -> _Patches:
        """Patches `first` to `last` of the training."""
        return _Patches(self.cases, self.options, (first, last))

    def loss(
        self, network: torch.nn.Module, batch: Sequence[torch.Tensor], phase: Phase
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Cross entropy and Dice."""
        image, label = batch
        image = image.to(memory_format=torch.channels_last_3d)
        with mixed_precision(image.device):
            logits = network(image)
        parts = overlap_losses(logits, label)
        loss = phase.overlap(parts["entropy"], parts["dice"])
        return loss, {name: float(part.detach()) for name, part in parts.items()}

    def validate(self, network: torch.nn.Module, _phase: Phase) -> dict[str, float]:
        """Dice on patches of cases that watch; a fold's test cases are never among them."""
        part = (0, PATCHES_WATCHED * len(self.watching))
        patches = _Patches(self.watching, self.options, part, WATCHING)
        return dice_in(patches, network, lambda image: more_than_background(network(image)))


def lesion_network(options: NetworkOptions) -> torch.nn.Module:
    """The untrained U-Net: image (batch, 1, x, y, z) in, logits of background and lesion out."""
    return unet(3, options, options.inputs, options.labels)


def train_lesion(
    options: LesionOptions,
    cases: Sequence[Case],
    folder: Path,
    device: str = "cpu",
    threads: int = 2,
) -> Path:
    """Train on cases, or go on from the last checkpoint in `folder`, and leave `weights.pt`.

    Raises
    ------
    HydropsError
        If there are fewer than two cases to learn from: one says nothing about another.
    """
    learned, watching = set_aside(cases, options.validation, options.seed)
    task = LesionTask(options, *prepare_parts(learned, watching, options.spacing_mm))
    return run_course(task, folder, {c.name: c.digest for c in cases}, device, threads)


@dataclass(frozen=True)
class LesionFinding:
    """What a model found in one image: probability (x, y, z) of its one stage, on its own grid."""

    probability: dict[str, FloatGrid]
    landmarks: dict[str, list[float]] = field(default_factory=dict)

    def mask(self, stage: str) -> npt.NDArray[np.bool_]:
        """(x, y, z) what is lesion; it may be in pieces."""
        return np.asarray(self.probability[stage] > 0.5)

    @property
    def label(self) -> npt.NDArray[np.bool_]:
        """(x, y, z) what is lesion."""
        return self.mask(STAGE)


@dataclass(frozen=True)
class LesionModel:
    """A trained network, and what it needs to know of an image."""

    network: torch.nn.Module
    spacing_mm: float
    patch: int

    @staticmethod
    def load(
        options: NetworkOptions, spacing_mm: float, patch: int, weights: Path, device: torch.device
    ) -> LesionModel:
        """Load weights, and nothing else, from a file.

        Raises
        ------
        HydropsError
            If the weights are not those of such a network.
        """
        network = load_weights(lesion_network(options), weights)
        return LesionModel(network.to(device), spacing_mm, patch)

    @torch.inference_mode()
    def find(self, image: FloatGrid, affine: Affine) -> LesionFinding:
        """Segment one image of any orientation and voxel size; there may be no lesion in it."""
        volume, grid = to_network(image, affine, self.spacing_mm)
        where = next(self.network.parameters()).device
        run = partial(_logits, self.network)
        logits = mirror_mean(run, volume.to(where), self.patch)
        found = torch.softmax(logits, dim=0)[1].cpu().numpy()
        return LesionFinding({STAGE: resample(found, grid, image.shape, affine, order=1)})


def _logits(network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = network(batch)
    return found.float()
