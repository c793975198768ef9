"""The CT models: one image in, labyrinth (and landmarks) out.

`joint`: the dual-headed 3D U-Net of Stebani et al. 2023 (segmentation and Gaussian heatmaps of the
landmarks on one trunk). `cascade`: AutoCasNet of Hussain et al. 2021 (2D U-Nets over coronal,
sagittal and axial slices, each given the largest component that the one before it found).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hydrops.arrays import Affine, FloatGrid
from hydrops.errors import ExcludedError
from hydrops.images import grid_around, part_under, resample
from hydrops.labels import LANDMARKS
from hydrops.model.architectures import build_network
from hydrops.model.augment import Prepared, in_ear_frame, prepare_parts
from hydrops.model.cascade import PLANES, Cascade, PlaneTask
from hydrops.model.cases import Case, set_aside
from hydrops.model.course import run_course, save_state
from hydrops.model.ct_ears import close_field, ear_fields, likeness
from hydrops.model.ct_look import NO_EAR, Look, look_at
from hydrops.model.ct_task import CtOptions, Design, JointTask
from hydrops.model.field import Field
from hydrops.model.network import load_weights
from hydrops.model.pose import EarFrame, ear_frame
from hydrops.model.surface import surface_by_signal
from hydrops.model.taught import write_taught
from hydrops.model.whole import largest_component, onto_grid

LOG = logging.getLogger(__name__)

#: The head of a specimen may lie any way, so no axis is left to right and all are mirrored.
EVERY_AXIS = (0, 1, 2)
#: Least likeness of an ear. In development those of the specimens reached 123 and more, 47 where
#: they had been interpolated twice to 0.5 mm; images without an ear reached up to 41.
LEAST_LIKENESS = 25.0
#: Least likeness of a second ear as a share of the first's: both are of one head and one scan. In
#: development 0.97 and more; what was most like one in other textures reached up to 0.42.
LEAST_OF_FIRST = 0.6
#: Likeness below which an ear is looked at once more, from closer up: less than that of any
#: specimen as it is. In their images with a few millimetres of noisy air around, it fell to 32 to
#: 112, with landmarks up to 9 mm off, and from closer up rose to 111 to 174 for seven of eight.
UNSURE_LIKENESS = 120.0


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
        If there are fewer than two cases to learn from: one says nothing about another. For a
        cascade, if the landmarks of one do not tell how its ear lies.
    """
    if options.pose is None:
        return _train_joint(options, cases, folder, device, threads)
    # Before the network of the pose is trained: what cannot be used is told at once.
    learned, watching = (
        [in_ear_frame(case) for case in part] for part in _prepared_parts(options, cases)
    )
    LOG.info("how the ear lies")
    weights = _train_joint(options.pose, cases, folder / "pose", device, threads)
    torch.manual_seed(options.seed)
    cascade = Cascade(options.network, options.pose.network)
    cascade.pose.load_state_dict(torch.load(weights, weights_only=True))
    taught = {case.name: case.digest for case in cases}
    for plane in PLANES:
        LOG.info("%s plane", plane)
        task = PlaneTask(options, learned, cascade, plane, watching)
        weights = run_course(task, folder / plane, taught, device, threads, options.averaged)
        cascade.planes[plane].load_state_dict(torch.load(weights, weights_only=True))
    path = folder / "weights.pt"
    write_taught(path, taught)
    # In half precision four networks and their card stay within the 10 MB of a shipped bundle.
    save_state({name: part.half() for name, part in cascade.state_dict().items()}, path)
    return path


def _train_joint(
    options: CtOptions, cases: Sequence[Case], folder: Path, device: str, threads: int
) -> Path:
    task = JointTask(options, *_prepared_parts(options, cases))
    taught = {case.name: case.digest for case in cases}
    return run_course(task, folder, taught, device, threads, options.averaged)


def _prepared_parts(
    options: CtOptions, cases: Sequence[Case]
) -> tuple[list[Prepared], list[Prepared]]:
    """Cases to learn from, and those that watch the training."""
    learned, watching = set_aside(cases, options.validation, options.seed)
    return prepare_parts(learned, watching, options.spacing_mm)


@dataclass(frozen=True)
class CtModel:
    """A trained network, and what it needs to know of an image; a cascade's finds the pose.

    Parameters
    ----------
    surface_share
        Share of a voxel that is lumen where the labels that it was taught on have their surface,
        see `hydrops.model.surface`.
    """

    network: torch.nn.Module
    design: Design
    surface_share: float
    pose: CtModel | None = None

    def find(self, image: FloatGrid, affine: Affine) -> CtFinding:
        """See `find_labyrinth`."""
        return find_labyrinth(self, image, affine)

    def find_all(self, image: FloatGrid, affine: Affine) -> list[CtFinding]:
        """See `find_labyrinths`."""
        return find_labyrinths(self, image, affine)


