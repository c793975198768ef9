"""A whole head around two inner ears, and its images as a scanner would make them.

Head coordinates are RAS mm with the origin half way between the ears. Large structures are
ellipsoids and tubes with soft edges, painted over one another on a coarse grid; the ears and
their nerve canals are drawn on the scanner's grid, the ears supersampled so that each voxel
holds its share of every compartment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hydrops.arrays import Affine, FloatGrid
from hydrops.images import corners_of, grid_around, spacing_mm
from hydrops.labels import LABELS, ORGANS, perilymph_code
from hydrops.phantom.anatomy import Ear
from hydrops.phantom.signal import PERILYMPH_MMOL, TISSUES, Tissue, gadolinium, signal
from hydrops.phantom.signal import Sequence as MRSequence

#: Matrix and voxel size (mm) of a typical hydrops examination.
MATRIX = (384, 324, 104)
VOXEL_MM = (0.5, 0.5, 1.0)
#: Half the distance between the two ears, mm; adults about 75 mm apart.
HALF_DISTANCE_MM = 37.5
#: Noise of one channel relative to the proton density of water. Of the inversion images several
#: averages are taken: their contrast is a tenth of the fluid's.
NOISE = {"MRC": 0.010, "PPI": 0.004, "PEI": 0.004}


@dataclass(frozen=True)
class Blob:
    """An ellipsoid of a tissue: centre, half axes (mm), head coordinates."""

    tissue: str
    centre: tuple[float, float, float]
    half_axes: tuple[float, float, float]


@dataclass(frozen=True)
class Tube:
    """A round-ended cone of a tissue: end points and the radius at each, mm."""

    tissue: str
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radii: tuple[float, float]


@dataclass(frozen=True)
class Head:
    """Anatomy of one head.

    Parameters
    ----------
    ears
        Ear by side; a side may be missing.
    places
        Centre of each ear, head coordinates, mm.
    pose
        Head to scanner, 4 x 4, RAS mm: tilt and offset.
    blobs, tubes
        What surrounds the ears, in the order in which it is painted.
    air_seed
        Seed of the mastoids' air cells.
    effusion
        Share of the air cells that hold fluid, by side.
    gadolinium_mmol
        Concentration in the perilymph by side, mmol/l.
    uptake
        That in each organ's as a multiple of it, in the order of `hydrops.labels.ORGANS`.
    """

    ears: Mapping[str, Ear]
    places: Mapping[str, npt.NDArray[np.float64]]
    pose: Affine
    blobs: tuple[Blob, ...]
    tubes: tuple[Tube, ...]
    air_seed: int
    effusion: Mapping[str, float]
    gadolinium_mmol: Mapping[str, float] = field(default_factory=dict)
    uptake: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def to_scanner(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Head to scanner coordinates, RAS mm, (..., 3)."""
        return np.asarray(points) @ self.pose[:3, :3].T + self.pose[:3, 3]

    def landmarks(self, side: str) -> dict[str, npt.NDArray[np.float64]]:
        """Landmarks of an ear in the scanner at the time of the MRC, RAS mm."""
        return {
            name: self.to_scanner(self.places[side] + point)
            for name, point in self.ears[side].landmarks.items()
        }


