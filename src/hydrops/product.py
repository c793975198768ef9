"""Whether a HYDROPS-Mi2 that was made elsewhere is one, and lies where its MRC does."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
from scipy import fft

from hydrops.arrays import Affine, FloatGrid
from hydrops.errors import ExcludedError
from hydrops.images import resample
from hydrops.register import check_sign

LOG = logging.getLogger(__name__)

#: Correlation from which two images are one, but for their scale.
SAME_IMAGE = 0.999
#: Least share of the voxels that is negative: noise alone makes it nearly half.
LEAST_NEGATIVE = 0.01
#: Farthest that HYDROPS-Mi2 may lie beside its MRC, mm: the two that were half a millimetre apart
#: gave one simulated ear's ratio 0.12 too large and the other's as much too small.
MOST_OFFSET_MM = 0.3
#: Edge of the cube in the middle of a crop whose fluid is the labyrinth's for the most part, mm.
EAR_MM = 16.0


def check_product(
    name: str, product: FloatGrid, own: Affine, mrc: FloatGrid, affine: Affine
) -> None:
    """Refuse what is no HYDROPS-Mi2, by itself and beside the MRC. See also `check_sign`.

    Parameters
    ----------
    product, mrc
        (x, y, z), each on its own grid, `own` and `affine`.

    Raises
    ------
    ExcludedError
        If it is the MRC once more, or nothing in it is negative.
    """
    if product.shape == mrc.shape and np.corrcoef(product.flat, mrc.flat)[0, 1] > SAME_IMAGE:
        raise ExcludedError(f"{name} is the same image as the MRC: was one file given for both?")
    if (product < 0.0).sum() < LEAST_NEGATIVE * (product != 0.0).sum():
        raise ExcludedError(
            f"{name} has no negative values, so endolymph cannot be told in it: it must be signed, "
            "neither a magnitude nor cut off at zero nor shifted (a PPI needs its PEI beside it)"
        )
    on_mrc = resample(product, own, mrc.shape, affine)
    if not check_sign(mrc, on_mrc, affine):
        LOG.warning(
            "no cerebrospinal fluid is shown, by which it would be seen if %s had the wrong sign: "
            "a ratio is right only if perilymph is positive in it",
            name,
        )


def check_lies_on(name: str, mrc: FloatGrid, product: FloatGrid, voxel_mm: npt.ArrayLike) -> None:
    """Refuse a HYDROPS-Mi2 that does not lie on the MRC in an ear, the middle of both (x, y, z).

    A product with the MRC is bright, of either sign, where that is: the peak of their
    cross-correlation tells how far it was moved since, to about 0.1 mm.

    Raises
    ------
    ExcludedError
        If it covers less than half of the crop, or lies more than `MOST_OFFSET_MM` beside the MRC.
    """
    half = np.ceil(EAR_MM / 2 / np.asarray(voxel_mm, float)).astype(int)
    ear = tuple(slice(n // 2 - h, n // 2 + h) for n, h in zip(mrc.shape, half))
    fluid, bright = mrc[ear], np.abs(product[ear])
    if (bright == 0.0).sum() > 0.5 * (fluid != 0.0).sum():
        raise ExcludedError(f"{name} does not cover it: was it made of the same head?")
    offset = float(np.linalg.norm(offset_mm(fluid, bright, voxel_mm)))
    if offset > MOST_OFFSET_MM:
        raise ExcludedError(
            f"{name} lies {offset:.1f} mm beside the MRC in it: make it of images that are "
            "registered to the MRC, or give PPI and PEI, which are registered here"
        )


def offset_mm(
    fixed: FloatGrid, moving: FloatGrid, voxel_mm: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """How far one image (x, y, z) lies beside another on its grid, mm along its axes.

    The peak of their cross-correlation, with a parabola through it and its neighbours.
    """
    spectra = [fft.rfftn(image - image.mean()) for image in (fixed, moving)]
    match = fft.irfftn(spectra[0].conj() * spectra[1], fixed.shape)
    peak = np.array(np.unravel_index(match.argmax(), match.shape))
    steps = []
    for axis, size in enumerate(match.shape):
        line = np.moveaxis(match, axis, 0)[:, *np.delete(peak, axis)]
        before, at, after = line[[peak[axis] - 1, peak[axis], (peak[axis] + 1) % size]]
        bend = before - 2.0 * at + after
        part = 0.5 * (before - after) / bend if bend else 0.0
        steps.append((peak[axis] + size // 2) % size - size // 2 + part)
    return np.asarray(np.array(steps) * np.asarray(voxel_mm, float))
