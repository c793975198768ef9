"""Where the surface of a labyrinth in CT lies, from the brightness of its voxels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hydrops.images import box_around

Affine = npt.NDArray[np.float64]
FloatGrid = npt.NDArray[np.float32]

#: A network is sure of a voxel whose probability is nearer than this to 0 or 1.
DOUBT = 0.1
#: Farthest that the surface lies beyond what a network takes for the labyrinth, mm: one of its
#: voxels. Cavities that it takes for something else, if not surely, lie farther away.
REACH_MM = 0.4
#: Around the labyrinth, its capsule: the densest bone of the body, from and to, mm.
CAPSULE_MM = (0.4, 1.2)
#: Least contrast between capsule and lumen, in standard deviations of the lumen.
LEAST_CONTRAST = 3.0


def surface_by_signal(
    probability: FloatGrid, inside: npt.NDArray[np.bool_], image: FloatGrid, affine: Affine
) -> FloatGrid:
    """Let the brightness say where, between lumen and bone, the surface is.

    A network tells which cavity is the labyrinth, and its surface to a good part of its own voxel;
    in the image's voxels, bone and what fills the labyrinth share a voxel at the surface by their
    brightness. Where the network is in doubt and the labyrinth near, that share replaces its word.

    Parameters
    ----------
    probability
        (x, y, z) of the labyrinth to a network, on the image's grid.
    inside
        What the network takes for it.
    image
        (x, y, z), any unit; bone is brighter.

    Returns
    -------
    (x, y, z) the probability; unchanged where lumen and capsule do not differ enough to tell.
    """
    voxel = np.linalg.norm(affine[:3, :3], axis=0)
    if not inside.any():
        return probability
    part = box_around(inside, CAPSULE_MM[1] / voxel)
    drawn = probability.copy()
    drawn[part] = _drawn(probability[part], inside[part], image[part], voxel)
    return drawn


def _drawn(
    probability: FloatGrid,
    inside: npt.NDArray[np.bool_],
    image: FloatGrid,
    voxel: npt.NDArray[np.float64],
) -> FloatGrid:
    around = ndimage.distance_transform_edt(~inside, sampling=voxel)
    lumen = image[probability > 1.0 - DOUBT]
    shell = image[(around > CAPSULE_MM[0]) & (around < CAPSULE_MM[1])]
    if not len(lumen) or not len(shell):
        return probability
    dark = float(np.median(lumen))
    # Beside bone, the shell holds the middle ear and the nerve canal.
    capsule = shell[shell > (dark + np.percentile(shell, 95)) / 2]
    bright = float(np.median(capsule)) if len(capsule) else dark
    if bright - dark < LEAST_CONTRAST * float(lumen.std()):
        return probability
    share = np.clip((bright - image) / (bright - dark), 0.0, 1.0)
    doubtful = (probability > DOUBT) & (probability < 1.0 - DOUBT) & (around <= REACH_MM)
    return np.where(doubtful, share, probability).astype(np.float32)
