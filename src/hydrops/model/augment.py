"""Patches of a labelled image, moved, bent, mirrored, blurred and shaded at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd

import numpy as np
import numpy.typing as npt
import torch
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hydrops.arrays import Affine, FloatGrid
from hydrops.errors import HydropsError
from hydrops.images import blur_of_larger
from hydrops.model.cases import Case
from hydrops.model.pose import ear_frame

Points = npt.NDArray[np.float64]

#: Level below which CT shows no bone, in standard deviations from the image's mean, and over how
#: much more darkness partial volume fades out.
DARK, DARK_RAMP = 0.3, 0.5
#: Share of a voxel that must be labelled for its brightness to be that of the structure.
CERTAIN = 0.95


@dataclass(frozen=True)
class Augmentation:
    """How far a patch is drawn from its image; all random, uniform unless said otherwise.

    Parameters
    ----------
    rotation_deg, scale, shift_mm
        Largest rotation about each axis, relative change of size, and offset of the middle.
    bend_mm
        Standard deviation of a smooth displacement, knots about 4 mm apart.
    mirror
        Whether half of the patches are mirrored left to right.
    blur_mm
        Largest standard deviation of a Gaussian: resolution.
    noise
        Largest standard deviation of noise, relative to that of the image; half of the patches
        have it smoothed, as reconstruction kernels do.
    contrast
        Largest relative change of gain and gamma.
    fill
        Largest change of the labelled structure's level in half of the patches, in standard
        deviations of the image: a labyrinth may hold fluid, or air once it has dried.
    surround
        The same for what is dark outside it, nerve canal and air cells, in another half.
    level
        Share of the patches in which nothing is darker than the labelled structure, so that fluid,
        air and what fills the nerve canal look alike and only the shape tells them apart.
    """

    rotation_deg: float = 25.0
    scale: float = 0.1
    shift_mm: float = 3.0
    bend_mm: float = 0.25
    mirror: bool = True
    blur_mm: float = 0.25
    noise: float = 0.2
    contrast: float = 0.3
    fill: float = 0.0
    surround: float = 0.0
    level: float = 0.0


#: Voxels of an image that its scale is told from, about, and the slices that they lie in at least.
LOOKED_AT, LEAST_SLICES = 200_000, 8


@dataclass(frozen=True)
class Prepared:
    """A case as patches are drawn from it.

    Parameters
    ----------
    image, label
        (1, 1, x, y, z).
    middle
        (3,) RAS mm, where patches lie.
    axes
        (3, 3), RAS: its columns are the axes of patches before they are turned.
    """

    case: Case
    image: torch.Tensor
    label: torch.Tensor
    middle: Points
    axes: Points


def standardise(image: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit variance between the 1st and 99th percentile; clipped to 4 deviations."""
    values = image.flatten()[:: _stride(image.shape[-1], image.numel())]
    low, high = torch.quantile(values, 0.01), torch.quantile(values, 0.99)
    middle = values[(values >= low) & (values <= high)]
    # An image of one value has no spread, but for what single precision adds.
    least = max(1e-6 * float(image.abs().max()), torch.finfo(torch.float32).tiny)
    return ((image - middle.mean()) / middle.std().clamp_min(least)).clamp(-4.0, 4.0)


