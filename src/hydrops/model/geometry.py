"""The crop around one ear that every MR model sees, and the grid that crops are simulated on."""

from __future__ import annotations

#: Voxels nearest to R, A, S, and their size in mm: that of the published examinations, so that
#: the MRC of one is not interpolated at all (Yoo et al. 2024, Methods: 0.5 x 0.5 x 1.0 mm).
CROP_SHAPE = (64, 64, 32)
CROP_SPACING_MM = (0.5, 0.5, 1.0)
#: The same field in cubes, fine enough to be sampled as any scanner would.
FINE_SHAPE = (64, 64, 64)
FINE_SPACING_MM = 0.5
#: The middle of a crop: a step of a training sees as much, and a located ear lies within it.
WINDOW_SHAPE = (48, 48, 24)
#: The middle of it again, that holds an ear and little else: 16 x 16 x 20 mm.
EAR_SHAPE = (32, 32, 20)
