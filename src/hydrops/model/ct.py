"""The CT models: one image in, labyrinth (and landmarks) out.

`joint`: the dual-headed 3D U-Net of Stebani et al. 2023 (segmentation and Gaussian heatmaps of the
landmarks on one trunk). `cascade`: AutoCasNet of Hussain et al. 2021 (2D U-Nets over coronal,
sagittal and axial slices, each given the largest component that the one before it found).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from nibabel.affines import apply_affine
from scipy import ndimage

from hydrops.errors import ExcludedError, HydropsError
from hydrops.images import affine_of, resample
from hydrops.labels import LANDMARKS
from hydrops.model.architectures import build_network
from hydrops.model.augment import in_ear_frame, prepare_cases
from hydrops.model.cascade import PLANES, Cascade, PlaneTask
from hydrops.model.cases import Case
from hydrops.model.course import run_course, save_state
from hydrops.model.ct_task import CtOptions, Design, JointTask
from hydrops.model.field import Box, field_around, is_long, without_padding
from hydrops.model.network import landmark_positions
from hydrops.model.pose import EarFrame, ear_frame
from hydrops.model.surface import surface_by_signal
from hydrops.model.whole import (
    LARGEST_PIECE,
    largest_component,
    mirror_mean,
    onto_grid,
    to_network,
)

LOG = logging.getLogger(__name__)
Affine = npt.NDArray[np.float64]
FloatGrid = npt.NDArray[np.float32]

#: The head of a specimen may lie any way, so no axis is left to right and all are mirrored.
EVERY_AXIS = (0, 1, 2)
#: Farthest that a landmark lies from the labyrinth, mm: twice what is seen in the specimens.
LANDMARK_REACH_MM = 1.5
#: Why an image is excluded in which nothing is taken for a labyrinth.
NO_EAR = "the model finds no inner ear in the image"
#: How far from the middle of the largest piece of labyrinth there may be more of the same, mm.
EAR_RADIUS_MM = 12.0
#: How often the middle of an ear is told anew, from a field around the one told before.
CLOSER_LOOKS = 2
#: How far to the left or right of one ear the other is looked for, mm: adults' are 75 apart.
EARS_APART_MM = (45.0, 105.0)
#: Least volume for a second ear, mm3: half of what a small labyrinth holds.
LEAST_SECOND_EAR_MM3 = 100.0
#: Overlap of the pieces in which a large image is looked at, as a share of their edge.
PIECES_OVERLAP = 0.25


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
    if options.pose is None:
        return _train_joint(options, cases, folder, device, threads)
    LOG.info("how the ear lies")
    weights = _train_joint(options.pose, cases, folder / "pose", device, threads)
    torch.manual_seed(options.seed)
    cascade = Cascade(options.network, options.pose.network)
    cascade.pose.load_state_dict(torch.load(weights, weights_only=True))
    prepared = [in_ear_frame(case) for case in prepare_cases(cases, options.spacing_mm)]
    for plane in PLANES:
        LOG.info("%s plane", plane)
        task = PlaneTask(options, prepared, cascade, plane)
        weights = run_course(task, folder / plane, device, threads, options.averaged)
        cascade.planes[plane].load_state_dict(torch.load(weights, weights_only=True))
    path = folder / "weights.pt"
    # In half precision four networks and their card stay within the 10 MB of a shipped bundle.
    save_state({name: part.half() for name, part in cascade.state_dict().items()}, path)
    return path


def _train_joint(
    options: CtOptions, cases: Sequence[Case], folder: Path, device: str, threads: int
) -> Path:
    task = JointTask(options, prepare_cases(cases, options.spacing_mm))
    return run_course(task, folder, device, threads, options.averaged)


@dataclass(frozen=True)
class CtModel:
    """A trained network, and what it needs to know of an image; a cascade's finds the pose."""

    network: torch.nn.Module
    design: Design
    pose: CtModel | None = None

    def find(self, image: FloatGrid, affine: Affine) -> CtFinding:
        """See `find_labyrinth`."""
        return find_labyrinth(self, image, affine)

    def find_all(self, image: FloatGrid, affine: Affine) -> list[CtFinding]:
        """See `find_labyrinths`."""
        return find_labyrinths(self, image, affine)


