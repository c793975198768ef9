"""Kinds of arrays, by the names that signatures call them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: An image, or another number in each voxel, axes x, y, z.
FloatGrid = npt.NDArray[np.float32]
#: Which voxels are meant.
Mask = npt.NDArray[np.bool_]
#: (4, 4) from voxels to RAS mm.
Affine = npt.NDArray[np.float64]
#: Numbers in a row.
Values = npt.NDArray[np.float64]