def _stride(slices: int, voxels: int) -> int:
    """Steps through an image's voxels that look at some of them, in several slices at least.

    Where the step is a multiple of the last axis, it would come back to the same slice each time.
    """
    step = max(1, voxels // LOOKED_AT)
    while slices // gcd(step, slices) < min(slices, LEAST_SLICES):
        step += 1
    return step


def voxel_averaged(volume: FloatGrid, affine: Affine, spacing_mm: float) -> FloatGrid:
    """Smooth a volume as larger voxels would, with the variance of their box; none if finer."""
    voxel = np.linalg.norm(affine[:3, :3], axis=0)
    width = blur_of_larger(voxel, spacing_mm)
    return np.asarray(ndimage.gaussian_filter(volume, width), np.float32)


def prepare_case(case: Case, spacing_mm: float) -> Prepared:
    """Standardise an image and smooth its label to volume fractions of a patch's voxels."""
    fractions = voxel_averaged(case.label.astype(np.float32), case.affine, spacing_mm)
    return Prepared(
        case,
        standardise(torch.from_numpy(case.image))[None, None],
        torch.from_numpy(fractions)[None, None],
        labelled_points(case).mean(0),
        np.eye(3),
    )


def labelled_points(case: Case) -> Points:
    """Middles (n, 3) of a label's voxels, RAS mm."""
    return np.asarray(apply_affine(case.affine, np.argwhere(case.label)))


def in_ear_frame(prepared: Prepared) -> Prepared:
    """A case whose patches lie along the axes of its ear, see `hydrops.model.pose`.

    Raises
    ------
    HydropsError
        If its landmarks and its label do not tell them.
    """
    case = prepared.case
    frame = ear_frame(case.landmarks, labelled_points(case))
    if frame is None:
        raise HydropsError(
            f"landmarks.tsv, {case.name}: its landmarks do not tell how the ear lies; are two the "
            "same, or all three in one line?"
        )
    return replace(prepared, middle=frame.origin, axes=frame.axes)


def prepare_parts(
    learned: Sequence[Case], watching: Sequence[Case], spacing_mm: float
) -> tuple[list[Prepared], list[Prepared]]:
    """Prepare the cases that a training learns from, and those that watch it.

    Raises
    ------
    HydropsError
        If there are fewer than two to learn from: one says nothing about another.
    """
    if len(learned) < 2:
        raise HydropsError(f"{len(learned)} labelled case(s) to train on; at least two are needed")
    return (
        [prepare_case(case, spacing_mm) for case in learned],
        [prepare_case(case, spacing_mm) for case in watching],
    )


def draw_patch(
    prepared: Prepared,
    rng: np.random.Generator,
    size: int,
    spacing_mm: float,
    options: Augmentation,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One patch (the case's axes, turned): image, label and landmarks.

    Returns
    -------
    Image (1, n, n, n), volume fraction of the label (1, n, n, n), and landmarks (3, 3) in voxels
    of the patch.
    """
    angles = rng.uniform(-options.rotation_deg, options.rotation_deg, 3)
    matrix = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix = matrix * rng.uniform(1.0 - options.scale, 1.0 + options.scale, 3)
    if options.mirror and rng.random() < 0.5:
        matrix = matrix @ np.diag([-1.0, 1.0, 1.0])
    matrix = prepared.axes @ matrix
    centre = prepared.middle + rng.uniform(-options.shift_mm, options.shift_mm, 3)
    axis = (torch.arange(size, dtype=torch.float32) - (size - 1) / 2) * spacing_mm
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    knots = max(4, round(size * spacing_mm / 4.0))
    field = rng.normal(0.0, options.bend_mm, (1, 3, knots, knots, knots)).astype(np.float32)
    bend = torch.nn.functional.interpolate(
        torch.from_numpy(field), size=(size,) * 3, mode="trilinear", align_corners=True
    )[0].permute(1, 2, 3, 0)
    world = grid @ torch.tensor(matrix.T, dtype=torch.float32) + bend
    world = world + torch.tensor(centre, dtype=torch.float32)
    image = sample(prepared.image, prepared.case.affine, world)
    label = sample(prepared.label, prepared.case.affine, world, "zeros")
    inverse = np.linalg.inv(matrix)
    flat = (prepared.case.landmarks - centre) @ inverse.T
    bent = bend.permute(3, 0, 1, 2).numpy()
    for _ in range(2):  # the bend is smooth and small, so two rounds undo it
        index = (flat / spacing_mm + (size - 1) / 2).T
        there = np.stack([ndimage.map_coordinates(b, index, order=1, mode="nearest") for b in bent])
        flat = (prepared.case.landmarks - centre - there.T) @ inverse.T
    points = torch.from_numpy((flat / spacing_mm + (size - 1) / 2).astype(np.float32))
    if options.fill and rng.random() < 0.5:
        image = image + label * float(rng.uniform(-options.fill, options.fill))
    if options.surround and rng.random() < 0.5:
        dark = ((DARK - image) / DARK_RAMP).clamp(0.0, 1.0) * (1.0 - label)
        image = image + dark * float(rng.uniform(-options.surround, options.surround))
    if options.level and rng.random() < options.level:
        inside = image[label > CERTAIN]
        if len(inside):
            image = image.clamp_min(float(inside.mean()))
    return _shaded(image[0], rng, spacing_mm, options)[None], label, points


def sample(
    volume: torch.Tensor, affine: Affine, world: torch.Tensor, outside: str = "border",
) -> torch.Tensor:  # fmt: skip
    """Trilinear values (1, ...) of a (1, 1, x, y, z) volume at RAS mm points (..., 3)."""
    to_voxel = torch.tensor(np.linalg.inv(affine), dtype=torch.float32)
    voxel = world @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    extent = torch.tensor(volume.shape[2:], dtype=torch.float32) - 1
    return torch.nn.functional.grid_sample(
        volume, (2 * voxel / extent - 1).flip(-1)[None], padding_mode=outside, align_corners=True
    )[0]


def _shaded(
    image: torch.Tensor, rng: np.random.Generator, spacing_mm: float, options: Augmentation
) -> torch.Tensor:
    """Resolution, contrast and noise of another scanner."""
    blurred = ndimage.gaussian_filter(image.numpy(), rng.uniform(0, options.blur_mm) / spacing_mm)
    low, high = float(blurred.min()), float(blurred.max())
    unit = (blurred - low) / max(high - low, 1e-6)
    gamma = float(np.exp(rng.uniform(-options.contrast, options.contrast)))
    gain = float(np.exp(rng.uniform(-options.contrast, options.contrast)))
    shaded = (unit**gamma * (high - low) + low) * gain + rng.normal(0.0, options.contrast)
    noise = rng.standard_normal(image.shape).astype(np.float32)
    if rng.random() < 0.5:
        noise = ndimage.gaussian_filter(noise, 0.8)
        noise /= noise.std()
    return torch.from_numpy((shaded + rng.uniform(0, options.noise) * noise).astype(np.float32))
