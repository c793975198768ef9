"""Anatomy of one inner ear: bony labyrinth, endolymph inside it, landmarks, nerve canal.

An ear is built in the frame of a right ear (x lateral, y anterior, z superior, mm, origin in the
vestibule), drawn into a raster of labels, and mirrored for a left ear. Dimensions are published
ones, varied from ear to ear:

* semicircular canals: radii of curvature 3.25, 3.74 and 3.79 mm (Curthoys, Blanks, Markham,
  Acta Otolaryngol 1977;83:258), planes from Della Santina et al., JARO 2005;6:191, Table 2
  (Reid's frame); lumen about 0.9 mm wide;
* cochlea: 2.6 turns, basal turn 9.1 by 6.8 mm, height 3.9 mm (Erixon et al., Otol Neurotol
  2009;30:14), spiral of exponentially falling radius (Cohen et al., Am J Otol 1996;17:859);
* normal endolymph: 8 to 10 % of the cochlear lumen, about a fifth of the vestibule's
  (Igarashi et al., Acta Otolaryngol 1986;101:65).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hydrops.arrays import FloatGrid, Mask
from hydrops.images import box_around
from hydrops.labels import LABELS, LABYRINTH, ORGANS, endolymph_code, perilymph_code

Array = npt.NDArray[np.float64]

SPACING_MM = 0.2

#: Normals of the canal planes of a right ear in RAS axes (Della Santina et al. 2005, Table 2,
#: whose axes are anterior, left, superior).
CANAL_NORMALS = {
    "lateral": (0.03837, 0.32269, -0.94573),
    "superior": (-0.78839, 0.58930, 0.17655),
    "posterior": (0.66693, 0.69432, 0.27042),
}
#: Share of the lumen that endolymph fills: (mean, SD) of a normal ear and the range of hydrops.
NORMAL_RATIO = {
    "cochlea": (0.10, 0.025),
    "vestibule": (0.20, 0.045),
    "semicircular_canals": (0.12, 0.03),
}
HYDROPS_RANGE = {
    "cochlea": (0.12, 0.65),
    "vestibule": (0.22, 0.80),
    "semicircular_canals": (0.10, 0.35),
}


@dataclass(frozen=True)
class Ear:
    """One inner ear as a raster of labels.

    Parameters
    ----------
    side
        ``left`` or ``right``.
    labels
        Codes of `hydrops.labels.LABELS`, axes R, A, S, isotropic voxels of `spacing_mm`.
    origin_mm
        RAS position of voxel (0, 0, 0) relative to the ear's centre, the centroid of its fluid.
    landmarks
        RAS position of each landmark relative to the centre, mm.
    canal
        Fundus and porus of the internal auditory canal, mm, relative to the centre, and the
        canal's radius at each, mm.
    """

    side: str
    spacing_mm: float
    labels: npt.NDArray[np.uint8]
    origin_mm: Array
    landmarks: dict[str, Array]
    canal: tuple[Array, Array, float, float]

    def volumes_mm3(self) -> dict[str, tuple[float, float]]:
        """Total fluid and endolymph of each organ and of the labyrinth, mm3."""
        counts = np.bincount(self.labels.ravel(), minlength=len(LABELS)) * self.spacing_mm**3
        volumes = {
            organ: (
                float(counts[perilymph_code(organ)] + counts[endolymph_code(organ)]),
                float(counts[endolymph_code(organ)]),
            )
            for organ in ORGANS
        }
        total, endolymph = np.sum(list(volumes.values()), axis=0)
        volumes[LABYRINTH] = (float(total), float(endolymph))
        return volumes

    def ratios(self) -> dict[str, float]:
        """EH volume ratio of each organ and of the labyrinth."""
        return {name: els / tfs for name, (tfs, els) in self.volumes_mm3().items()}


def draw_hydrops(rng: np.random.Generator, severity: float | None = None) -> dict[str, float]:
    """Draw the endolymph's share of each organ.

    Parameters
    ----------
    severity
        0 for a normal ear, up to 1 for the severest; drawn (a third of ears normal) when None.
        Organs differ around it, as they do in patients.
    """
    if severity is None:
        severity = 0.0 if rng.random() < 1 / 3 else float(rng.uniform(0.1, 1.0))
    ratios = {}
    for organ in ORGANS:
        mean, spread = NORMAL_RATIO[organ]
        low, high = HYDROPS_RANGE[organ]
        normal = float(np.clip(rng.normal(mean, spread), 0.4 * mean, 1.8 * mean))
        share = float(np.clip(severity + rng.normal(0.0, 0.15) * (severity > 0), 0.0, 1.0))
        ratios[organ] = max(normal, low + share * (high - low)) if share > 0 else normal
    return ratios


def draw_ear(
    rng: np.random.Generator,
    side: str,
    hydrops: Mapping[str, float] | None = None,
    variation: float = 1.0,
) -> Ear:
    """Draw an ear; its anatomy and its hydrops come from separate streams of `rng`.

    Parameters
    ----------
    side
        ``left`` or ``right``.
    hydrops
        Endolymph's share of each organ; drawn when None.
    variation
        Scale of the anatomical variation; 0 gives the mean ear.
    """
    anatomy_rng, hydrops_rng, texture_rng = rng.spawn(3)
    shape = _draw_shape(anatomy_rng, variation)
    lumen, axes = _raster(shape, anatomy_rng, variation)
    landmarks = shape.landmarks()
    ear = build_ear(
        lumen,
        axes,
        landmarks,
        nerve_canal(landmarks),
        dict(hydrops) if hydrops is not None else draw_hydrops(hydrops_rng),
        texture_rng,
    )
    return ear if side == "right" else mirrored(ear)


def ear_from_label(
    lumen: Mask,
    affine: Array,
    side: str,
    landmarks: Mapping[str, Array],
    hydrops: Mapping[str, float],
    rng: np.random.Generator,
) -> Ear:
    """Make an ear of a real label volume, with the endolymph grown inside.

    Specimens lie in the scanner in any direction: the landmarks turn them, rigidly and in the
    least-squares sense (Kabsch, Acta Crystallogr A 1976;32:922), into the frame of a head.

    Parameters
    ----------
    lumen
        Total fluid space, any grid.
    affine
        Voxel to RAS mm, 4 x 4.
    landmarks
        RAS mm: the three of `hydrops.labels.LANDMARKS`, ``modiolus`` and ``vestibule``.
    """
    to_right = np.diag([-1.0 if side == "left" else 1.0, 1.0, 1.0])
    frame = _draw_shape(rng, variation=0.0).landmarks()
    names = sorted(frame)
    here = np.array([landmarks[name] for name in names]) @ to_right
    there = np.array([frame[name] for name in names])
    rotation = _kabsch(here - here.mean(0), there - there.mean(0))
    matrix = rotation @ to_right
    offset = there.mean(0) - rotation @ here.mean(0)
    centre = matrix @ (affine[:3, :3] @ ndimage.center_of_mass(lumen) + affine[:3, 3]) + offset
    axes = tuple(
        c + SPACING_MM * (np.arange(n) - (n - 1) / 2) for c, n in zip(centre, (112, 120, 112))
    )
    from_frame = np.linalg.inv(matrix @ affine[:3, :3])
    start = from_frame @ (np.array([a[0] for a in axes]) - offset - matrix @ affine[:3, 3])
    drawn = ndimage.affine_transform(
        ndimage.gaussian_filter(lumen.astype(np.float32), 0.5),
        from_frame * SPACING_MM,
        start,
        output_shape=tuple(len(a) for a in axes),
        order=1,
    )
    guides = {n: rotation @ (to_right @ np.asarray(p)) + offset for n, p in landmarks.items()}
    ear = build_ear(drawn > 0.5, axes, guides, nerve_canal(guides), hydrops, rng)
    return ear if side == "right" else mirrored(ear)


def nerve_canal(points: Mapping[str, Array]) -> tuple[Array, Array, float, float]:
    """Internal auditory canal of a right ear: fundus, porus (mm) and the radius at each (mm).

    The fundus lies a millimetre medial of the modiolus and the vestibule; the canal is about
    10 mm long and 4 to 5 mm wide (Farahani et al., Folia Morphol 2007;66:324).
    """
    fundus = 0.55 * points["modiolus"] + 0.45 * points["vestibule"] + np.array([-2.6, 0.0, 0.8])
    return fundus, fundus + np.array([-10.0, -2.5, 0.0]), 1.6, 2.6


def build_ear(
    lumen: Mask,
    axes: tuple[Array, Array, Array],
    guides: Mapping[str, Array],
    canal: tuple[Array, Array, float, float],
    hydrops: Mapping[str, float],
    rng: np.random.Generator,
) -> Ear:
    """Divide a right ear's lumen into organs and grow the endolymph in them.

    Parameters
    ----------
    lumen
        Total fluid space on the grid of `axes` (x, y, z coordinates, mm, isotropic).
    guides
        Landmarks, and ``modiolus`` and ``vestibule`` points, mm, in the same frame.
    """
    organs = split_organs(lumen, axes, guides)
    labels = grow_endolymph(organs, axes, guides, hydrops, rng)
    spacing = float(axes[0][1] - axes[0][0])
    centre = np.array([axis[index].mean() for axis, index in zip(axes, lumen.nonzero())])
    origin = np.array([axis[0] for axis in axes]) - centre
    return Ear(
        "right",
        spacing,
        labels,
        origin,
        {name: np.asarray(point) - centre for name, point in guides.items()},
        (canal[0] - centre, canal[1] - centre, canal[2], canal[3]),
    )


def mirrored(ear: Ear) -> Ear:
    """The same ear on the other side of the head."""
    mirror = np.array([-1.0, 1.0, 1.0])
    origin = ear.origin_mm * mirror
    origin[0] -= (ear.labels.shape[0] - 1) * ear.spacing_mm
    fundus, porus, *radii = ear.canal
    return Ear(
        "left" if ear.side == "right" else "right",
        ear.spacing_mm,
        np.ascontiguousarray(ear.labels[::-1]),
        origin,
        {name: point * mirror for name, point in ear.landmarks.items()},
        (fundus * mirror, porus * mirror, radii[0], radii[1]),
    )


def split_organs(
    lumen: Mask, axes: tuple[Array, Array, Array], guides: Mapping[str, Array]
) -> npt.NDArray[np.uint8]:
    """Number the organs of a lumen 1, 2, 3 in the order of `ORGANS`.

    The same rule for phantoms and specimens: the cochlea begins, along the line from the
    vestibule to the modiolus, half way between the oval and the round window; of the rest, what
    a ball of 0.8 mm radius fits into near the vestibule's point is vestibule, the remainder
    semicircular canals.
    """
    spacing = float(axes[0][1] - axes[0][0])
    vestibule = np.asarray(guides["vestibule"])
    forward = np.asarray(guides["modiolus"]) - vestibule
    forward /= np.linalg.norm(forward)
    border = 0.5 * sum(
        float((np.asarray(guides[name]) - vestibule) @ forward)
        for name in ("oval_window", "round_window")
    )
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    along = (
        (x - vestibule[0]) * forward[0]
        + (y - vestibule[1]) * forward[1]
        + (z - vestibule[2]) * forward[2]
    )
    cochlea = lumen & (along > border)
    rest = lumen & ~cochlea
    box = box_around(lumen, (1, 1, 1))
    core = rest & (_depth(lumen, spacing) > 0.8)
    core_labels, count = ndimage.label(core)
    near = (x - vestibule[0]) ** 2 + (y - vestibule[1]) ** 2 + (z - vestibule[2]) ** 2
    if count:
        seed = int(
            core_labels[np.unravel_index(np.argmin(np.where(core, near, np.inf)), core.shape)]
        )
        core = core_labels == seed
    body = np.zeros_like(lumen)
    body[box] = rest[box] & (ndimage.distance_transform_edt(~core[box], sampling=spacing) < 0.9)
    organs = np.zeros(lumen.shape, np.uint8)
    organs[cochlea] = 1
    organs[body] = 2
    organs[rest & ~body] = 3
    return organs


def grow_endolymph(
    organs: npt.NDArray[np.uint8],
    axes: tuple[Array, Array, Array],
    guides: Mapping[str, Array],
    hydrops: Mapping[str, float],
    rng: np.random.Generator,
) -> npt.NDArray[np.uint8]:
    """Fill the wanted share of each organ with endolymph, total fluid unchanged.

    In each organ a smooth field says how early a place is reached as the endolymphatic space
    dilates, and the places reached first are filled up to the wanted volume: in the cochlea from
    the outer wall on the apical side of the basilar membrane, whence Reissner's membrane bulges
    into the scala vestibuli; in the vestibule from the utricle (posterior, superior) and the
    saccule (anterior, inferior), both on the medial wall, away from the oval window; in the
    canals from the ducts' axes and the ampullae.

    Returns
    -------
    Codes of `hydrops.labels.LABELS` on the grid of `organs`.
    """
    spacing = float(axes[0][1] - axes[0][0])
    # float32 with a scale of about a millimetre throughout; coordinates made dense once.
    x, y, z = (
        np.broadcast_to(a.astype(np.float32), organs.shape)
        for a in np.meshgrid(*axes, indexing="ij", sparse=True)
    )
    fields = {
        "cochlea": _cochlear_field(organs == 1, (x, y, z), guides, spacing),
        "vestibule": _vestibular_field((x, y, z), guides, rng),
        "semicircular_canals": _canal_field(organs > 0, (x, y, z), guides, spacing),
    }
    unevenness = _smooth_noise(organs.shape, 1.0 / spacing, rng)
    labels = np.zeros(organs.shape, np.uint8)
    for number, organ in enumerate(ORGANS, start=1):
        mask = organs == number
        if not mask.any():
            continue
        reach = fields[organ][mask] + 0.12 * unevenness[mask]
        count = round(float(hydrops[organ]) * reach.size)
        filled = np.zeros(reach.size, bool)
        filled[np.argsort(-reach, kind="stable")[:count]] = True
        labels[mask] = np.where(filled, endolymph_code(organ), perilymph_code(organ))
    return labels


def _cochlear_field(
    mask: Mask, grid: tuple[FloatGrid, ...], guides: Mapping[str, Array], spacing: float
) -> FloatGrid:
    """Outward and apical offset from the local middle of the cochlear lumen."""
    base = np.asarray(guides["modiolus"], np.float32)
    axis = np.asarray(guides["helicotrema"], np.float32) - base
    axis /= np.linalg.norm(axis)
    offset = [g - b for g, b in zip(grid, base)]
    height = offset[0] * axis[0] + offset[1] * axis[1] + offset[2] * axis[2]
    square = offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2
    radius = np.sqrt(np.maximum(square - height**2, 0.0))
    width = 0.6 / spacing
    weight = ndimage.gaussian_filter(mask.astype(np.float32), width, truncate=2.5) + 1e-6
    outward = radius - ndimage.gaussian_filter(radius * mask, width, truncate=2.5) / weight
    upward = height - ndimage.gaussian_filter(height * mask, width, truncate=2.5) / weight
    return np.asarray(0.8 * outward + 0.6 * upward, np.float32)


def _vestibular_field(
    grid: tuple[FloatGrid, ...], guides: Mapping[str, Array], rng: np.random.Generator
) -> FloatGrid:
    """Closeness to the utricle and the saccule."""
    middle = np.asarray(guides["vestibule"])
    medial = middle - np.asarray(guides["oval_window"])
    medial /= np.linalg.norm(medial)
    forward = np.asarray(guides["modiolus"]) - middle
    forward -= medial * (forward @ medial)
    forward /= np.linalg.norm(forward)
    utricle = middle + 0.5 * medial - 1.2 * forward + rng.normal(0.0, 0.2, 3)
    saccule = middle + 0.7 * medial + 1.0 * forward + rng.normal(0.0, 0.2, 3)
    distances = [
        np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre))) / size
        for centre, size in ((utricle, 1.2), (saccule, rng.uniform(0.7, 1.1)))
    ]
    return np.asarray(-np.minimum(*distances), np.float32)


def _canal_field(
    lumen: Mask, grid: tuple[FloatGrid, ...], guides: Mapping[str, Array], spacing: float
) -> FloatGrid:
    """Depth below the wall, more where an ampulla widens the canal next to the vestibule."""
    depth = _depth(lumen, spacing).astype(np.float32)
    distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, guides["vestibule"])))
    return np.asarray(depth + 0.4 * np.exp(-((distance / 4.0) ** 2)), np.float32)


def _depth(lumen: Mask, spacing: float) -> Array:
    """Distance of each voxel of a lumen from what is not, mm; 0 outside."""
    box = box_around(lumen, (1, 1, 1))
    depth = np.zeros(lumen.shape)
    depth[box] = ndimage.distance_transform_edt(lumen[box], sampling=spacing)
    return depth


def _smooth_noise(
    shape: tuple[int, ...], width_voxels: float, rng: np.random.Generator
) -> FloatGrid:
    """Gaussian random field of unit variance, made on a coarse grid and interpolated."""
    step = max(width_voxels / 1.5, 1.0)
    coarse = tuple(int(np.ceil(n / step)) + 4 for n in shape)
    noise = ndimage.gaussian_filter(rng.standard_normal(coarse).astype(np.float32), 1.0)
    noise /= noise.std()
    fine = ndimage.zoom(noise, [n / c for n, c in zip(shape, coarse)], order=1)
    return np.asarray(fine, np.float32)


@dataclass(frozen=True)
class _Tube:
    """Centreline (n, 3), the two half widths across it (n, 2), and the frame of the first, mm."""

    points: Array
    half_widths: Array
    first_across: Array


@dataclass(frozen=True)
class _Shape:
    """Parameters of one ear's anatomy in the building frame."""

    tubes: tuple[_Tube, ...]
    ellipsoids: tuple[tuple[Array, Array, Array], ...]
    rotation: Array
    points: dict[str, Array]

    def landmarks(self) -> dict[str, Array]:
        """Landmarks about the building frame's origin, turned as the ear is, mm."""
        return {name: self.rotation @ point for name, point in self.points.items()}


