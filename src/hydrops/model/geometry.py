"""The crop around one ear that every model sees."""

from __future__ import annotations

#: Voxels along R, A, S, and their size.
CROP_SHAPE = (64, 64, 64)
CROP_SPACING_MM = 0.5
