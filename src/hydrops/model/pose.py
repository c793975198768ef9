"""How an inner ear lies in an image: its own axes, by which every ear is seen the same way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]

#: Least distance that tells a direction, mm: the windows lie about 3 mm apart, the helicotrema
#: about 6 mm from the middle of the labyrinth.
LEAST_MM = 0.5
#: Share of the labyrinth's voxels, in %, beyond which its extent is not looked for: strays.
STRAY_PERCENT = 0.5


@dataclass(frozen=True)
class EarFrame:
    """Axes of an ear and a point in its middle.

    Parameters
    ----------
    axes
        (3, 3) whose columns are unit vectors, RAS: from the helicotrema to the labyrinth's centre
        of mass; from the round to the oval window; and across both, to the side on which the
        windows lie. The determinant is 1 for a left ear and -1 for a right one.
    origin
        (3,) RAS mm: the middle of the labyrinth's extent along these axes.
    """

    axes: Points
    origin: Points


def ear_frame(landmarks: Points, labyrinth: Points) -> EarFrame | None:
    """Axes of an ear, orthogonalised in their order (Gram-Schmidt).

    Turned, moved or mirrored, an ear keeps its coordinates along them.

    Parameters
    ----------
    landmarks
        (3, 3) RAS mm in the order of `hydrops.labels.LANDMARKS`.
    labyrinth
        (n, 3) RAS mm, the middles of its voxels.

    Returns
    -------
    None where the points tell no direction, or not the side.
    """
    helicotrema, oval, round_window = landmarks
    first = labyrinth.mean(0) - helicotrema
    if np.linalg.norm(first) < LEAST_MM:
        return None
    first = first / np.linalg.norm(first)
    second = oval - round_window
    second = second - first * (second @ first)
    if np.linalg.norm(second) < LEAST_MM:
        return None
    second = second / np.linalg.norm(second)
    third = np.cross(first, second)
    off = ((oval + round_window) / 2 - helicotrema) @ third
    if abs(off) < LEAST_MM:
        return None
    axes = np.stack([first, second, np.sign(off) * third], axis=1)
    along = labyrinth @ axes
    ends = np.percentile(along, [STRAY_PERCENT, 100 - STRAY_PERCENT], axis=0)
    return EarFrame(axes, axes @ ends.mean(0))
