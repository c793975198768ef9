"""An image of any orientation and voxel size, as a network that knows its own voxels sees it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from math import ceil, prod
from typing import Any

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from nibabel.orientations import io_orientation
from scipy import ndimage

from hydrops.arrays import Affine, FloatGrid
from hydrops.images import box_around, corners_of, grid_around, resample
from hydrops.model.augment import standardise, voxel_averaged
from hydrops.model.options import MULTIPLE

LOG = logging.getLogger(__name__)

#: Edge of the largest grid that is segmented in one piece, voxels.
LARGEST_PIECE = 96
#: Seconds after which the log says again how far a large volume has been seen.
TELL_AFTER_S = 10.0


def own_axes(affine: Affine) -> Affine:
    """Unit axes of an image, the columns (3, 3) in the order and direction nearest R, A and S.

    Those of a sheared image, as a tilted gantry makes it, are the nearest at right angles.
    """
    direction = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    axes = np.zeros((3, 3))
    for along, (onto, sign) in zip(direction.T, io_orientation(affine)):
        axes[:, int(onto)] = sign * along
    left, _, right = np.linalg.svd(axes)
    return np.asarray(left @ right)


def working_grid(
    shape: Sequence[int], affine: Affine, spacing_mm: float
) -> tuple[Affine, tuple[int, int, int]]:
    """Grid on an image's own axes that covers it, each side a multiple of `MULTIPLE` voxels.

    On other axes its box would stick out at the corners of an oblique image, and a network would be
    shown more of what is made up there than of the image.
    """
    axes = own_axes(affine)
    reach = corners_of(shape, affine) @ axes
    # What a file's single precision adds to a length must not add a voxel.
    size = np.ceil(np.ptp(reach, axis=0) / spacing_mm - 1e-3) + 1
    padded = (np.ceil(size / MULTIPLE) * MULTIPLE).astype(int)
    covering = (int(padded[0]), int(padded[1]), int(padded[2]))
    middle = axes @ (reach.max(0) + reach.min(0)) / 2
    return grid_around(middle, axes, spacing_mm, covering), covering


def to_network(image: FloatGrid, affine: Affine, spacing_mm: float) -> tuple[torch.Tensor, Affine]:
    """An image (1, x, y, z) on its own axes in the network's voxels, as `onto_grid`; its grid."""
    grid, shape = working_grid(image.shape, affine, spacing_mm)
    return onto_grid(image, affine, grid, shape), grid


def onto_grid(
    image: FloatGrid, affine: Affine, grid: Affine, shape: tuple[int, int, int]
) -> torch.Tensor:
    """An image (1, x, y, z) on a grid of cubic voxels, standardised.

    It is smoothed as larger voxels would, and interpolated once, by cubic splines: between voxels
    coarser than the grid's, linear interpolation would blur what the network knows as sharp.
    """
    smooth = voxel_averaged(image, affine, float(np.linalg.norm(grid[:3, 0])))
    standard = standardise(torch.from_numpy(smooth)).numpy()
    return torch.from_numpy(resample(standard, affine, shape, grid, outside="nearest"))[None]


def mirror_mean(
    run: Callable[[torch.Tensor], torch.Tensor],
    volume: torch.Tensor,
    patch: int,
    axes: Sequence[int] = (0,),
    overlap: float = 0.5,
) -> torch.Tensor:
    """Mean of what a network gives for a volume (1, x, y, z) and for its mirror images.

    Parameters
    ----------
    run
        (batch, 1, x, y, z) to (batch, channels, x, y, z).
    patch
        Edge of the pieces in which a large volume is read, voxels.
    axes
        Of x, y, z, along which it is mirrored, alone and together: x is left to right.
    overlap
        Of two neighbouring pieces, as a share of `patch`.
    """

    def whole(batch: torch.Tensor) -> torch.Tensor:
        if max(batch.shape[2:]) <= LARGEST_PIECE:
            return run(batch)
        pieces = _pieces_of(batch.shape[2:], patch, overlap)
        joined: Any = sliding_window_inference(
            batch, (patch,) * 3, 1, _telling(run, pieces), overlap, mode="gaussian"
        )
        return joined  # type: ignore[no-any-return]

    mirrored = [
        [axis + 2 for axis in chosen]
        for count in range(len(axes) + 1)
        for chosen in combinations(axes, count)
    ]
    found = [whole(volume[None].flip(dims)).flip(dims)[0] for dims in mirrored]
    return torch.stack(found).mean(0)


def _pieces_of(shape: Sequence[int], patch: int, overlap: float) -> int:
    """How many pieces a volume is read in, as MONAI's sliding window steps through it."""
    step = int(patch * (1.0 - overlap))
    return prod(max(0, ceil((n - patch) / step)) + 1 for n in shape)


def _telling(
    run: Callable[[torch.Tensor], torch.Tensor], pieces: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same network, which tells the log now and then how many pieces it has seen."""
    seen, told = 0, time.monotonic()

    def one(batch: torch.Tensor) -> torch.Tensor:
        nonlocal seen, told
        found = run(batch)
        seen += len(batch)
        if time.monotonic() - told > TELL_AFTER_S:
            told = time.monotonic()
            LOG.info("seen %d of %d pieces", seen, pieces)
        return found

    return one


def largest_component(probability: torch.Tensor) -> torch.Tensor:
    """The probability (x, y, z) within the largest piece where it is over a half; else zero.

    Voxels that touch by a corner belong together: in large ones a canal is hardly wider than one.
    """
    likely = (probability > 0.5).cpu().numpy()
    kept = torch.zeros_like(probability)
    if not likely.any():
        return kept
    # In the box that holds all of it: an image of a head has a thousand times as many voxels.
    box = box_around(likely, (0, 0, 0))
    pieces, _ = ndimage.label(likely[box], np.ones((3, 3, 3)))
    largest = int(np.bincount(pieces.ravel())[1:].argmax()) + 1
    kept[box] = probability[box] * torch.from_numpy(pieces == largest).to(probability.device)
    return kept
