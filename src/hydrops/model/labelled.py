"""An image and the label drawn in it, read with care: what cannot be learned from is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hydrops.arrays import Affine
from hydrops.errors import HydropsError
from hydrops.images import read_image, voxel_mm3

#: Fewer grey levels than this, and an image is a label.
LEAST_LEVELS = 10
#: Least and largest volume of a labyrinth's label, mm3. The 14 of Wimmer et al. 2019 hold 144 to
#: 267; a third of the least and almost fourfold the largest still are no piece, no bone around it,
#: and no header in another unit.
LABYRINTH_MM3 = (50.0, 1000.0)


def read_label(path: Path) -> tuple[npt.NDArray[np.bool_], Affine]:
    """A label's mask (x, y, z) and its voxel-to-RAS-mm affine.

    Raises
    ------
    HydropsError
        If the file is missing or cannot be read, or holds anything but 0 and 1, or only one.
    """
    if not path.is_file():
        raise HydropsError(f"{path}: the label is missing")
    label, affine = read_image(path, picture=False)
    if not np.isin(np.unique(label), (0, 1)).all():
        raise HydropsError(f"{path}: a label must hold 0 and 1; is this the image?")
    if label.min() == label.max():
        raise HydropsError(
            f"{path}: a label must hold 0 and 1, and this is {label.min():g} everywhere; draw it "
            "anew"
        )
    return label > 0, affine


def refuse_no_labyrinth(path: Path, label: npt.NDArray[np.bool_], affine: Affine) -> None:
    """Refuse a label that is too small or too large for a labyrinth, see `LABYRINTH_MM3`.

    Raises
    ------
    HydropsError
        If it is.
    """
    volume = float(label.sum() * voxel_mm3(affine))
    least, largest = LABYRINTH_MM3
    if not least <= volume <= largest:
        raise HydropsError(
            f"{path}: labels {volume:.4g} mm3, and a labyrinth has {least:g} to {largest:g}; label "
            "all of it and nothing else, and store the image in mm"
        )


def read_image_of(
    path: Path, label: npt.NDArray[np.bool_], affine: Affine
) -> npt.NDArray[np.float32]:
    """The image (x, y, z) in which a label was drawn.

    Raises
    ------
    HydropsError
        If the file is missing or cannot be read, its grid is not the label's, or it is a label.
    """
    if not path.is_file():
        raise HydropsError(f"{path}: the image is missing")
    data, own = read_image(path)
    if data.shape != label.shape or not np.allclose(own, affine, atol=1e-3):
        raise HydropsError(
            f"{path}: image and label differ in grid ({data.shape} and {label.shape} voxels); "
            "resample one onto the other"
        )
    if len(np.unique(data)) < LEAST_LEVELS:
        raise HydropsError(f"{path}: has no grey levels; is this the label?")
    return data