def _draw_shape(rng: np.random.Generator, variation: float) -> _Shape:
    def around(mean: float, spread: float) -> float:
        return float(mean * (1.0 + np.clip(rng.normal(0.0, spread), -2.5, 2.5) * variation))

    size = around(1.0, 0.035)
    canals, ampullae = _draw_canals(around, size)
    cochlea, points = _draw_cochlea(around, size, rng, variation)
    body = [
        (np.array([0.0, -0.5, 0.6]) * size, np.array([1.75, 2.65, 1.9]), np.eye(3)),
        (np.array([-0.1, 1.3, -0.7]) * size, np.array([1.65, 1.7, 1.7]), np.eye(3)),
    ]
    ellipsoids = tuple((c, a * size * around(1.0, 0.05), r) for c, a, r in body) + ampullae
    points["oval_window"] = np.array([1.45, 1.15, -0.85]) * size
    points["vestibule"] = np.array([0.0, 0.2, 0.1]) * size
    angles = np.deg2rad(rng.normal(0.0, 4.0, 3)) * variation
    return _Shape((cochlea, *canals), ellipsoids, _rotation(angles), points)


def _draw_canals(
    around: Callable[[float, float], float], size: float
) -> tuple[tuple[_Tube, ...], tuple[tuple[Array, Array, Array], ...]]:
    """Three arcs in their planes, run into the vestibule, and their ampullae."""
    up = np.array([0.0, 0.0, 1.0])
    # centre of the ring, radius, start and end of the arc in degrees from the first in-plane
    # axis, vestibular end of each limb (ampulla first), first in-plane axis
    plan = {
        "lateral": (
            (2.35, -1.5, 1.2),
            2.75,
            (112.0, -128.0),
            (0.9, 0.8, 1.6),
            (0.6, -2.1, 0.9),
            np.array([1.0, -0.35, 0.0]),
        ),
        "superior": (
            (0.75, 0.15, 4.1),
            3.35,
            (-32.0, 205.0),
            (0.7, 1.2, 1.7),
            (-0.5, -2.0, 1.6),
            np.array([0.6, 0.8, 0.0]),
        ),
        "posterior": (
            (1.35, -4.6, 1.1),
            3.2,
            (-152.0, 128.0),
            (-0.1, -1.9, -0.7),
            (-0.5, -2.0, 1.6),
            np.array([0.72, -0.69, 0.0]),
        ),
    }
    tubes, ampullae = [], []
    for name, (centre, radius, (start, end), first, last, toward) in plan.items():
        normal = np.array(CANAL_NORMALS[name])
        across = toward - normal * (toward @ normal)
        across /= np.linalg.norm(across)
        along = np.cross(normal, across)
        if along @ (up if name != "lateral" else np.array([0.0, 1.0, 0.0])) < 0:
            along = -along
        angle = np.deg2rad(np.linspace(start, end, 90))[:, None]
        ring = around(radius, 0.06)
        arc = np.array(centre) + ring * (np.cos(angle) * across + np.sin(angle) * along)
        path = _densify(np.vstack([np.array(first), arc, np.array(last)]) * size, 0.1)
        width = around(0.55, 0.08) * size
        half = np.full((len(path), 2), width)
        tubes.append(_Tube(path, half, normal))
        head = path[min(len(path) - 1, int(1.4 / 0.1))]
        ampullae.append((head, np.full(3, around(1.0, 0.08) * size), np.eye(3)))
    return tuple(tubes), tuple(ampullae)


