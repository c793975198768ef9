"""The CT tasks: one labelled image in, labyrinth (and landmarks) out.

`joint`: the dual-headed 3D U-Net of Stebani et al. 2023 (segmentation and Gaussian heatmaps of the
landmarks on one trunk). `cascade`: AutoCasNet of Hussain et al. 2021 (2D U-Nets over coronal,
sagittal and axial slices, each given the largest component that the one before it found).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from nibabel.affines import apply_affine
from scipy import ndimage

from hydrops.errors import ExcludedError, HydropsError
from hydrops.images import resample
from hydrops.labels import LANDMARKS
from hydrops.model.architectures import build_network, fast_layout
from hydrops.model.augment import Augmentation, Prepared, draw_patch, prepare_cases
from hydrops.model.cases import Case
from hydrops.model.course import Phase, run_course, save_state
from hydrops.model.losses import (
    LANDMARK_WEIGHT,
    landmark_loss,
    soft_cross_entropy,
    soft_dice_loss,
)
from hydrops.model.network import NetworkOptions, landmark_positions, unet
from hydrops.model.options import read_options
from hydrops.model.surface import surface_by_signal
from hydrops.model.tasks import CT_KINDS
from hydrops.model.whole import mirror_mean, to_network

LOG = logging.getLogger(__name__)
Affine = npt.NDArray[np.float64]
FloatGrid = npt.NDArray[np.float32]

Kind = Literal["joint", "cascade"]
#: Planes of the cascade in their order (Hussain et al. 2021, section 2.3), and the axis across
#: which each is cut.
PLANES = {"coronal": 1, "sagittal": 0, "axial": 2}
#: The head of a specimen may lie any way, so no axis is left to right and all are mirrored.
EVERY_AXIS = (0, 1, 2)
#: Farthest that a landmark lies from the labyrinth, mm: twice what is seen in the specimens.
LANDMARK_REACH_MM = 1.5


@dataclass(frozen=True)
class CtOptions:
    """One training on labelled CT, as its configuration file gives it.

    `averaged` is whether the weights are a mean of the last steps, see
    `hydrops.model.course.run_course`.
    """

    kind: Kind
    name: str
    version: str
    description: str
    seed: int
    folds: int
    spacing_mm: float
    phases: tuple[Phase, ...]
    batch: int
    patch: int
    weight_decay: float
    validate_every: int
    augmentation: Augmentation
    network: NetworkOptions
    averaged: bool = True

    @staticmethod
    def load(path: Path) -> CtOptions:
        """Read a configuration.

        Raises
        ------
        HydropsError
            If a key is missing or unknown, or the kind is.
        """
        options = read_options(path, CtOptions)
        if options.kind not in CT_KINDS:
            raise HydropsError(f"{path}: kind {options.kind} is neither joint nor cascade")
        return options


class _Patches(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
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
    """Segment and find landmarks; a `hydrops.model.course.Task`."""

    def __init__(self, options: CtOptions, cases: Sequence[Prepared]) -> None:
        self.options, self.cases = options, cases
        torch.manual_seed(options.seed)
        self.network = fast_layout(build_network(options.network))

    def samples(self, phase: Phase, first: int, last: int) -> _Patches:
        """Patches `first` to `last` of the training."""
        return _Patches(self.cases, self.options, (first, last), phase.spread)

    def loss(
        self, network: torch.nn.Module, batch: Sequence[torch.Tensor], phase: Phase
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Cross entropy, Dice and error of the landmarks."""
        image, label, points = batch
        image = image.to(memory_format=torch.channels_last_3d)
        with torch.autocast(image.device.type, torch.bfloat16):
            logits, heat = network(image)
        logits = logits.float()
        target = torch.cat([1.0 - label, label], dim=1)
        parts = {
            "entropy": soft_cross_entropy(logits, target),
            "dice": soft_dice_loss(torch.softmax(logits, dim=1), target),
            "landmarks": landmark_loss(heat.float(), points),
        }
        loss = parts["entropy"] + phase.dice * parts["dice"] + LANDMARK_WEIGHT * parts["landmarks"]
        return loss, {name: float(part.detach()) for name, part in parts.items()}

    def validate(self, _network: torch.nn.Module, _phase: Phase) -> dict[str, float]:
        """Nothing: a fold's test specimens are looked at once, when its training is over."""
        return {}


class PlaneUNet(torch.nn.Module):
    """2D U-Net on the slices of one plane: image and the labyrinth found so far, logit out.

    Input (slices, 1 or 2, y, z), output (slices, 1, y, z).
    """

    def __init__(self, inputs: int, options: NetworkOptions) -> None:
        super().__init__()
        self.trunk = unet(2, options, inputs, 1, norm="batch")

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.trunk(slices)
        return found


