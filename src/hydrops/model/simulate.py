"""Training crops, simulated from phantoms and from real anatomy.

The slow half, geometry, is drawn once into a pool on disk: how much of each voxel of a crop is
which tissue, after a random rotation, scaling, shear and displacement. The fast half, contrast, is
drawn anew for every training step: physics of the pair of inversion images with random timing and
gadolinium, brightness of everything around, resolution, noise, shading and residual motion. All
ears are right ears here; a left ear is mirrored before it meets the network.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from nibabel.affines import apply_affine
from scipy import ndimage

from hydrops.errors import HydropsError
from hydrops.files import placed
from hydrops.labels import LANDMARKS
from hydrops.model.geometry import CROP_SHAPE, CROP_SPACING_MM, FINE_SHAPE, FINE_SPACING_MM
from hydrops.model.labelled import read_label, refuse_no_labyrinth
from hydrops.model.landmark_table import (
    COORDINATES,
    LANDMARK_TABLE,
    SPECIMEN_LANDMARKS,
    read_landmark_table,
)
from hydrops.model.preprocess import prepare
from hydrops.model.taught import digest_of
from hydrops.phantom.anatomy import Ear, draw_ear, draw_hydrops, ear_from_label, mirrored
from hydrops.phantom.signal import PEI, PERILYMPH_MMOL, PPI, recovered, shortened_t1_ms

#: Largest rotation of a crop's ear about each axis, degrees: the tilt of a head and the variety of
#: skulls; and its largest offset from the middle along each, mm.
ROTATION_DEG, SHIFT_MM = 25.0, 2.5
#: Channels of a pool: the six compartments of `hydrops.labels.LABELS` without the background,
#: cerebrospinal fluid, nerve, fluid that is no ear (mucosa, vessels), and soft tissue.
TISSUE_CHANNELS = 10
#: Share of the images that are sampled as the published examinations are.
CLINICAL = 0.6
#: SD of how far a head moves between series along an axis, mm (`hydrops.phantom.motion`).
MOTION_MM = 0.25
#: SD of what registration leaves of that, mm, and of the noise of images: least and most of the
#: MRC's, the PPI's and the PEI's in the middle with the SD of its logarithm, where the brightest
#: fluid is about 1.
RESIDUE_MM = 0.06
MRC_NOISE = (0.004, 0.03)
INVERSION_NOISE, INVERSION_NOISE_SD = 0.005, 0.5
#: T1 of fluid without gadolinium in the middle, ms, and how much longer that of CSF is: about those
#: of `hydrops.phantom.signal.TISSUES`, which a patient of `hydrops.phantom.head` has. What is drawn
#: around them here, and the SD of the logarithm of the perilymph's dose, are wider than there, so
#: that a network meets more than patients will show it.
FLUID_MS, CSF_TO_FLUID = 3700.0, 1.05
DOSE_SD = 0.3
#: Share of the ears that gadolinium does not reach, and what is there of it, mmol/l.
FAILED, FAILED_MMOL = 0.03, 0.004
#: Least SD of the point spread, voxels of the fine grid, which cannot show a sharper one.
LEAST_BLUR = 0.35


@dataclass(frozen=True)
class Specimen:
    """A real labyrinth: total fluid on its own grid, landmarks in RAS mm."""

    name: str
    side: str
    lumen: npt.NDArray[np.bool_]
    affine: npt.NDArray[np.float64]
    landmarks: dict[str, npt.NDArray[np.float64]]

    @property
    def digest(self) -> str:
        """Of all that an ear is drawn from."""
        points = [self.landmarks[name] for name in sorted(self.landmarks)]
        return digest_of(self.lumen, self.affine, *points)


def load_specimens(
    folder: Path, names: Sequence[str], needed: Collection[str] = tuple(SPECIMEN_LANDMARKS.values())
) -> list[Specimen]:
    """Read labelled temporal bones (Wimmer et al., Data in Brief 2019;27:104782).

    Parameters
    ----------
    needed
        Landmarks that every specimen must have; those of an ear that is drawn, unless said
        otherwise.

    Raises
    ------
    HydropsError
        If a specimen's label or landmarks are missing, its label is not binary or not as large as
        a labyrinth, or a landmark lies outside it; see also `read_landmark_table`.
    """
    table = read_landmark_table(folder)
    specimens = []
    for name in names:
        path = folder / name / f"{name}_label.nii.gz"
        rows = table[table.specimen == name].set_index("landmark")
        if not path.is_file() or rows.empty:
            raise HydropsError(f"{path}: no label or no landmarks for specimen {name}")
        label, affine = read_label(path)
        refuse_no_labyrinth(path, label, affine)
        points = {
            SPECIMEN_LANDMARKS[str(key)]: row.to_numpy(dtype=float)
            for key, row in rows[list(COORDINATES)].iterrows()
        }
        specimen = Specimen(name, str(rows.side.iloc[0]), label, affine, points)
        _refuse_landmarks(folder / LANDMARK_TABLE, specimen, needed)
        specimens.append(specimen)
    return specimens


def _refuse_landmarks(table: Path, specimen: Specimen, needed: Collection[str]) -> None:
    """Refuse a specimen that lacks a landmark, or has one where its image does not reach."""
    lacking = [
        key
        for key, name in SPECIMEN_LANDMARKS.items()
        if name in needed and name not in specimen.landmarks
    ]
    if lacking:
        raise HydropsError(f"{table}: {specimen.name} lacks {', '.join(lacking)}; add the rows")
    to_voxel = np.linalg.inv(specimen.affine)
    for key, name in SPECIMEN_LANDMARKS.items():
        if name not in specimen.landmarks:
            continue
        voxel = apply_affine(to_voxel, specimen.landmarks[name])
        if (voxel < -0.5).any() or (voxel > np.array(specimen.lumen.shape) - 0.5).any():
            raise HydropsError(
                f"{table}: landmark {key} of {specimen.name} lies outside its image; give it in "
                "RAS mm of that image"
            )


def specimen_ear(specimen: Specimen, rng: np.random.Generator, side: str = "right") -> Ear:
    """An ear of a specimen's anatomy, on either side, with newly drawn endolymph."""
    hydrops_rng, texture_rng = rng.spawn(2)
    ear = ear_from_label(
        specimen.lumen,
        specimen.affine,
        specimen.side,
        specimen.landmarks,
        draw_hydrops(hydrops_rng),
        texture_rng,
    )
    return ear if ear.side == side else mirrored(ear)


