"""An image and the label drawn in it, read with care: what cannot be learned from is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hydrops.errors import HydropsError
from hydrops.images import read_image

#: Fewer grey levels than this, and an image is a label.
LEAST_LEVELS = 10

Affine = npt.NDArray[np.float64]


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
    if not np.isin(np.unique(label), (0, 1)).all() or not label.any():
        raise HydropsError(f"{path}: a label must hold 0 and 1; is this the image?")
    return label > 0, affine


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