def _draw_cochlea(
    around: Callable[[float, float], float],
    size: float,
    rng: np.random.Generator,
    variation: float,
) -> tuple[_Tube, dict[str, Array]]:
    """Spiral of the cochlear lumen, its hook into the vestibule, and its landmarks."""
    turns = float(np.clip(2.6 + rng.normal(0.0, 0.12) * variation, 2.25, 2.95))
    axis = np.array([0.60, 0.74, -0.30])
    axis /= np.linalg.norm(axis)
    start_direction = np.array([0.25, -0.75, -0.55])
    start_direction -= axis * (start_direction @ axis)
    start_direction /= np.linalg.norm(start_direction)
    second = np.cross(axis, start_direction)
    if second @ np.array([0.0, 0.0, -1.0]) < 0:
        second = -second
    base = np.array([-2.2, 4.4, -2.9]) * size
    radius_first, radius_last = around(3.75, 0.04) * size, around(0.72, 0.08) * size
    rise = around(3.1, 0.08) * size
    angle = np.linspace(0.0, 2.0 * np.pi * turns, 420)
    share = angle / angle[-1]
    radius = radius_first * (radius_last / radius_first) ** share
    height = rise * share**1.1
    spiral = (
        base
        + radius[:, None]
        * (np.cos(angle)[:, None] * start_direction + np.sin(angle)[:, None] * second)
        + height[:, None] * axis
    )
    hook = np.array([0.3, 1.2, -1.0]) * size
    run_in = np.linspace(hook, spiral[0], 12)[:-1]
    wide = around(1.12, 0.05) * size
    half = np.column_stack([wide * (1.08 - 0.58 * share), wide * (0.98 - 0.46 * share)])
    tube = _Tube(
        np.vstack([run_in, spiral]),
        np.vstack([np.repeat(half[:1], len(run_in), axis=0), half]),
        axis,
    )
    points = {
        "helicotrema": spiral[-1] + 0.25 * (base + rise * axis - spiral[-1]),
        "round_window": run_in[7] + half[0, 0] * np.array([0.1, -0.95, -0.1]),
        "modiolus": base,
    }
    return tube, points