class Cascade(torch.nn.Module):
    """The networks of all planes, in their order."""

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        self.planes = torch.nn.ModuleDict(
            {name: PlaneUNet(1 + (place > 0), options) for place, name in enumerate(PLANES)}
        )

    def forward(self, volume: torch.Tensor) -> dict[str, torch.Tensor]:
        """Probability (x, y, z) that each plane in turn gives a volume (1, x, y, z)."""
        found: dict[str, torch.Tensor] = {}
        context = None
        for name, network in self.planes.items():
            found[name] = torch.sigmoid(_by_plane(network, volume, context, name))
            context = largest_component(found[name])[None]
        return found


def _by_plane(
    network: torch.nn.Module, volume: torch.Tensor, context: torch.Tensor | None, plane: str
) -> torch.Tensor:
    """Logits (x, y, z) of a volume (1, x, y, z), slice by slice."""
    axis = PLANES[plane] + 1
    stacked = volume if context is None else torch.cat([volume, context])
    slices = stacked.movedim(axis, 0)
    logits: torch.Tensor = network(slices)[:, 0].float()
    return logits.movedim(0, axis - 1)


def largest_component(probability: torch.Tensor) -> torch.Tensor:
    """The probability (x, y, z) within the largest piece where it is over a half; else zero."""
    pieces, count = ndimage.label((probability > 0.5).cpu().numpy())
    if not count:
        return torch.zeros_like(probability)
    largest = int(np.bincount(pieces.ravel())[1:].argmax()) + 1
    return probability * torch.from_numpy(pieces == largest).to(probability.device)