def load_ct_model(design: Design, weights: Path, device: torch.device) -> CtModel:
    """Load weights, and nothing else, from a file.

    Raises
    ------
    HydropsError
        If the weights are not those of such a network.
    """
    of_pose = design.pose
    network = Cascade(design.network, of_pose.network) if of_pose else build_network(design.network)
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except RuntimeError as error:
        raise HydropsError(f"{weights}: does not fit the network of its metadata") from error
    network = network.eval().to(device)
    pose = CtModel(network.pose, of_pose) if isinstance(network, Cascade) and of_pose else None
    return CtModel(network, design, pose)


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


def find_labyrinth(model: CtModel, image: FloatGrid, affine: Affine) -> CtFinding:
    """Segment the ear of an image of any orientation and voxel size, the larger one of two.

    The image is brought to the network's axes and voxels, once, and the result back; its surface
    is drawn on the image's own voxels, see `hydrops.model.surface`. In an image larger than those
    of the training the ear is looked for first, and then seen in a field as large as theirs.

    Raises
    ------
    ExcludedError
        If nothing in the image is taken for a labyrinth, or not told how it lies.
    """
    return _find_in(model, image, next(_fields(model, image, affine)))


def find_labyrinths(model: CtModel, image: FloatGrid, affine: Affine) -> list[CtFinding]:
    """As `find_labyrinth`, but both ears where the image shows both; the larger one comes first.

    The other ear lies `EARS_APART_MM` to the left or right of the first. What is smaller than
    `LEAST_SECOND_EAR_MM3` there, or lies no way that an ear could, is not taken for one.
    """
    first, *others = _fields(model, image, affine)
    found = [_find_in(model, image, first)]
    voxel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
    for field in others:
        with suppress(ExcludedError):
            second = _find_in(model, image, field)
            if second.label.sum() * voxel_mm3 >= LEAST_SECOND_EAR_MM3:
                found.append(second)
    return found


@dataclass(frozen=True)
class _Field:
    """The part of an image in which one ear is seen, what it shows, and its affine."""

    part: Box
    image: FloatGrid
    affine: Affine


@torch.inference_mode()
def _find_in(model: CtModel, image: FloatGrid, field: _Field) -> CtFinding:
    """What a model finds in a field of an image, on the image's whole grid."""
    seen = _find_joint(model.pose or model, field, EVERY_AXIS)
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
    own = image[field.part]
    for name, part in found.items():
        rough = resample(part.float().cpu().numpy(), grid, own.shape, field.affine, order=1)
        inside = (largest_component(torch.from_numpy(rough)) > 0.5).numpy()
        probability[name] = np.zeros(image.shape, np.float32)
        probability[name][field.part] = surface_by_signal(rough, inside, own, field.affine)
    finding = CtFinding(probability, landmarks, confidences)
    if not finding.label.any():
        raise ExcludedError(NO_EAR)
    return finding


@dataclass(frozen=True)
class _Seen:
    """What a joint network makes of an image, on its own grid.

    `points` are landmarks (3, 3) in RAS mm, `shares` (3,) their confidences.
    """

    probability: torch.Tensor
    grid: Affine
    points: Affine
    shares: npt.NDArray[np.float64]


@torch.inference_mode()
def _fields(model: CtModel, image: FloatGrid, affine: Affine) -> Iterator[_Field]:
    """The fields in which the ears of an image are to be seen: all of a small one, else each ear's.

    The first is that of the largest piece that the network takes for labyrinth.
    """
    shown, box = without_padding(image)
    whole = _Field(box, shown, affine_of(box, affine))
    if not is_long(shown.shape, whole.affine):
        yield whole
        return
    LOG.info("looking for inner ears in %s voxels", " x ".join(map(str, shown.shape)))
    network = model.pose or model
    for centre in ear_centres(*_pieces(_find_joint(network, whole, ()))):
        field = _narrowed(whole, centre)
        # Among much else, other cavities are taken for parts of the ear; closer up, they are not.
        with suppress(ExcludedError):
            for _ in range(CLOSER_LOOKS):
                field = _narrowed(whole, _inside(_find_joint(network, field, ())).mean(0))
        yield field


def _narrowed(whole: _Field, centre: Affine) -> _Field:
    """The part of a field in which an ear is seen that has its middle at a point, RAS mm."""
    at = apply_affine(np.linalg.inv(whole.affine), centre)
    near = field_around(at, whole.image.shape, whole.affine)
    part = tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(whole.part, near))
    return _Field(part, whole.image[near], affine_of(near, whole.affine))


