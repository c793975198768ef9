"""The part of an image in which an ear is looked for, and the smaller one in which it is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.optimize import minimize
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.transform import Rotation

from hydrops.arrays import Affine, FloatGrid
from hydrops.images import affine_of, box_around, grid_around, resample, spacing_mm
from hydrops.model.whole import own_axes

Box = tuple[slice, ...]

#: Edge of the field around an ear, mm: about that of the specimens of the training.
FIELD_MM = 20.0
#: A longer field is narrowed to that edge once it is known where the ear is, mm.
LONGEST_MM = 26.0
#: A box lies across an image if it takes at most this share of it, and is filled at least to this
#: share; the cylinder of a round field of view fills 0.79 of its box, a head about a half.
MOST_OF_IMAGE, LEAST_OF_BOX = 0.8, 0.75
#: A longer box is not turned, mm: an ear in it lies far from its corners.
LONGEST_TURNED_MM = 52.0
#: Share of an image below which padding is left as it is: the grey levels are told without the
#: darkest hundredth (`hydrops.model.augment.standardise`), and a real voxel may be the darkest.
LEAST_PADDING = 0.01
#: How far values of padding may lie apart, as a share of all that an image has: some tools write
#: it with noise, or a value or two beside it.
PADDING_SPREAD = 1e-3
#: Metal is brighter than the median by more than this many times the step from the median to the
#: 90th percentile, which is dense bone in the field of an ear, and is less than this share of it.
#: In the specimens of the bony-labyrinth dataset nothing is brighter than 2.2 times.
METAL, MOST_METAL = 3.0, 0.05
#: What it is set to, in the same steps: as bright as the densest bone.
AS_BRIGHT = 2.0
#: Around a labyrinth that is seen once more, mm.
MARGIN_MM = 3.0
#: Directions from which the least box around an image is looked for.
STARTS = 24
_CORNERS = np.ix_((0, -1), (0, -1), (0, -1))


@dataclass(frozen=True)
class Field:
    """What is seen of an image (x, y, z), and its voxel-to-RAS-mm affine."""

    image: FloatGrid
    affine: Affine


def shown_field(image: FloatGrid, affine: Affine) -> Field:
    """As `without_padding`, again until it gets no smaller: a tool may pad what another padded."""
    field = Field(image, affine)
    while True:
        less = without_padding(field.image, field.affine)
        if less.image.shape == field.image.shape:
            return less
        field = less


def without_padding(image: FloatGrid, affine: Affine) -> Field:
    """An image without what a scanner or a tool has filled up with one value.

    One value in all eight corners or all over a face of the volume, or the lowest of all in any
    corner, is padding as far as it hangs together with a corner and lies outside the convex hull of
    all else: around a round field of view, or a volume that was turned or enlarged. The air around
    a head or a specimen may have such a value too; that in its cavities is inside the hull.

    Returns
    -------
    The box that holds everything else, its padding set to the mean of the rest. Of a volume that
    other software has turned, the box that was turned; an image without padding, or of nothing
    else, as it is.
    """
    spread = PADDING_SPREAD * float(np.ptp(image))
    value = _padding_value(image, spread)
    if value is None:
        return Field(image, affine)
    there = np.abs(image - value) <= spread
    if there.all():
        return Field(image, affine)
    pieces, _ = ndimage.label(there)
    corners = pieces[_CORNERS]
    around = np.isin(pieces, corners[corners > 0])
    padding = around & _outside_hull(~around)
    if padding.mean() < LEAST_PADDING:
        return Field(image, affine)
    box = box_around(~padding, (0, 0, 0))
    filled = padding[box]
    mean = image[box].mean(where=~filled, dtype=np.float64)
    field = Field(np.where(filled, np.float32(mean), image[box]), affine_of(box, affine))
    turned = _turned_box(~filled, field.affine) if filled.any() else None
    if turned is None:
        return field
    grid, shape = turned
    return Field(resample(field.image, field.affine, shape, grid, outside="nearest"), grid)


def _padding_value(image: FloatGrid, spread: float) -> float | None:
    """The least value of padding, if there is any whose values lie as little apart as that."""
    faces = [np.take(image, [end], axis) for axis in range(3) for end in (0, -1)]
    for part in (image[_CORNERS], *faces):
        lowest = float(part.min())
        if float(part.max()) - lowest <= spread:
            return lowest
    lowest = float(image.min())
    return lowest if (image[_CORNERS] <= lowest + spread).any() else None


def without_metal(field: Field) -> Field:
    """The field of an ear with metal, and what else is far brighter than bone, as bright as bone.

    As it is, a ball of two millimetres would change what a network makes of all the image.
    """
    median, bone = np.percentile(field.image, (50.0, 90.0))
    metal = field.image > median + METAL * (bone - median)
    if not metal.any() or metal.mean() > MOST_METAL:
        return field
    most = np.float32(median + AS_BRIGHT * (bone - median))
    return Field(np.minimum(field.image, most), field.affine)


def field_of(points: Affine, field: Field) -> Field:
    """The part of a field within `MARGIN_MM` of the box around points (n, 3), RAS mm."""
    at = apply_affine(np.linalg.inv(field.affine), points)
    margin = MARGIN_MM / spacing_mm(field.affine)
    low, high = np.floor(at.min(0) - margin).astype(int), np.ceil(at.max(0) + margin).astype(int)
    part = tuple(
        slice(max(0, int(a)), min(n, int(b) + 1)) for a, b, n in zip(low, high, field.image.shape)
    )
    return Field(field.image[part], affine_of(part, field.affine))


def _outside_hull(shown: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Voxels (x, y, z) that lie outside the convex hull of a mask; all but it, if it is flat."""
    try:
        hull = ConvexHull(_ends(shown))
    except QhullError:
        return ~shown
    # Each row along x enters the hull where the last of the planes that face it is crossed.
    y, z = np.ogrid[: shown.shape[1], : shown.shape[2]]
    enters, leaves = np.zeros(shown.shape[1:]), np.full(shown.shape[1:], len(shown) - 1.0)
    for along, *across, offset in np.unique(hull.equations.round(9), axis=0):
        beyond = across[0] * y + across[1] * z + offset
        if abs(along) < 1e-6:
            leaves[beyond > 1e-6] = -1.0
        elif along > 0:
            leaves = np.minimum(leaves, -beyond / along)
        else:
            enters = np.maximum(enters, -beyond / along)
    x = np.arange(len(shown))[:, None, None]
    return np.asarray((x < enters - 1e-6) | (x > leaves + 1e-6))