class PlaneTask:
    """Train the network of one plane, those before it fixed; a `hydrops.model.course.Task`."""

    def __init__(
        self, options: CtOptions, cases: Sequence[Prepared], cascade: Cascade, plane: str
    ) -> None:
        self.options, self.cases, self.plane = options, cases, plane
        self.before = list(PLANES)[: list(PLANES).index(plane)]
        self.cascade = cascade
        self.network: torch.nn.Module = cascade.planes[plane]

    def samples(self, phase: Phase, first: int, last: int) -> _Patches:
        """Patches `first` to `last` of the training."""
        stage = 1 + len(self.before)
        return _Patches(self.cases, self.options, (first, last), phase.spread, stage)

    def loss(
        self, network: torch.nn.Module, batch: Sequence[torch.Tensor], phase: Phase
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Binary cross entropy over all slices of the patches, and Dice."""
        images, labels, _ = batch
        with torch.autocast(images.device.type, torch.bfloat16):
            logits = torch.stack(
                [_by_plane(network, image, self._context(image), self.plane) for image in images]
            )
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels[:, 0])
        found = torch.sigmoid(logits)[:, None]
        dice = soft_dice_loss(
            torch.cat([1.0 - found, found], 1), torch.cat([1 - labels, labels], 1)
        )
        parts = {"entropy": float(entropy.detach()), "dice": float(dice.detach())}
        return entropy + phase.dice * dice, parts

    def validate(self, _network: torch.nn.Module, _phase: Phase) -> dict[str, float]:
        """Nothing: a fold's test specimens are looked at once, when its training is over."""
        return {}

    @torch.no_grad()
    def _context(self, image: torch.Tensor) -> torch.Tensor | None:
        context = None
        for name in self.before:
            network = self.cascade.planes[name].eval()
            context = largest_component(torch.sigmoid(_by_plane(network, image, context, name)))[
                None
            ]
        return context


def train_ct(
    options: CtOptions,
    cases: Sequence[Case],
    folder: Path,
    device: str = "cpu",
    threads: int = 2,
) -> Path:
    """Train on cases, or go on from the last checkpoint in `folder`, and leave `weights.pt`.

    Raises
    ------
    HydropsError
        If there are fewer than two cases: one says nothing about another.
    """
    prepared = prepare_cases(cases, options.spacing_mm)
    if options.kind == "joint":
        return run_course(JointTask(options, prepared), folder, device, threads, options.averaged)
    torch.manual_seed(options.seed)
    cascade = Cascade(options.network)
    for plane in PLANES:
        LOG.info("%s plane", plane)
        task = PlaneTask(options, prepared, cascade, plane)
        weights = run_course(task, folder / plane, device, threads, options.averaged)
        cascade.planes[plane].load_state_dict(torch.load(weights, weights_only=True))
    path = folder / "weights.pt"
    save_state(cascade.state_dict(), path)
    return path


@dataclass(frozen=True)
class CtModel:
    """A trained network, and what it needs to know of an image."""

    network: torch.nn.Module
    kind: Kind
    spacing_mm: float
    patch: int

    def find(self, image: FloatGrid, affine: Affine) -> CtFinding:
        """See `find_labyrinth`."""
        return find_labyrinth(self, image, affine)


def load_ct_model(
    kind: Kind,
    options: NetworkOptions,
    spacing_mm: float,
    patch: int,
    weights: Path,
    device: torch.device,
) -> CtModel:
    """Load weights, and nothing else, from a file.

    Raises
    ------
    HydropsError
        If the weights are not those of such a network.
    """
    network = build_network(options) if kind == "joint" else Cascade(options)
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except RuntimeError as error:
        raise HydropsError(f"{weights}: does not fit the network of its metadata") from error
    return CtModel(network.eval().to(device), kind, spacing_mm, patch)


@dataclass(frozen=True)
class CtFinding:
    """What a model found in one image.

    Parameters
    ----------
    probability
        (x, y, z) of the labyrinth, on the image's own grid; by stage, the last is the result.
    landmarks
        RAS mm by name; empty where the model has none.
    confidences
        Share of each heatmap at its peak, 0 to 1, by name.
    """

    probability: dict[str, FloatGrid]
    landmarks: dict[str, list[float]]
    confidences: dict[str, float]

    def mask(self, stage: str) -> npt.NDArray[np.bool_]:
        """(x, y, z) the largest piece that is labyrinth to a stage."""
        return np.asarray(
            (largest_component(torch.from_numpy(self.probability[stage])) > 0.5).numpy()
        )

    @cached_property
    def label(self) -> npt.NDArray[np.bool_]:
        """(x, y, z) the largest piece that is labyrinth to the last stage."""
        return self.mask(list(self.probability)[-1])


@torch.inference_mode()
def find_labyrinth(model: CtModel, image: FloatGrid, affine: Affine) -> CtFinding:
    """Segment one image of any orientation and voxel size.

    The image is brought to RAS axes and the network's voxels, once, and the result back; its
    surface is drawn on the image's own voxels, see `hydrops.model.surface`.

    Raises
    ------
    ExcludedError
        If nothing in the image is taken for a labyrinth.
    """
    volume, grid = to_network(image, affine, model.spacing_mm)
    where = next(model.network.parameters()).device
    volume = volume.to(where)
    found: dict[str, torch.Tensor] = {}
    landmarks: dict[str, list[float]] = {}
    confidences: dict[str, float] = {}
    if model.kind == "joint":
        run = partial(_both_heads, model.network)
        both = mirror_mean(run, volume, model.patch, EVERY_AXIS)
        logits, heat = both[: -len(LANDMARKS)], both[-len(LANDMARKS) :]
        found["joint"] = torch.softmax(logits, dim=0)[1]
        positions, shares = landmark_positions(_near(found["joint"], heat, model.spacing_mm))
        points = apply_affine(grid, positions.cpu().numpy())
        landmarks = {n: [round(float(v), 3) for v in p] for n, p in zip(LANDMARKS, points)}
        confidences = {n: round(float(c), 3) for n, c in zip(LANDMARKS, shares)}
    else:
        run = partial(_every_plane, model.network)
        found = dict(zip(PLANES, mirror_mean(run, volume, model.patch, EVERY_AXIS)))
    probability = {}
    for name, part in found.items():
        rough = resample(part.float().cpu().numpy(), grid, image.shape, affine, order=1)
        inside = (largest_component(torch.from_numpy(rough)) > 0.5).numpy()
        probability[name] = surface_by_signal(rough, inside, image, affine)
    finding = CtFinding(probability, landmarks, confidences)
    if not finding.label.any():
        raise ExcludedError("the model finds no inner ear in the image")
    return finding


def _near(probability: torch.Tensor, heat: torch.Tensor, spacing_mm: float) -> torch.Tensor:
    """Heatmaps (landmarks, x, y, z) without what lies far from the labyrinth that was found."""
    label = (largest_component(probability) > 0.5).cpu().numpy()
    if not label.any():
        return heat
    distance = ndimage.distance_transform_edt(~label, sampling=spacing_mm)
    far = torch.from_numpy(distance > LANDMARK_REACH_MM).to(heat.device)
    return heat.masked_fill(far, float("-inf"))


def _every_plane(cascade: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Probability (1, planes, x, y, z) that each plane of a cascade gives a volume."""
    return torch.stack(list(cascade(batch[0]).values()))[None]


def _both_heads(network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return torch.cat([part.float() for part in network(batch)], dim=1)
