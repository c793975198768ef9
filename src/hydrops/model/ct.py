"""The CT models: one image in, labyrinth (and landmarks) out.

`joint`: the dual-headed 3D U-Net of Stebani et al. 2023 (segmentation and Gaussian heatmaps of the
landmarks on one trunk). `cascade`: AutoCasNet of Hussain et al. 2021 (2D U-Nets over coronal,
sagittal and axial slices, each given the largest component that the one before it found).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
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
from hydrops.model.field import field_around, is_long, without_padding
from hydrops.model.network import landmark_positions
from hydrops.model.pose import EarFrame, ear_frame
from hydrops.model.surface import surface_by_signal
from hydrops.model.whole import largest_component, mirror_mean, onto_grid, to_network

LOG = logging.getLogger(__name__)
Affine = npt.NDArray[np.float64]
FloatGrid = npt.NDArray[np.float32]

#: The head of a specimen may lie any way, so no axis is left to right and all are mirrored.
EVERY_AXIS = (0, 1, 2)
#: Farthest that a landmark lies from the labyrinth, mm: twice what is seen in the specimens.
LANDMARK_REACH_MM = 1.5
#: Why an image is excluded in which nothing is taken for a labyrinth.
NO_EAR = "the model finds no inner ear in the image"


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


@torch.inference_mode()
def find_labyrinth(model: CtModel, image: FloatGrid, affine: Affine) -> CtFinding:
    """Segment one image of any orientation and voxel size.

    The image is brought to the network's axes and voxels, once, and the result back; its surface
    is drawn on the image's own voxels, see `hydrops.model.surface`. In an image larger than those
    of the training the ear is looked for first, and then seen in a field as large as theirs.

    Raises
    ------
    ExcludedError
        If nothing in the image is taken for a labyrinth, or not told how it lies.
    """
    seen, near, placed = _look(model.pose or model, image, affine)
    landmarks: dict[str, list[float]] = {}
    confidences: dict[str, float] = {}
    if model.pose is None:
        found, grid = {"joint": seen.probability}, seen.grid
        landmarks = {n: [round(float(v), 3) for v in p] for n, p in zip(LANDMARKS, seen.points)}
        confidences = {n: round(float(c), 3) for n, c in zip(LANDMARKS, seen.shares)}
    else:
        grid, shape = _ear_grid(_find_frame(seen), model.design)
        volume = onto_grid(near, placed, grid, shape)
        found = model.network(volume.to(next(model.network.parameters()).device))
    probability = {}
    for name, part in found.items():
        rough = resample(part.float().cpu().numpy(), grid, image.shape, affine, order=1)
        inside = (largest_component(torch.from_numpy(rough)) > 0.5).numpy()
        probability[name] = surface_by_signal(rough, inside, image, affine)
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


def _look(model: CtModel, image: FloatGrid, affine: Affine) -> tuple[_Seen, FloatGrid, Affine]:
    """What a joint network makes of the field around the ear; that field and its affine."""
    shown, box = without_padding(image)
    placed = affine_of(box, affine)
    if not is_long(shown.shape, placed):
        return _find_joint(model, shown, placed, EVERY_AXIS), shown, placed
    centre = _inside(_find_joint(model, shown, placed, ())).mean(0)
    field = field_around(apply_affine(np.linalg.inv(placed), centre), shown.shape, placed)
    near, placed = shown[field], affine_of(field, placed)
    return _find_joint(model, near, placed, EVERY_AXIS), near, placed


def _find_joint(
    model: CtModel, image: FloatGrid, affine: Affine, mirrored: tuple[int, ...]
) -> _Seen:
    spacing = model.design.spacing_mm
    volume, grid = to_network(image, affine, spacing)
    volume = volume.to(next(model.network.parameters()).device)
    run = partial(_both_heads, model.network)
    both = mirror_mean(run, volume, model.design.patch, mirrored)
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