def draw_head(
    rng: np.random.Generator,
    left: Ear | None,
    right: Ear | None,
    tilt_deg: Sequence[float] = (0.0, 0.0, 0.0),
    offset_mm: Sequence[float] = (0.0, 0.0, 0.0),
) -> Head:
    """Draw a head around ears.

    Parameters
    ----------
    tilt_deg
        Rotation about the x, y and z axis.
    offset_mm
        Scanner position of the point half way between the ears.
    """
    ears = {side: ear for side, ear in (("left", left), ("right", right)) if ear is not None}
    distance = HALF_DISTANCE_MM * rng.normal(1.0, 0.025)
    places = {
        side: np.array([sign * distance, 0.0, 0.0]) + rng.normal(0.0, 0.8, 3)
        for side, sign in (("left", -1.0), ("right", 1.0))
    }
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", tilt_deg, degrees=True).as_matrix()
    pose[:3, 3] = offset_mm
    size = rng.normal(1.0, 0.03)
    blobs = [_grown(blob, size, rng) for blob in _HEAD]
    tubes: list[Tube] = []
    for side, sign in (("left", -1.0), ("right", 1.0)):
        x, y, z = places[side]
        blobs += [
            Blob("bone", (x - sign * 2.0, y + 1.0, z), (19.0, 11.5, 11.0)),
            Blob("marrow", (x - sign * 17.0, y + 12.0, z - 3.0), (7.0, 5.0, 4.0)),
        ]
        tubes.append(
            Tube("air", (x + sign * 8, y + 3, z - 3), (x + sign * 30, y + 3, z - 3), (3.0, 4.0))
        )
        tubes.append(  # carotid: flowing blood gives no signal
            Tube("air", (x - sign * 8, y + 9, z - 14), (x - sign * 22, y + 14, z - 3), (2.6, 2.4))
        )
        tubes.append(
            Tube("blood", (x - sign * 1, y - 5, z - 30), (x - sign * 1, y - 5, z - 11), (4.5, 3.0))
        )
    dose = float(np.exp(rng.normal(np.log(PERILYMPH_MMOL), 0.22)))
    return Head(
        ears,
        places,
        pose,
        tuple(blobs),
        tuple(tubes),
        int(rng.integers(2**31)),
        {side: float(rng.random() ** 4) for side in places},
        {side: dose * float(np.exp(rng.normal(0.0, 0.1))) for side in places},
    )


#: Outside in: what a painter would put down first.
_HEAD = (
    Blob("fat", (0, 5, 25), (80, 101, 108)),
    Blob("bone", (0, 5, 27), (74, 95, 101)),
    Blob("csf", (0, 4, 32), (68, 88, 88)),
    Blob("grey_matter", (0, 4, 33), (65, 85, 84)),
    Blob("white_matter", (-27, 6, 48), (28, 62, 48)),
    Blob("white_matter", (27, 6, 48), (28, 62, 48)),
    Blob("csf", (-11, 2, 52), (7, 32, 9)),
    Blob("csf", (11, 2, 52), (7, 32, 9)),
    Blob("muscle", (0, 30, -62), (62, 62, 58)),
    Blob("muscle", (0, -40, -75), (58, 48, 50)),
    Blob("bone", (0, 28, -8), (50, 42, 16)),
    Blob("air", (0, 42, -12), (12, 18, 9)),
    Blob("mucosa", (14, 58, -22), (9, 10, 12)),
    Blob("fat", (-31, 66, 16), (17, 20, 15)),
    Blob("fat", (31, 66, 16), (17, 20, 15)),
    Blob("csf", (-31, 72, 16), (11.5, 11.5, 11.5)),
    Blob("csf", (31, 72, 16), (11.5, 11.5, 11.5)),
    Blob("csf", (0, -40, -6), (53, 36, 32)),
    Blob("grey_matter", (0, -40, -6), (50, 31, 29)),
    Blob("white_matter", (-22, -38, -6), (18, 16, 14)),
    Blob("white_matter", (22, -38, -6), (18, 16, 14)),
    Blob("csf", (0, -2, -4), (29, 17, 24)),
    Blob("white_matter", (0, -6, 0), (16, 13, 40)),
    Blob("csf", (0, -20, -2), (7, 5, 10)),
)


def _grown(blob: Blob, size: float, rng: np.random.Generator) -> Blob:
    centre = np.array(blob.centre) * size + rng.normal(0.0, 0.6, 3)
    axes = np.array(blob.half_axes) * size * rng.normal(1.0, 0.02, 3)
    return Blob(blob.tissue, tuple(centre), tuple(axes))


def scanner_affine(
    shape: Sequence[int] = MATRIX,
    voxel_mm: Sequence[float] = VOXEL_MM,
    centre_mm: Sequence[float] = (0.0, 0.0, 0.0),
    oblique_deg: float = 0.0,
) -> Affine:
    """Voxel-to-RAS affine of a slab as a scanner stores it: columns to the left, rows back.

    Parameters
    ----------
    oblique_deg
        Rotation of the slab about the left-right axis.
    """
    turn = Rotation.from_euler("x", oblique_deg, degrees=True).as_matrix()
    return grid_around(centre_mm, turn @ np.diag([-1.0, -1.0, 1.0]), voxel_mm, shape)