def load_ct_model(
    design: Design, weights: Path, device: torch.device, surface_share: float
) -> CtModel:
    """Load weights, and nothing else, from a file; for the rest see `CtModel`.

    Raises
    ------
    HydropsError
        If the weights are not those of such a network.
    """
    of_pose = design.pose
    network = Cascade(design.network, of_pose.network) if of_pose else build_network(design.network)
    network = load_weights(network, weights).to(device)
    pose = None
    if isinstance(network, Cascade) and of_pose:
        pose = CtModel(network.pose, of_pose, surface_share)
    return CtModel(network, design, surface_share, pose)


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
    likeness
        See `hydrops.model.ct_ears.likeness`.
    """

    probability: dict[str, FloatGrid]
    landmarks: dict[str, list[float]]
    confidences: dict[str, float]
    likeness: float

    def mask(self, stage: str) -> npt.NDArray[np.bool_]:
        """(x, y, z) the largest piece that is labyrinth to a stage."""
        return np.asarray(
            (largest_component(torch.from_numpy(self.probability[stage])) > 0.5).numpy()
        )

    @cached_property
    def label(self) -> npt.NDArray[np.bool_]:
        """(x, y, z) the largest piece that is labyrinth to the last stage."""
        return self.mask(list(self.probability)[-1])


def find_labyrinth(model: CtModel, image: FloatGrid, affine: Affine) -> CtFinding:
    """Segment the ear of an image of any orientation and voxel size, the clearer one of two.

    The image is brought to the network's voxels, once, and the result back; its surface is drawn
    on the image's own voxels, see `hydrops.model.surface`. In an image larger than those of the
    training the ear is looked for first, and then seen in a field as large as theirs.

    Raises
    ------
    ExcludedError
        If nothing in the image is like an ear, or the model cannot tell how it lies.
    """
    return _find_in(model, image, affine, next(_fields(model, image, affine)))


def find_labyrinths(model: CtModel, image: FloatGrid, affine: Affine) -> list[CtFinding]:
    """As `find_labyrinth`, but both ears where the image shows both; the clearer one comes first.

    See `hydrops.model.ct_ears.ear_fields`. What lies no way that an ear could, or is less than
    `LEAST_OF_FIRST` as much like an ear as the first, is not taken for a second one.
    """
    first, *others = _fields(model, image, affine)
    found = [_find_in(model, image, affine, first)]
    for field in others:
        try:
            second = _find_in(model, image, affine, field)
        except ExcludedError as reason:
            LOG.info("no second ear: %s", reason)
            continue
        if second.likeness < LEAST_OF_FIRST * found[0].likeness:
            LOG.info("no second ear: what is most like one is too little so")
            continue
        found.append(second)
    return found


@torch.inference_mode()
def _find_in(model: CtModel, image: FloatGrid, affine: Affine, field: Field) -> CtFinding:
    """What a model finds in a field of an image, on the image's whole grid."""
    field, seen = _see(model, field)
    ear_like = likeness(seen)
    if ear_like < LEAST_LIKENESS:
        raise ExcludedError(NO_EAR)
    landmarks: dict[str, list[float]] = {}
    confidences: dict[str, float] = {}
    if model.pose is None:
        found, grid = {"joint": seen.probability}, seen.grid
        landmarks = {n: [round(float(v), 3) for v in p] for n, p in zip(LANDMARKS, seen.points)}
        confidences = {n: round(float(c), 3) for n, c in zip(LANDMARKS, seen.shares)}
    else:
        grid, shape = _ear_grid(_find_frame(seen), model.design)
        volume = onto_grid(field.image, field.affine, grid, shape)
        found = model.network(volume.to(next(model.network.parameters()).device))
    probability = {}
    part, own_affine = part_under(field.image.shape, field.affine, image.shape, affine)
    own = image[part]
    for name, seen_by in found.items():
        # Not linearly: between voxels as large as the network's a narrow canal would come apart.
        rough = resample(seen_by.float().cpu().numpy(), grid, own.shape, own_affine).clip(0.0, 1.0)
        inside = (largest_component(torch.from_numpy(rough)) > 0.5).numpy()
        probability[name] = np.zeros(image.shape, np.float32)
        probability[name][part] = surface_by_signal(
            rough, inside, own, own_affine, model.surface_share
        )
    finding = CtFinding(probability, landmarks, confidences, ear_like)
    if not finding.label.any():
        raise ExcludedError(NO_EAR)
    return finding


def _see(model: CtModel, field: Field) -> tuple[Field, Look]:
    """What a model makes of an ear's field, or of less of it where that makes it surer."""
    seen = _look(model, field.image, field.affine, EVERY_AXIS)
    if likeness(seen) >= UNSURE_LIKENESS:
        return field, seen
    close = close_field(partial(_look, model), field)
    again = _look(model, close.image, close.affine, EVERY_AXIS)
    return (close, again) if likeness(again) > likeness(seen) else (field, seen)


def _fields(model: CtModel, image: FloatGrid, affine: Affine) -> Iterator[Field]:
    return ear_fields(partial(_look, model), image, affine)


def _look(model: CtModel, image: FloatGrid, affine: Affine, mirrored: Sequence[int] = ()) -> Look:
    """What the network of both heads, of a cascade that of the pose, makes of an image."""
    of_both = model.pose or model
    return look_at(of_both.network, of_both.design.spacing_mm, image, affine, mirrored)


def _find_frame(seen: Look) -> EarFrame:
    frame = ear_frame(seen.points, seen.inside())
    if frame is None:
        raise ExcludedError("the model cannot tell how the inner ear lies in the image")
    return frame


def _ear_grid(frame: EarFrame, design: Design) -> tuple[Affine, tuple[int, int, int]]:
    """Cube on an ear's axes: its voxel-to-RAS-mm affine and its shape."""
    shape = (design.patch, design.patch, design.patch)
    return grid_around(frame.origin, frame.axes, design.spacing_mm, shape), shape