def _raster(
    shape: _Shape, rng: np.random.Generator, variation: float
) -> tuple[Mask, tuple[Array, Array, Array]]:
    """Draw tubes and ellipsoids into a lumen on a grid around the ear."""
    centre = shape.rotation @ np.array([0.2, -0.2, 0.8])
    axes = tuple(
        c + SPACING_MM * (np.arange(n) - (n - 1) / 2) for c, n in zip(centre, (112, 120, 112))
    )
    level = np.full(tuple(len(a) for a in axes), -1.0, np.float32)
    for tube in shape.tubes:
        points = tube.points @ shape.rotation.T
        tangents = np.gradient(points, axis=0)
        tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
        reference = shape.rotation @ tube.first_across
        for point, tangent, half in zip(points, tangents, tube.half_widths):
            axial = reference - tangent * (reference @ tangent)
            axial /= np.linalg.norm(axial) + 1e-9
            frame = np.stack([np.cross(tangent, axial), axial, tangent])
            _stamp(level, axes, point, np.array([half[0], half[1], half.min()]), frame)
    for centre_, half, frame in shape.ellipsoids:
        _stamp(level, axes, shape.rotation @ centre_, half, frame @ shape.rotation.T)
    level += 0.06 * variation * _smooth_noise(level.shape, 0.8 / SPACING_MM, rng)
    lumen, _ = ndimage.label(level > 0)
    largest = int(np.argmax(np.bincount(lumen.ravel())[1:])) + 1
    return lumen == largest, axes  # type: ignore[return-value]