def usual_point_spread(image: FloatGrid) -> FloatGrid:
    """An image as a scanner that filters little would spread its points."""
    return np.asarray(ndimage.gaussian_filter(image, (0.35, 0.35, 0.25), truncate=2.0), np.float32)


def render(
    head: Head,
    sequence: MRSequence,
    shape: Sequence[int],
    affine: Affine,
    rng: np.random.Generator,
    motion: Affine | None = None,
    noise: float | None = None,
    tissues: Mapping[str, Tissue] = TISSUES,
    point_spread: Callable[[FloatGrid], FloatGrid] = usual_point_spread,
) -> FloatGrid:
    """Image of a head: physics, partial volume, point spread, shading and noise.

    Parameters
    ----------
    shape, affine
        The scanner's grid (voxel to RAS mm).
    motion
        How the head has moved since the MRC, 4 x 4, RAS mm, about the middle between the ears.
    noise
        SD of one channel relative to water's proton density; that of `NOISE` when None.
    tissues
        Tissues by the names of `hydrops.phantom.signal.TISSUES`.
    point_spread
        What becomes of an image, still signed, before there is noise in it.

    Returns
    -------
    Magnitude (signed where the sequence is real), water's proton density being 1. Its coil shading
    is drawn for it alone, so that two images of one head differ in gain across the field by a few
    percent, more than those of one coil would.
    """
    placed = _placed(head, motion)
    levels = {name: signal(tissue, sequence) for name, tissue in tissues.items()}
    image = _coarse_background(head, placed, levels, shape, affine)
    for side in head.ears:
        _paint_ear(image, head, side, motion, sequence, tissues, affine)
    image = point_spread(image)
    image *= _shading(rng, shape, affine)
    spread = NOISE[sequence.name] if noise is None else noise
    image += spread * rng.standard_normal(image.shape, dtype=np.float32)
    if sequence.real:
        return np.asarray(image, np.float32)
    imaginary = spread * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.hypot(image, imaginary), np.float32)


def ear_fractions(
    head: Head, side: str, shape: Sequence[int], affine: Affine, motion: Affine | None = None
) -> tuple[FloatGrid, tuple[slice, slice, slice]]:
    """Volume fractions (7, x, y, z) of an ear's compartments on part of a grid, and that part."""
    ear = head.ears[side]
    placed = _placed(head, motion)
    to_raster = np.linalg.inv(
        placed @ _shifted(head.places[side] + ear.origin_mm) @ np.diag([ear.spacing_mm] * 3 + [1])
    )
    from_raster = np.asarray(np.linalg.inv(to_raster @ affine), np.float64)
    reach = corners_of([n + 1 for n in ear.labels.shape], from_raster)
    low = np.clip(np.floor(reach.min(0)).astype(int) - 1, 0, shape)
    high = np.clip(np.ceil(reach.max(0)).astype(int) + 2, 0, shape)
    region = tuple(slice(a, max(a, b)) for a, b in zip(low, high))
    size = [r.stop - r.start for r in region]
    if min(size) <= 0:
        return np.zeros((len(LABELS), *size), np.float32), region  # type: ignore[return-value]
    factors = np.ceil(spacing_mm(affine) / 0.25 - 1e-6).astype(int)
    chain = to_raster @ affine
    fine = chain[:3, :3] / factors
    start = chain[:3, :3] @ (low + 0.5 / factors - 0.5) + chain[:3, 3]
    codes = ndimage.affine_transform(
        ear.labels, fine, start, output_shape=tuple(np.array(size) * factors), order=0
    )
    blocks = codes.reshape(size[0], factors[0], size[1], factors[1], size[2], factors[2])
    fractions = np.stack(
        [(blocks == code).mean(axis=(1, 3, 5), dtype=np.float32) for code in range(len(LABELS))]
    )
    return fractions, region  # type: ignore[return-value]


def truth_fractions(head: Head, side: str, shape: Sequence[int], affine: Affine) -> FloatGrid:
    """Volume fractions (7, x, y, z) of `hydrops.labels.LABELS` on a whole grid."""
    whole = np.zeros((len(LABELS), *shape), np.float32)
    whole[0] = 1.0
    fractions, region = ear_fractions(head, side, shape, affine)
    whole[(slice(None), *region)] = fractions
    return whole


