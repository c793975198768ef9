"""Where the surface of a labyrinth in CT lies, from the brightness of its voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hydrops.arrays import Affine, FloatGrid, Mask
from hydrops.images import box_around
from hydrops.model.cases import Case
from hydrops.model.metrics import overlap_metrics

#: A network is sure of a voxel whose probability is nearer than this to 0 or 1.
DOUBT = 0.1
#: Farthest that the surface lies beyond what a network takes for the labyrinth, mm: one of its
#: voxels. Cavities that it takes for something else, if not surely, lie farther away.
RIM_MM = 0.4
#: Around the labyrinth, its capsule: the densest bone of the body, from and to, mm.
CAPSULE_MM = (0.4, 1.2)
#: Least contrast between capsule and lumen, in standard deviations of the lumen.
LEAST_CONTRAST = 3.0
#: Standard deviation of a network's probability, where it is in doubt, from the share that the
#: brightness gives: 0.19 on four specimens that the networks had not seen.
NETWORK_SD = 0.2
#: Standard deviation of a normal variable as a multiple of its median absolute deviation.
NORMAL_MAD = 1.4826
#: Share of lumen where the surface lies if no labels tell otherwise: the middle of the step.
MIDDLE = 0.5
#: Shares of lumen that are tried for the surface of labels.
SHARES = np.linspace(0.4, 0.6, 21)


@dataclass(frozen=True)
class _Step:
    """Brightness of lumen and capsule, and the standard deviation of the lumen's."""

    lumen: float
    capsule: float
    noise: float

    @property
    def relative_noise(self) -> float:
        """Noise as a share of the step."""
        return self.noise / (self.capsule - self.lumen)

    def share(self, image: FloatGrid) -> FloatGrid:
        """Share of each voxel that is lumen, 0 to 1."""
        share = (self.capsule - image) / (self.capsule - self.lumen)
        return np.asarray(share.clip(0.0, 1.0), np.float32)


def surface_share(cases: Sequence[Case]) -> float:
    """Share of a voxel that is lumen where labels have their surface.

    Experts who draw a surface at a fixed level do not meet the middle between lumen and bone. Of
    `SHARES` it is the one at which brightness alone, within `RIM_MM` of a label's surface, gives
    the labels back with the highest mean Dice; `MIDDLE` where no case has the contrast to tell.
    """
    agreements = [found for case in cases if (found := _agreements(case)) is not None]
    if not agreements:
        return MIDDLE
    return round(float(SHARES[np.mean(agreements, axis=0).argmax()]), 2)


def _agreements(case: Case) -> npt.NDArray[np.float64] | None:
    """Dice of a case's label with brightness alone, by share; None without contrast."""
    voxel = np.linalg.norm(case.affine[:3, :3], axis=0)
    part = box_around(case.label, CAPSULE_MM[1] / voxel)
    label, image = case.label[part], case.image[part]
    around = ndimage.distance_transform_edt(~label, sampling=voxel)
    deep = ndimage.distance_transform_edt(label, sampling=voxel) > RIM_MM
    step = _step(image, deep, around)
    if step is None:
        return None
    share, near = step.share(image), ~deep & (around <= RIM_MM)
    drawn = (np.where(near, share > at, deep) for at in SHARES)
    return np.array([overlap_metrics(mask, label)["dice"] for mask in drawn])


def surface_by_signal(
    probability: FloatGrid, inside: Mask, image: FloatGrid, affine: Affine, at: float
) -> FloatGrid:
    """Let the brightness say where, between lumen and bone, the surface is.

    A network tells which cavity is the labyrinth, and its surface to a good part of its own voxel;
    in the image's voxels, bone and what fills the labyrinth share a voxel at the surface by their
    brightness. Where the network is in doubt and the labyrinth near, that share is joined with its
    word, each weighted by the inverse of its variance: the noisier the image, the less it says.

    Parameters
    ----------
    probability
        (x, y, z) of the labyrinth to a network, on the image's grid.
    inside
        What the network takes for it.
    image
        (x, y, z), any unit; bone is brighter.
    at
        Share of lumen that the surface lies at, see `surface_share`; it is drawn as 0.5.

    Returns
    -------
    (x, y, z) the probability; unchanged where lumen and capsule do not differ enough to tell.
    """
    voxel = np.linalg.norm(affine[:3, :3], axis=0)
    if not inside.any():
        return probability
    part = box_around(inside, CAPSULE_MM[1] / voxel)
    said, image = probability[part], image[part]
    around = ndimage.distance_transform_edt(~inside[part], sampling=voxel)
    step = _step(image, said > 1.0 - DOUBT, around)
    if step is None:
        return probability
    weight = NETWORK_SD**2 / (NETWORK_SD**2 + step.relative_noise**2)
    joined = weight * (step.share(image) + 0.5 - at) + (1.0 - weight) * said
    doubtful = (said > DOUBT) & (said < 1.0 - DOUBT) & (around <= RIM_MM)
    drawn = probability.copy()
    drawn[part] = np.where(doubtful, joined.clip(0.0, 1.0), said)
    return drawn


def _step(image: FloatGrid, inner: Mask, around: npt.NDArray[np.float64]) -> _Step | None:
    """The step from lumen to capsule; None where it is too low to tell them apart.

    Parameters
    ----------
    inner
        Surely lumen.
    around
        Distance from the labyrinth, mm.
    """
    lumen = image[inner]
    shell = image[(around > CAPSULE_MM[0]) & (around < CAPSULE_MM[1])]
    if not len(lumen) or not len(shell):
        return None
    dark = float(np.median(lumen))
    # Beside bone, the shell holds the middle ear and the nerve canal.
    capsule = shell[shell > (dark + np.percentile(shell, 95)) / 2]
    bright = float(np.median(capsule)) if len(capsule) else dark
    # Where bone is cut off at some level, bone that is taken for lumen widens its spread.
    for noise in (float(lumen.std()), NORMAL_MAD * float(np.median(np.abs(lumen - dark)))):
        if bright > dark and bright - dark >= LEAST_CONTRAST * noise:
            return _Step(dark, bright, noise)
    return None
