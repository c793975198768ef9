"""How far a patient moves between two series of one examination."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

#: Logarithmic mean and SD of the angle (deg) and the length (mm) of the rigid motion of 242
#: patients between two series of one session (VS_Seg: Shapey et al., Sci Data 2021;8:286), and
#: the largest of each.
ROTATION_DEG = (-1.564, 0.587, 2.49)
TRANSLATION_MM = (-1.338, 0.468, 1.27)


def draw_motion(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw a rigid motion about the head's centre, 4 x 4, RAS mm."""
    angle = _draw(rng, ROTATION_DEG)
    length = _draw(rng, TRANSLATION_MM)
    axis, direction = (v / np.linalg.norm(v) for v in rng.standard_normal((2, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.deg2rad(angle) * axis).as_matrix()
    matrix[:3, 3] = length * direction
    return matrix


def _draw(rng: np.random.Generator, distribution: tuple[float, float, float]) -> float:
    mean, spread, largest = distribution
    return float(min(np.exp(rng.normal(mean, spread)), largest))