@dataclass(frozen=True)
class Geometry:
    """One crop's geometry.

    Parameters
    ----------
    fractions
        (10, x, y, z) volume fractions times 255, channels as `TISSUE_CHANNELS`, on the fine grid.
    landmarks
        (3, 3) voxel coordinates on the fine grid in the order of `hydrops.labels.LANDMARKS`.
    """

    fractions: npt.NDArray[np.uint8]
    landmarks: npt.NDArray[np.float32]


def draw_geometry(ear: Ear, rng: np.random.Generator) -> Geometry:
    """Place a right ear, deformed at random, in a crop together with what surrounds it."""
    matrix = _random_matrix(rng)
    shift = rng.uniform(-SHIFT_MM, SHIFT_MM, 3)
    compartments = _sample_labels(ear, matrix, shift, rng)
    points = np.array([ear.landmarks[name] for name in LANDMARKS])
    middle = (np.array(FINE_SHAPE) - 1) / 2
    landmarks = (points @ matrix.T + shift) / FINE_SPACING_MM + middle
    around = _surroundings(ear, matrix, shift, compartments.sum(0), rng)
    fractions = np.concatenate([compartments, around])
    return Geometry(np.round(fractions * 255).astype(np.uint8), landmarks.astype(np.float32))


def _random_matrix(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    from scipy.spatial.transform import Rotation

    angles = rng.uniform(-ROTATION_DEG, ROTATION_DEG, 3)
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    stretch = np.diag(rng.uniform(0.92, 1.08) * rng.uniform(0.95, 1.05, 3))
    shear = np.eye(3) + rng.uniform(-0.04, 0.04, (3, 3))
    return np.asarray(rotation @ stretch @ shear)


def _sample_labels(
    ear: Ear,
    matrix: npt.NDArray[np.float64],
    shift: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """Volume fractions (6, x, y, z) of the compartments, supersampled twofold."""
    fine_shape = tuple(2 * n for n in FINE_SHAPE)
    fine = FINE_SPACING_MM / 2
    inverse = np.linalg.inv(matrix)
    axes = [torch.arange(n, dtype=torch.float32) * fine - (n - 1) / 2 * fine for n in fine_shape]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    grid = grid + _displacement(rng, fine_shape)
    position = (grid - torch.tensor(shift, dtype=torch.float32)) @ torch.tensor(
        inverse.T, dtype=torch.float32
    )
    index = (position - torch.tensor(ear.origin_mm, dtype=torch.float32)) / ear.spacing_mm
    extent = torch.tensor(ear.labels.shape, dtype=torch.float32) - 1
    normalised = (2 * index / extent - 1).flip(-1)
    sampled = torch.nn.functional.grid_sample(
        torch.from_numpy(ear.labels).float()[None, None],
        normalised[None],
        mode="nearest",
        padding_mode="zeros",
        align_corners=True,
    )[0, 0]
    one_hot = torch.stack([(sampled == code).float() for code in range(1, 7)])
    return np.asarray(torch.nn.functional.avg_pool3d(one_hot, 2).numpy())


def _displacement(rng: np.random.Generator, shape: tuple[int, ...]) -> torch.Tensor:
    """Smooth displacement (x, y, z, 3), about a quarter of a millimetre."""
    knots = torch.from_numpy(rng.normal(0.0, 0.3, (1, 3, 6, 6, 6)).astype(np.float32))
    fine = torch.nn.functional.interpolate(knots, size=shape, mode="trilinear", align_corners=True)
    return fine[0].permute(1, 2, 3, 0)


def _surroundings(
    ear: Ear,
    matrix: npt.NDArray[np.float64],
    shift: npt.NDArray[np.float64],
    fluid: npt.NDArray[np.float32],
    rng: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """Fractions (4, x, y, z) of CSF, nerve, other fluid and soft tissue around the ear."""
    middle = (np.array(FINE_SHAPE) - 1) / 2
    axes = [
        ((np.arange(n) - m) * FINE_SPACING_MM).astype(np.float32)
        for n, m in zip(FINE_SHAPE, middle)
    ]
    grid = np.meshgrid(*axes, indexing="ij", sparse=True)
    fundus, porus, narrow, wide = ear.canal
    fundus = matrix @ (fundus + rng.normal(0.0, 0.4, 3)) + shift
    porus = matrix @ (porus + rng.normal(0.0, 1.5, 3)) + shift
    scale = rng.uniform(0.7, 1.3)
    canal = _cone(grid, fundus, porus, narrow * scale, wide * scale)
    inward = (porus - fundus) / np.linalg.norm(porus - fundus)
    depth = sum((g - p) * d for g, p, d in zip(grid, porus, inward))
    roughness = _field(rng, 3.0)
    cistern = _soft(depth + rng.uniform(-2.0, 4.0) + 1.5 * roughness)
    brain = _soft(depth - rng.uniform(2.0, 8.0) + 2.0 * _field(rng, 3.0))
    nerve = np.zeros(FINE_SHAPE, np.float32)
    for _ in range(int(rng.integers(0, 4))):
        start = fundus + rng.normal(0.0, 0.6, 3)
        end = porus + 6.0 * inward + rng.normal(0.0, 1.2, 3)
        nerve = np.maximum(nerve, _cone(grid, start, end, 0.45, rng.uniform(0.4, 0.8)))
    other = np.zeros(FINE_SHAPE, np.float32)
    for _ in range(int(rng.integers(0, 4))):
        a = rng.uniform(-15.0, 15.0, 3)
        b = a + rng.normal(0.0, 7.0, 3)
        other = np.maximum(other, _cone(grid, a, b, rng.uniform(0.3, 2.0), rng.uniform(0.3, 2.0)))
    if rng.random() < 0.4:
        cells = _field(rng, rng.uniform(0.8, 2.0)) - rng.uniform(0.8, 1.6)
        other = np.maximum(other, _soft(2.0 * cells))
    soft = _soft(2.0 * (_field(rng, 4.0) - rng.uniform(0.0, 1.5)))
    # The bony capsule: nothing but bone within half a millimetre of the labyrinth.
    capsule = ndimage.maximum_filter(fluid, size=3)
    free = 1.0 - np.clip(np.maximum(capsule, fluid), 0.0, 1.0)
    csf = np.clip(np.maximum(canal, cistern * (1 - brain)), 0.0, 1.0) * free
    nerve = nerve * csf
    csf = csf - nerve
    other = other * free * (1.0 - csf - nerve) * (rng.random() < 0.7)
    soft = np.clip(np.maximum(soft, brain), 0.0, 1.0) * free * (1.0 - csf - nerve - other)
    return np.stack([csf, nerve, other, soft]).astype(np.float32)


def _cone(
    grid: Sequence[npt.NDArray[np.float32]],
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    first_radius: float,
    last_radius: float,
) -> npt.NDArray[np.float32]:
    """Fraction of each voxel inside a round-ended cone; lengths in mm."""
    direction = end - start
    share = sum((g - s) * d for g, s, d in zip(grid, start, direction)) / (direction @ direction)
    share = np.clip(share, 0.0, 1.0)
    square = sum((g - s - share * d) ** 2 for g, s, d in zip(grid, start, direction))
    radius = first_radius + share * (last_radius - first_radius)
    return _soft(radius - np.sqrt(square))


def _soft(distance_mm: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Fraction of a voxel on the positive side of a surface."""
    return np.asarray(np.clip(distance_mm / FINE_SPACING_MM + 0.5, 0.0, 1.0), np.float32)


def _field(rng: np.random.Generator, width_mm: float) -> npt.NDArray[np.float32]:
    """Smooth random field of unit variance on the crop grid."""
    knots = max(4, round(FINE_SHAPE[0] * FINE_SPACING_MM / width_mm))
    noise = torch.from_numpy(rng.standard_normal((1, 1, knots, knots, knots)).astype(np.float32))
    fine = torch.nn.functional.interpolate(
        noise, size=FINE_SHAPE, mode="trilinear", align_corners=True
    )[0, 0].numpy()
    return np.asarray(fine / fine.std(), np.float32)


class Crops(Protocol):
    """Fractions of crops, by number."""

    def __getitem__(self, index: int, /) -> npt.NDArray[np.uint8]:
        """Those of one."""


@dataclass(frozen=True)
class Pool:
    """Geometries, in memory or read from disk one by one.

    Parameters
    ----------
    fractions
        n of (10, x, y, z) uint8, see `Geometry`.
    landmarks
        (n, 3, 3) float32.
    """

    fractions: Crops
    landmarks: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.landmarks)

    def shares(self, index: int) -> torch.Tensor:
        """Volume fractions (10, x, y, z) of one, 0 to 1."""
        return torch.from_numpy(self.fractions[index]).float() / 255.0


@dataclass(frozen=True)
class PoolJob:
    """One part of a pool: an ear and its crops, of a phantom or a specimen, drawn by `seeds`."""

    source: str
    part: int
    seeds: tuple[int, ...]
    specimen: Specimen | None = None


def write_pool_part(folder: Path, job: PoolJob, crops: int) -> Path:
    """Draw one ear and its crops into a part of a pool; a part that is there is left alone."""
    path = folder / f"{job.source}-{job.part:04d}.npy"
    if path.is_file():
        return path
    torch.set_num_threads(1)
    rng = np.random.default_rng(job.seeds)
    ear = draw_ear(rng, "right") if job.specimen is None else specimen_ear(job.specimen, rng)
    geometries = [draw_geometry(ear, rng) for _ in range(crops)]
    # What tells that the part is there comes last.
    for target, values in (
        (_landmarks_beside(path), [g.landmarks for g in geometries]),
        (path, [g.fractions for g in geometries]),
    ):
        with placed(target) as temporary, temporary.open("wb") as stream:
            np.save(stream, np.stack(values))
    return path


def _landmarks_beside(path: Path) -> Path:
    """Where the landmarks of a part of a pool are."""
    return path.with_name(f"landmarks_{path.name}")


class _OnDisk:
    """Fractions of the crops of a pool's parts, which together fill gigabytes.

    A part is opened for each of its crops anew: mapped for good, each would keep a file open, and
    there are more of them than a system may allow.
    """

    def __init__(self, paths: Sequence[Path], counts: Sequence[int]) -> None:
        self.places = [(path, n) for path, count in zip(paths, counts) for n in range(count)]

    def __getitem__(self, index: int, /) -> npt.NDArray[np.uint8]:
        path, number = self.places[index]
        return np.array(np.load(path, mmap_mode="r")[number])


def read_pool(paths: Sequence[Path]) -> Pool:
    """Parts of a pool, of which the landmarks alone are kept in memory."""
    marks = [np.load(_landmarks_beside(path)) for path in paths]
    return Pool(_OnDisk(paths, [len(part) for part in marks]), np.concatenate(marks))


def draw_images(
    fractions: torch.Tensor, rng: np.random.Generator, missing: float = 0.15, spread: float = 1.0
) -> torch.Tensor:
    """Images of one geometry with random contrast, resolution, noise, shading and motion.

    Parameters
    ----------
    fractions
        (10, x, y, z) in 0 to 1, on the fine grid.
    missing
        How often the second image is left out.
    spread
        How far contrast and motion are drawn from what is expected, 1 for the widest.

    Returns
    -------
    (3, x, y, z) on the crop grid: what `hydrops.model.preprocess.prepare` makes of MRC and
    HYDROPS-Mi2.
    """
    signals = _draw_signals(rng, spread)
    perilymph = fractions[0:6:2].sum(0)
    endolymph = fractions[1:6:2].sum(0)
    tissues = torch.stack([perilymph, endolymph, *fractions[6:]])
    bone = (1.0 - tissues.sum(0)).clamp(0.0, 1.0)
    tissues = torch.cat([tissues, bone[None]])
    shading = _draw_shading(rng, tissues.shape[1:])
    texture = 1.0 + 0.15 * torch.from_numpy(_field(rng, rng.uniform(1.0, 4.0)))
    clinical = rng.random() < CLINICAL
    sampling = [_Sampling.draw(rng, axis, clinical) for axis in range(3)]
    noise = float(rng.uniform(*MRC_NOISE))
    inversion_noise = float(np.exp(rng.normal(np.log(INVERSION_NOISE), INVERSION_NOISE_SD)))
    made = {}
    for name, level in (("MRC", noise), ("PPI", inversion_noise), ("PEI", inversion_noise)):
        weights = torch.tensor(signals[name], dtype=torch.float32)
        ideal = torch.tensordot(weights, tissues, dims=1) * shading
        ideal = ideal + weights[5] * tissues[5] * (texture - 1.0)
        moved = name != "MRC"
        residue = rng.normal(0.0, RESIDUE_MM * spread if moved else 0.0, 3)
        grids = [s.displaced(rng) for s in sampling] if moved else sampling
        made[name] = _acquire(ideal, grids, residue, level, rng)
    hydrops = made["PPI"] - made["PEI"]
    mi2 = hydrops * made["MRC"] if rng.random() >= missing else None
    return prepare(made["MRC"], mi2, gain=1.0 + spread * float(rng.uniform(-0.15, 0.2)))


def _draw_signals(rng: np.random.Generator, spread: float) -> dict[str, list[float]]:
    """Signed signal of perilymph, endolymph, CSF, nerve, other fluid, soft tissue and bone."""
    failed = rng.random() < FAILED * spread
    dose = float(np.exp(rng.normal(np.log(PERILYMPH_MMOL), DOSE_SD))) if not failed else FAILED_MMOL
    t1_free = FLUID_MS * (1.0 + spread * rng.uniform(-0.025, 0.03))
    t1_csf = t1_free * (CSF_TO_FLUID + spread * rng.uniform(-0.05, 0.05))
    t1 = {
        "perilymph": shortened_t1_ms(t1_free * rng.uniform(1.0, 1.04), dose),
        "endolymph": shortened_t1_ms(t1_free, float(rng.uniform(0.0, 0.04)) * dose),
        "csf": shortened_t1_ms(t1_csf, spread * float(rng.uniform(0.0, 0.4)) * dose),
    }
    other_t1, other_level = rng.uniform(1200.0, 4000.0), rng.uniform(0.05, 1.1)
    soft_level, bone_level = rng.uniform(0.0, 0.15), rng.uniform(0.0, 0.04)
    nerve_level = rng.uniform(0.0, 0.3)
    fluid = {
        "perilymph": rng.uniform(0.85, 1.1),
        "endolymph": rng.uniform(0.9, 1.1),
        "csf": rng.uniform(0.75, 1.35),
    }
    signals = {"MRC": [fluid[k] for k in t1] + [nerve_level, other_level, soft_level, bone_level]}
    delays = {s.name: (s.ti_ms or 0.0) + spread * rng.normal(0.0, 15.0) for s in (PPI, PEI)}
    for name, delay in delays.items():
        signals[name] = [fluid[k] * recovered(t1[k], delay, PPI.tr_ms) for k in t1] + [
            nerve_level * 0.5,
            other_level * recovered(other_t1, delay, PPI.tr_ms),
            soft_level * 0.6,
            bone_level,
        ]
    return signals


def _draw_shading(rng: np.random.Generator, shape: Sequence[int]) -> torch.Tensor:
    """Coil sensitivity across a crop: an exponential of a quadratic, within about 40 %."""
    axes = [torch.linspace(-1.0, 1.0, n) for n in shape]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    terms = [x, y, z, x * x, y * y, z * z]
    weights = rng.normal(0.0, 0.12, len(terms))
    return torch.exp(sum(float(w) * t for w, t in zip(weights, terms)))  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Sampling:
    """How a scanner samples one axis of the field; lengths in voxels of the fine grid.

    Parameters
    ----------
    axis
        0 to 2, of R, A, S.
    voxel
        Distance of the scanner's voxels.
    phase
        Where they lie, as a share of a voxel.
    blur
        SD of the point spread as a share of a voxel.
    """

    axis: int
    voxel: float
    phase: float
    blur: float

    @staticmethod
    def draw(rng: np.random.Generator, axis: int, clinical: bool) -> _Sampling:
        """The crop's own voxels, or 0.4 to 0.65 mm in plane and 0.45 to 1.1 mm across."""
        blur = float(rng.uniform(0.2, 0.5))
        if clinical:
            voxel = CROP_SPACING_MM[axis] / FINE_SPACING_MM
            return _Sampling(axis, voxel, _crop_centres(axis)[0] / voxel + 0.5, blur)
        voxel_mm = rng.uniform(0.45, 1.1) if axis == 2 else rng.uniform(0.4, 0.65)
        return _Sampling(axis, float(voxel_mm) / FINE_SPACING_MM, float(rng.random()), blur)

    def displaced(self, rng: np.random.Generator) -> _Sampling:
        """The same voxels on a head that has moved by a fraction of a millimetre."""
        by = float(np.clip(rng.normal(0.0, MOTION_MM), -3 * MOTION_MM, 3 * MOTION_MM))
        return replace(self, phase=self.phase + by / FINE_SPACING_MM / self.voxel)

    def matrices(self, shift: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Acquisition (n, fine), a Gaussian profile, and interpolation to the crop (crop, n)."""
        size = FINE_SHAPE[self.axis]
        count = int(np.ceil(size / self.voxel)) + 1
        centres = (np.arange(count) + self.phase - 0.5) * self.voxel
        width = max(self.blur * self.voxel, LEAST_BLUR)
        distance = np.arange(size)[None] - (centres + shift)[:, None]
        profile = np.exp(-0.5 * (distance / width) ** 2)
        profile /= profile.sum(1, keepdims=True) + 1e-6
        basis = ndimage.spline_filter1d(np.eye(count), order=3, axis=0)
        wanted = _crop_centres(self.axis) / self.voxel - self.phase + 0.5
        back = np.stack(
            [
                ndimage.map_coordinates(column, [wanted], order=3, mode="nearest", prefilter=False)
                for column in basis.T
            ],
            axis=1,
        )
        return (
            torch.from_numpy(profile.astype(np.float32)),
            torch.from_numpy(back.astype(np.float32)),
        )


def _crop_centres(axis: int) -> npt.NDArray[np.float64]:
    """Where the crop's voxels lie on the fine grid."""
    step = FINE_SHAPE[axis] / CROP_SHAPE[axis]
    return np.asarray(np.arange(CROP_SHAPE[axis]) * step + (step - 1) / 2)


def onto_crop(
    fractions: torch.Tensor, landmarks: npt.NDArray[np.float32]
) -> tuple[torch.Tensor, npt.NDArray[np.float32]]:
    """Volume fractions (n, x, y, z) and landmarks (m, 3) of the fine grid on the crop grid."""
    steps = [f // c for f, c in zip(FINE_SHAPE, CROP_SHAPE)]
    mean = torch.nn.functional.avg_pool3d(fractions, steps)
    return mean, ((landmarks + 0.5) / np.array(steps) - 0.5).astype(np.float32)


def _acquire(
    ideal: torch.Tensor,
    sampling: Sequence[_Sampling],
    shift_mm: npt.NDArray[np.float64],
    noise: float,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Sample a signed image on a scanner's grid, with complex noise, and bring it to the crop's."""
    pairs = [s.matrices(float(d) / FINE_SPACING_MM) for s, d in zip(sampling, shift_mm)]
    acquired = torch.einsum("xyz,ax,by,cz->abc", ideal, *(p[0] for p in pairs))
    real, imaginary = (
        torch.from_numpy(rng.standard_normal((2, *acquired.shape), dtype=np.float32)) * noise
    )
    magnitude = torch.sqrt((acquired + real) ** 2 + imaginary**2)
    return torch.einsum("abc,xa,yb,zc->xyz", magnitude, *(p[1] for p in pairs))
