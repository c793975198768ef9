"""The part of an image in which an ear is looked for, and the smaller one in which it is seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hydrops.images import box_around, spacing_mm

Affine = npt.NDArray[np.float64]
FloatGrid = npt.NDArray[np.float32]
Box = tuple[slice, ...]

#: Edge of the field around an ear, mm: about that of the specimens of the training.
FIELD_MM = 20.0
#: A longer field is narrowed to that edge once it is known where the ear is, mm.
LONGEST_MM = 26.0
_CORNERS = np.ix_((0, -1), (0, -1), (0, -1))


def without_padding(image: FloatGrid) -> tuple[FloatGrid, Box]:
    """An image without what a scanner or a tool has filled up with one value.

    One value in all eight corners or all over a face of the volume is padding, as far as it hangs
    together with a corner: around a round field of view, or a volume that was turned or enlarged.
    The air around a head may have such a value too.

    Returns
    -------
    The box that holds everything else, its padding set to the mean of the rest, and where it lies
    in the image. An image without padding, or of nothing else, is returned as it is.
    """
    everything = tuple(slice(0, n) for n in image.shape)
    value = _padding_value(image)
    if value is None:
        return image, everything
    there = image == value
    if there.all():
        return image, everything
    pieces, _ = ndimage.label(there)
    corners = pieces[_CORNERS]
    padding = np.isin(pieces, corners[corners > 0])
    box = box_around(~padding, (0, 0, 0))
    filled = padding[box]
    mean = image[box].mean(where=~filled, dtype=np.float64)
    return np.where(filled, np.float32(mean), image[box]), box


def _padding_value(image: FloatGrid) -> float | None:
    faces = [np.take(image, [end], axis) for axis in range(3) for end in (0, -1)]
    for part in (image[_CORNERS], *faces):
        lowest = float(part.min())
        if lowest == float(part.max()):
            return lowest
    return None


def is_long(shape: Sequence[int], affine: Affine) -> bool:
    """Whether an image is longer than the field of an ear, along any axis."""
    return bool((np.array(shape) * spacing_mm(affine) > LONGEST_MM).any())


def field_around(centre: npt.NDArray[np.float64], shape: Sequence[int], affine: Affine) -> Box:
    """The part of an image within half of `FIELD_MM` of a voxel (3,) along each axis."""
    reach = FIELD_MM / 2 / spacing_mm(affine)
    low, high = np.floor(centre - reach).astype(int), np.ceil(centre + reach).astype(int) + 1
    return tuple(slice(max(0, int(a)), min(n, int(b))) for a, b, n in zip(low, high, shape))