def _pieces(seen: _Seen) -> tuple[Affine, Affine]:
    """Middle (n, 3), RAS mm, and size (n,), voxels, of each piece of labyrinth that was seen."""
    pieces, count = ndimage.label((seen.probability > 0.5).cpu().numpy(), np.ones((3, 3, 3)))
    if not count:
        raise ExcludedError(NO_EAR)
    middles = ndimage.center_of_mass(pieces > 0, pieces, range(1, count + 1))
    return apply_affine(seen.grid, middles), np.bincount(pieces.ravel())[1:].astype(float)


def ear_centres(middles: Affine, sizes: Affine) -> list[Affine]:
    """Where the ears lie, one or two, told from pieces of labyrinth; the larger one comes first.

    An ear is the largest piece and whatever lies within `EAR_RADIUS_MM` of it, for in a first look
    a canal may come off; the other ear is the same among what lies `EARS_APART_MM` to its left or
    right.

    Parameters
    ----------
    middles, sizes
        (n, 3) RAS mm and (n,) voxels of the pieces, one or more.
    """
    first = _centre_of_largest(middles, sizes)
    aside = np.abs(middles[:, 0] - first[0])
    other = (aside > EARS_APART_MM[0]) & (aside < EARS_APART_MM[1])
    if not other.any():
        return [first]
    return [first, _centre_of_largest(middles[other], sizes[other])]


def _centre_of_largest(middles: Affine, sizes: Affine) -> Affine:
    near = np.linalg.norm(middles - middles[sizes.argmax()], axis=1) < EAR_RADIUS_MM
    return np.asarray(np.average(middles[near], axis=0, weights=sizes[near]))


def _find_joint(model: CtModel, field: _Field, mirrored: tuple[int, ...]) -> _Seen:
    spacing = model.design.spacing_mm
    volume, grid = to_network(field.image, field.affine, spacing)
    volume = volume.to(next(model.network.parameters()).device)
    run = partial(_both_heads, model.network)
    both = mirror_mean(run, volume, LARGEST_PIECE, mirrored, PIECES_OVERLAP)
    logits, heat = both[: -len(LANDMARKS)], both[-len(LANDMARKS) :]
    probability = torch.softmax(logits, dim=0)[1]
    positions, shares = landmark_positions(_near(probability, heat, spacing))
    return _Seen(
        probability, grid, apply_affine(grid, positions.cpu().numpy()), shares.cpu().numpy()
    )


def _inside(seen: _Seen) -> Affine:
    """Points (n, 3) of the labyrinth that was seen, RAS mm."""
    inside = np.argwhere((largest_component(seen.probability) > 0.5).cpu().numpy())
    if not len(inside):
        raise ExcludedError(NO_EAR)
    return np.asarray(apply_affine(seen.grid, inside))


def _find_frame(seen: _Seen) -> EarFrame:
    frame = ear_frame(seen.points, _inside(seen))
    if frame is None:
        raise ExcludedError("the model cannot tell how the inner ear lies in the image")
    return frame


def _ear_grid(frame: EarFrame, design: Design) -> tuple[Affine, tuple[int, int, int]]:
    """Cube on an ear's axes: its voxel-to-RAS-mm affine and its shape."""
    edge = design.patch
    grid = np.eye(4)
    grid[:3, :3] = frame.axes * design.spacing_mm
    grid[:3, 3] = frame.origin - grid[:3, :3].sum(1) * (edge - 1) / 2
    return grid, (edge, edge, edge)


def _near(probability: torch.Tensor, heat: torch.Tensor, spacing_mm: float) -> torch.Tensor:
    """Heatmaps (landmarks, x, y, z) without what lies far from the labyrinth that was found."""
    label = (largest_component(probability) > 0.5).cpu().numpy()
    if not label.any():
        return heat
    distance = ndimage.distance_transform_edt(~label, sampling=spacing_mm)
    far = torch.from_numpy(distance > LANDMARK_REACH_MM).to(heat.device)
    return heat.masked_fill(far, float("-inf"))


def _both_heads(network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return torch.cat([part.float() for part in network(batch)], dim=1)
