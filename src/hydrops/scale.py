"""Whether PPI and PEI have one scale, told by their noise.

HYDROPS is the difference of both, so each must tell a brightness by the same number. Fluids cannot
say that they do: a PPI of another gain looks much like fluids of another T1. Noise can, for what a
receiver adds to two scans of one sequence, inversion time apart, is the same.
"""

from __future__ import annotations

import numpy as np

from hydrops.arrays import FloatGrid
from hydrops.errors import ExcludedError

#: Share of the darkest voxels, in which noise is looked for, and multiple of the median difference
#: above which one is an edge.
DARKEST, EDGE = 0.5, 4.0
#: Largest difference in scale, as a factor. Averaging one of both twice as often makes 1.41 of it.
MOST_APART = 1.45


def noise_level(image: FloatGrid) -> float:
    """How far voxels differ from their neighbours for no reason but noise; zero where none do.

    The mean size of the mixed second difference in the slices (in which even shading cancels), of
    the darkest voxels that are not exactly zero, without edges. Proportional to the SD of noise.

    Parameters
    ----------
    image
        (x, y, z), as it was measured: interpolation would smooth the noise.
    """
    corners = image[1:, 1:], image[1:, :-1], image[:-1, 1:], image[:-1, :-1]
    measured = np.minimum.reduce(corners) > 0.0
    if not measured.any():
        return 0.0
    level = sum(corners[1:], corners[0])
    dark = measured & (level <= np.quantile(level[measured], DARKEST))
    apart = np.abs(corners[0] - corners[1] - corners[2] + corners[3])[dark]
    return float(apart[apart <= EDGE * np.median(apart)].mean())


def check_one_scale(ppi: FloatGrid, pei: FloatGrid) -> float | None:
    """Noise of the PPI as a multiple of that of the PEI; None where one of them has none.

    Parameters
    ----------
    ppi, pei
        (x, y, z), each on its own grid.

    Raises
    ------
    ExcludedError
        If they differ by more than `MOST_APART`.
    """
    first, second = noise_level(ppi), noise_level(pei)
    if first == 0.0 or second == 0.0:
        return None
    ratio = first / second
    if not 1.0 / MOST_APART <= ratio <= MOST_APART:
        raise ExcludedError(
            f"the noise of the PPI is {ratio:.2f} times that of the PEI, so they seem to be scaled "
            "differently, and their difference would tell nothing: export both in one scale (as "
            "DICOM, with its rescale slope), or take both with the same gain and averages"
        )
    return round(ratio, 3)