def _turned_box(
    shown: npt.NDArray[np.bool_], affine: Affine
) -> tuple[Affine, tuple[int, int, int]] | None:
    """Grid on the box that is shown, where it lies across the image; None where none does."""
    voxel = spacing_mm(affine).astype(float)
    points = apply_affine(affine, _ends(shown))
    # No two points of a box are farther apart than its corners; to turn a whole head takes long.
    if np.ptp(points, axis=0).max() > np.sqrt(3.0) * LONGEST_TURNED_MM:
        return None
    try:
        axes = _least_box_axes(points)
    except QhullError:  # a single slice, or a single row
        return None
    reach = points @ axes
    if np.ptp(reach, axis=0).max() > LONGEST_TURNED_MM:
        return None
    volume = np.prod(np.ptp(reach, axis=0) + voxel.min())
    if volume > MOST_OF_IMAGE * np.prod(voxel * shown.shape):
        return None
    if np.prod(voxel) * shown.sum() < LEAST_OF_BOX * volume:
        return None
    # At its rim the box shares voxels with the padding.
    size = np.ptp(reach, axis=0) - 2.0 * voxel.max()
    counts = np.floor(size / voxel.min()).astype(int) + 1
    if counts.min() < 2:
        return None
    shape = (int(counts[0]), int(counts[1]), int(counts[2]))
    middle = axes @ (reach.max(0) + reach.min(0)) / 2
    return grid_around(middle, axes, voxel.min(), shape), shape


def _ends(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """First and last voxel (n, 3) of a mask along its first axis: they have the same hull."""
    rows, columns = np.nonzero(mask.any(0))
    first = mask.argmax(0)[rows, columns]
    last = len(mask) - 1 - mask[::-1].argmax(0)[rows, columns]
    return np.concatenate([np.stack([x, rows, columns], 1) for x in (first, last)])


def _least_box_axes(points: Affine) -> Affine:
    """Unit axes, the columns (3, 3), of the least box around points (n, 3), nearest R, A and S."""
    hull = points[ConvexHull(points).vertices]

    def volume(turn: npt.NDArray[np.float64]) -> float:
        return float(np.prod(np.ptp(Rotation.from_rotvec(turn).apply(hull), axis=0)))

    starts = Rotation.from_quat(np.random.default_rng(0).normal(size=(STARTS, 4))).as_rotvec()
    found = min((minimize(volume, s, method="Nelder-Mead") for s in starts), key=lambda f: f.fun)
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_rotvec(found.x).as_matrix().T
    return own_axes(turned)


def is_long(shape: Sequence[int], affine: Affine) -> bool:
    """Whether an image is longer than the field of an ear, along any axis."""
    return bool((np.array(shape) * spacing_mm(affine) > LONGEST_MM).any())


def field_around(centre: npt.NDArray[np.float64], shape: Sequence[int], affine: Affine) -> Box:
    """The part of an image within half of `FIELD_MM` of a voxel (3,) along each axis."""
    reach = FIELD_MM / 2 / spacing_mm(affine)
    low, high = np.floor(centre - reach).astype(int), np.ceil(centre + reach).astype(int) + 1
    return tuple(slice(max(0, int(a)), min(n, int(b))) for a, b, n in zip(low, high, shape))