def _stamp(
    level: FloatGrid, axes: tuple[Array, ...], centre: Array, half_widths: Array, frame: Array
) -> None:
    """Raise `level` to one minus the normalised distance from an ellipsoid's centre."""
    reach = float(half_widths.max()) * 1.3
    window = tuple(
        slice(*np.searchsorted(axis, (c - reach, c + reach))) for axis, c in zip(axes, centre)
    )
    x, y, z = (axis[w] - c for axis, w, c in zip(axes, window, centre))
    square = np.zeros((len(x), len(y), len(z)), np.float32)
    for direction, half in zip(frame, half_widths):
        square += (
            (
                x[:, None, None] * direction[0]
                + y[None, :, None] * direction[1]
                + z[None, None, :] * direction[2]
            )
            / half
        ) ** 2
    np.maximum(level[window], 1.0 - np.sqrt(square), out=level[window])


def _densify(points: Array, step: float) -> Array:
    """Points every `step` mm along a polyline whose corners a running mean has rounded."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    at = np.arange(0.0, length[-1], step)
    dense = np.column_stack([np.interp(at, length, points[:, i]) for i in range(3)])
    return np.asarray(ndimage.uniform_filter1d(dense, 9, axis=0, mode="nearest"))


def _kabsch(points: Array, targets: Array) -> Array:
    """Rotation that takes centred points (n, 3) closest to centred targets."""
    u, _, vt = np.linalg.svd(points.T @ targets)
    handedness = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    return np.asarray((u @ handedness @ vt).T)


def _rotation(angles: Array) -> Array:
    """Rotation matrix of a rotation vector, rad."""
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_rotvec(angles).as_matrix())