def _placed(head: Head, motion: Affine | None) -> Affine:
    """Head to scanner once the head has moved about the middle between the ears."""
    if motion is None:
        return head.pose
    centre = _shifted(head.pose[:3, 3])
    return np.asarray(centre @ motion @ np.linalg.inv(centre) @ head.pose)


def _shifted(by: npt.ArrayLike) -> Affine:
    matrix = np.eye(4)
    matrix[:3, 3] = by
    return matrix


def _coarse_background(
    head: Head,
    placed: Affine,
    levels: Mapping[str, float],
    shape: Sequence[int],
    affine: Affine,
) -> FloatGrid:
    """Everything but the ears, painted every second voxel in plane and interpolated."""
    steps = np.array([2, 2, 1])
    coarse = tuple(int(np.ceil(n / s)) + 1 for n, s in zip(shape, steps))
    grid_affine = affine @ np.diag([*steps, 1])
    to_head = np.linalg.inv(placed) @ grid_affine
    soft_mm = float(np.linalg.norm(grid_affine[:3, 0]))
    image = np.full(coarse, levels["air"], np.float32)
    for blob in head.blobs:
        _paint_blob(image, blob, levels[blob.tissue], to_head, soft_mm)
    _paint_air_cells(image, head, levels, to_head)
    for tube in head.tubes:
        _paint_tube(image, tube, levels[tube.tissue], to_head, soft_mm)
    fine = image
    for axis, step in enumerate(steps):
        if step == 2:
            middle = 0.5 * (
                np.take(fine, range(1, fine.shape[axis]), axis)
                + np.take(fine, range(fine.shape[axis] - 1), axis)
            )
            both = np.stack([np.take(fine, range(fine.shape[axis] - 1), axis), middle], axis + 1)
            fine = both.reshape(*fine.shape[:axis], 2 * middle.shape[axis], *fine.shape[axis + 1 :])
    return np.ascontiguousarray(fine[tuple(slice(n) for n in shape)])


def _box(
    centre: npt.ArrayLike, reach: npt.ArrayLike, to_head: Affine, shape: Sequence[int]
) -> tuple[slice, ...]:
    """Part of a grid that a box around a point (head coordinates) can touch."""
    inverse = np.linalg.inv(to_head)
    signs = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1)
    corners = np.asarray(centre)[:, None] + signs * np.asarray(reach)[:, None]
    index = inverse[:3, :3] @ corners + inverse[:3, 3:]
    low = np.clip(np.floor(index.min(1)).astype(int), 0, shape)
    high = np.clip(np.ceil(index.max(1)).astype(int) + 1, 0, shape)
    return tuple(slice(a, max(a, b)) for a, b in zip(low, high))


def _points(region: Sequence[slice], to_head: Affine) -> list[FloatGrid]:
    """Head coordinates of the voxels of a region."""
    i, j, k = np.ogrid[tuple(region)]
    return [
        np.float32(row[0]) * i.astype(np.float32)
        + np.float32(row[1]) * j.astype(np.float32)
        + (np.float32(row[2]) * k + np.float32(row[3])).astype(np.float32)
        for row in to_head[:3]
    ]


def _blend(image: FloatGrid, region: tuple[slice, ...], share: FloatGrid, level: float) -> None:
    part = image[region]
    part += share * (np.float32(level) - part)


def _paint_blob(
    image: FloatGrid, blob: Blob, level: float, to_head: Affine, soft_mm: float
) -> None:
    half = np.asarray(blob.half_axes)
    region = _box(blob.centre, half + soft_mm, to_head, image.shape)
    x, y, z = _points(region, to_head)
    radius = np.sqrt(
        ((x - blob.centre[0]) / half[0]) ** 2
        + ((y - blob.centre[1]) / half[1]) ** 2
        + ((z - blob.centre[2]) / half[2]) ** 2
    )
    share = np.clip((1.0 - radius) * (half.min() / soft_mm) + 0.5, 0.0, 1.0)
    _blend(image, region, share.astype(np.float32), level)


