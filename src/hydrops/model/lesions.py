"""Simulated lesions: bright, irregular, of many lobes, in textured tissue on T2-weighted MRI.

A stand-in for venous malformations of the head and neck (Ryu et al. 2022), of which no labelled
images are public. **Simulation**: it shows that training and evaluation work, and nothing about
patients.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hydrops.arrays import Affine, FloatGrid
from hydrops.model.cases import Case

#: Edges of the simulated fields, mm, and the least and largest voxel, mm, in and across slices.
FIELD_MM = (56.0, 56.0, 44.0)
IN_PLANE_MM, ACROSS_MM = (0.8, 1.2), (1.0, 3.0)
#: Signal on T2-weighted images relative to a lesion: muscle, fat, and vessels that are none.
MUSCLE, FAT, VESSEL = (0.2, 0.35), (0.5, 0.75), (0.7, 1.1)


def draw_cases(count: int, seed: int) -> list[Case]:
    """Cases of a simulated data set, the same for the same seed."""
    return [draw_case(f"simulated{n:03d}", np.random.default_rng([seed, n])) for n in range(count)]


def draw_case(name: str, rng: np.random.Generator) -> Case:
    """One field with one lesion, in voxels and an orientation of its own."""
    in_plane = rng.uniform(*IN_PLANE_MM)
    spacing = np.array([in_plane, in_plane, rng.uniform(*ACROSS_MM)])
    shape = tuple(int(n) for n in np.round(np.array(FIELD_MM) / spacing))
    points = np.stack(
        np.meshgrid(*[(np.arange(n) - n / 2) * s for n, s in zip(shape, spacing)], indexing="ij")
    )
    depth = _lobes(points, rng) + 1.5 * _texture(shape, spacing, 4.0, rng)
    share = np.clip(depth / spacing.min() + 0.5, 0.0, 1.0)
    tissue = _tissue(points, shape, spacing, rng)
    level = 1.0 + 0.15 * _texture(shape, spacing, 3.0, rng)
    clean = tissue * (1.0 - share) + level * share
    bias = np.exp(0.15 * _texture(shape, spacing, 40.0, rng))
    noise = rng.uniform(0.02, 0.06) * rng.standard_normal((2, *shape))
    # Magnitude of a complex signal: noise is never below zero.
    image = 1000.0 * np.hypot(clean * bias + noise[0], noise[1])
    return Case(
        name,
        "",
        image.astype(np.float32),
        share > 0.5,
        _affine(spacing, rng),
        np.zeros((0, 3)),
    )


def _lobes(points: npt.NDArray[np.float64], rng: np.random.Generator) -> FloatGrid:
    """Depth (x, y, z) below the surface of some lobes, mm; each grows out of one before it."""
    centres = [rng.uniform(-8.0, 8.0, 3)]
    depth = np.full(points.shape[1:], -np.inf)
    for _ in range(int(rng.integers(3, 9))):
        radii = rng.uniform(2.5, 6.5, 3)
        turn = Rotation.from_rotvec(rng.uniform(-1.5, 1.5, 3)).as_matrix()
        offset = np.einsum("ij,jxyz->ixyz", turn, points - centres[-1][:, None, None, None])
        reach = np.sqrt(((offset / radii[:, None, None, None]) ** 2).sum(0))
        depth = np.maximum(depth, (1.0 - reach) * radii.min())
        step = rng.normal(0.0, 1.0, 3)
        origin = centres[int(rng.integers(len(centres)))]
        centres.append(np.clip(origin + radii * step / np.linalg.norm(step), -16.0, 16.0))
    return np.asarray(depth, np.float32)


def _tissue(
    points: npt.NDArray[np.float64],
    shape: tuple[int, ...],
    spacing: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> FloatGrid:
    """Muscle, fat between, and bright vessels that belong to no lesion."""
    fat = ndimage.gaussian_filter((_texture(shape, spacing, 6.0, rng) > 0.7).astype(float), 0.7)
    tissue = rng.uniform(*MUSCLE) * (1.0 - fat) + rng.uniform(*FAT) * fat
    tissue = tissue * (1.0 + 0.1 * _texture(shape, spacing, 1.5, rng))
    for _ in range(int(rng.integers(1, 4))):
        start, along = rng.uniform(-22.0, 22.0, 3), rng.normal(0.0, 1.0, 3)
        along /= np.linalg.norm(along)
        offset = points - start[:, None, None, None]
        away = offset - along[:, None, None, None] * np.einsum("i,ixyz->xyz", along, offset)
        distance = np.sqrt((away**2).sum(0))
        inside = np.clip(rng.uniform(0.8, 1.8) - distance + 0.5, 0.0, 1.0)
        tissue = tissue * (1.0 - inside) + rng.uniform(*VESSEL) * inside
    return np.asarray(tissue, np.float32)


def _texture(
    shape: tuple[int, ...],
    spacing: npt.NDArray[np.float64],
    width_mm: float,
    rng: np.random.Generator,
) -> FloatGrid:
    """Smooth random field of unit variance."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), width_mm / spacing / 2.0)
    return np.asarray(field / field.std(), np.float32)


def _affine(spacing: npt.NDArray[np.float64], rng: np.random.Generator) -> Affine:
    """Axes along those of the head in any order and direction, and an origin anywhere."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[rng.permutation(3)] * rng.choice([-1.0, 1.0], 3) * spacing
    affine[:3, 3] = rng.uniform(-50.0, 50.0, 3)
    return affine