def _paint_tube(
    image: FloatGrid, tube: Tube, level: float, to_head: Affine, soft_mm: float
) -> None:
    start, end = np.asarray(tube.start), np.asarray(tube.end)
    reach = np.abs(end - start) / 2 + max(tube.radii) + soft_mm
    region = _box((start + end) / 2, reach, to_head, image.shape)
    x, y, z = _points(region, to_head)
    along = end - start
    share = (x - start[0]) * along[0] + (y - start[1]) * along[1] + (z - start[2]) * along[2]
    share = np.clip(share / (along @ along), 0.0, 1.0)
    distance = np.sqrt(
        (x - start[0] - share * along[0]) ** 2
        + (y - start[1] - share * along[1]) ** 2
        + (z - start[2] - share * along[2]) ** 2
    )
    radius = tube.radii[0] + share * (tube.radii[1] - tube.radii[0])
    inside = np.clip((radius - distance) / soft_mm + 0.5, 0.0, 1.0).astype(np.float32)
    _blend(image, region, inside, level)


def _paint_air_cells(
    image: FloatGrid, head: Head, levels: Mapping[str, float], to_head: Affine
) -> None:
    """Mastoid cells behind and beside each ear; some hold fluid instead of air."""
    rng = np.random.default_rng(head.air_seed)
    for side, sign in (("left", -1.0), ("right", 1.0)):
        middle = head.places[side] + np.array([sign * 17.0, -17.0, -8.0])
        for _ in range(45):
            centre = middle + rng.normal(0.0, 1.0, 3) * (6.0, 6.0, 8.0)
            wet = rng.random() < head.effusion[side]
            tissue = "mucosa" if wet else "air"
            half = rng.uniform(1.0, 3.0, 3)
            _paint_blob(image, Blob(tissue, tuple(centre), tuple(half)), levels[tissue], to_head, 1)


def _paint_ear(
    image: FloatGrid,
    head: Head,
    side: str,
    motion: Affine | None,
    sequence: MRSequence,
    tissues: Mapping[str, Tissue],
    affine: Affine,
) -> None:
    """Draw nerve canal, bony capsule and the ear's compartments on the scanner's grid."""
    ear = head.ears[side]
    mmol = head.gadolinium_mmol[side]
    canal_level = signal(gadolinium(tissues["csf"], 0.15 * mmol), sequence)
    to_head = np.linalg.inv(_placed(head, motion)) @ affine
    fundus, porus, narrow, wide = ear.canal
    start, end = (head.places[side] + p for p in (fundus, porus))
    soft = float(np.linalg.norm(affine[:3, 0]))
    canal = Tube("csf", tuple(start), tuple(end), (narrow, wide))
    _paint_tube(image, canal, canal_level, to_head, soft)
    for lift in (-0.8, 0.8):
        shift = np.array([0.0, 0.3, lift])
        nerve = Tube("nerve", tuple(start + 0.6 * shift), tuple(end + shift * 1.2), (0.45, 0.6))
        _paint_tube(image, nerve, signal(tissues["nerve"], sequence), to_head, soft)
    fractions, region = ear_fractions(head, side, image.shape, affine, motion)
    if fractions[1:].size == 0:
        return
    fluid = fractions[1:].sum(0)
    capsule = ndimage.maximum_filter(fluid, size=(3, 3, 1)) > 0
    part = image[region]
    part[capsule] = signal(tissues["bone"], sequence)
    part *= 1.0 - fluid
    for organ, share in zip(ORGANS, head.uptake):
        perilymph = signal(gadolinium(tissues["perilymph"], share * mmol), sequence)
        part += np.float32(perilymph) * fractions[perilymph_code(organ)]
    part += np.float32(signal(tissues["endolymph"], sequence)) * fractions[2::2].sum(0)


def _shading(
    rng: np.random.Generator, shape: Sequence[int], affine: npt.NDArray[np.float64]
) -> FloatGrid:
    """Sensitivity of the coil: smooth, within about 20 % over the field of a head."""
    field = (np.array(MATRIX) - 1) * VOXEL_MM
    # Of each axis, the one of R, A and S that it lies nearest to.
    nearest = np.abs(affine[:3, :3]).argmax(0)
    extent = (np.array(shape) - 1) * spacing_mm(affine)
    reach = extent / field[nearest]
    axes = [np.linspace(-r, r, n, dtype=np.float32) for r, n in zip(reach, shape)]
    weights = rng.normal(0.0, 0.06, (3, 2)).astype(np.float32)
    x, y, z = (np.exp(a * w[0] + a * a * w[1]) for a, w in zip(axes, weights))
    return np.asarray(x[:, None, None] * y[None, :, None] * z[None, None, :], np.float32)
