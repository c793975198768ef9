"""What a dual-headed network makes of a CT, on the network's own grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from nibabel.affines import apply_affine
from scipy import ndimage

from hydrops.arrays import Affine, FloatGrid
from hydrops.errors import ExcludedError
from hydrops.images import box_around
from hydrops.labels import LANDMARKS
from hydrops.model.network import landmark_positions
from hydrops.model.whole import LARGEST_PIECE, largest_component, mirror_mean, to_network

#: Farthest that a landmark lies from the labyrinth, mm: twice what is seen in the specimens.
LANDMARK_REACH_MM = 1.5
#: Between helicotrema, oval and round window (first and second, first and third, second and third),
#: from and to, mm: the least and the most in the 14 specimens of the bony-labyrinth dataset (Wimmer
#: et al., Data in Brief 2019;27:104782), from 5.62 to 7.40 and from 2.55 to 3.21, and 0.5 more.
APART_MM = ((5.1, 7.6), (5.3, 7.9), (2.0, 3.7))
#: How far beyond that a distance lies which makes landmarks e^0.5 times less likely, mm.
APART_SD_MM = 0.5
#: Peaks of a heatmap that may be its landmark, and how far apart they are, voxels.
PEAKS, PEAKS_APART = 5, 2
#: Overlap of the pieces in which a large image is looked at, as a share of their edge.
PIECES_OVERLAP = 0.25
#: Why an image is excluded in which nothing is taken for a labyrinth.
NO_EAR = "the model finds no inner ear in the image"


@dataclass(frozen=True)
class Look:
    """What a network makes of an image.

    Parameters
    ----------
    probability
        (x, y, z) of the labyrinth, on `grid`.
    labyrinth
        (x, y, z) the largest piece of what is taken for labyrinth.
    grid
        Voxel to RAS mm.
    points
        Landmarks (3, 3), RAS mm, in the order of `hydrops.labels.LANDMARKS`.
    shares
        (3,) their confidences: the share of each heatmap at its peak.
    """

    probability: torch.Tensor
    labyrinth: npt.NDArray[np.bool_]
    grid: Affine
    points: Affine
    shares: npt.NDArray[np.float64]

    def inside(self) -> Affine:
        """Points (n, 3) of the labyrinth, RAS mm.

        Raises
        ------
        ExcludedError
            If there is none.
        """
        inside = np.argwhere(self.labyrinth)
        if not len(inside):
            raise ExcludedError(NO_EAR)
        return np.asarray(apply_affine(self.grid, inside))


@torch.inference_mode()
def look_at(
    network: torch.nn.Module,
    spacing_mm: float,
    image: FloatGrid,
    affine: Affine,
    mirrored: Sequence[int] = (),
) -> Look:
    """Run a network of both heads on an image of any orientation and voxel size.

    Parameters
    ----------
    network
        (n, 1, x, y, z) to logits (n, 2, ...) and heatmaps (n, 3, ...).
    spacing_mm
        Its voxel.
    mirrored
        Axes along which the image is seen mirrored as well, `hydrops.model.whole.mirror_mean`.
    """
    volume, grid = to_network(image, affine, spacing_mm)
    volume = volume.to(next(network.parameters()).device)
    run = partial(_both_heads, network)
    both = mirror_mean(run, volume, LARGEST_PIECE, mirrored, PIECES_OVERLAP)
    logits, heat = both[: -len(LANDMARKS)], both[-len(LANDMARKS) :]
    probability = torch.softmax(logits, dim=0)[1]
    labyrinth = (largest_component(probability) > 0.5).cpu().numpy()
    heat = _near(labyrinth, heat, spacing_mm)
    positions, shares = landmark_positions(heat, peaks=_likely_peaks(heat, spacing_mm))
    points = apply_affine(grid, positions.cpu().numpy())
    return Look(probability, labyrinth, grid, points, shares.cpu().numpy())


def odd_distances(landmarks: Mapping[str, Sequence[float]]) -> list[str]:
    """In words, the distances of an ear's landmarks (RAS mm by name) that are beyond `APART_MM`."""
    told = []
    for (one, other), (least, most) in zip(combinations(LANDMARKS, 2), APART_MM):
        apart = float(np.linalg.norm(np.subtract(landmarks[one], landmarks[other])))
        if not least <= apart <= most:
            names = " and ".join(name.replace("_", " ") for name in (one, other))
            told.append(f"{names} {apart:.1f} mm apart, usually {least:g} to {most:g}")
    return told


def _near(labyrinth: npt.NDArray[np.bool_], heat: torch.Tensor, spacing_mm: float) -> torch.Tensor:
    """Heatmaps (landmarks, x, y, z) without what lies far from the labyrinth that was found."""
    if not labyrinth.any():
        return heat
    # In the box that is near enough: distances in an image of a head would take gigabytes.
    box = box_around(labyrinth, (LANDMARK_REACH_MM / spacing_mm,) * 3)
    distance = ndimage.distance_transform_edt(~labyrinth[box], sampling=spacing_mm)
    near = np.zeros(labyrinth.shape, bool)
    near[box] = distance <= LANDMARK_REACH_MM
    return heat.masked_fill(torch.from_numpy(~near).to(heat.device), float("-inf"))


def _likely_peaks(heat: torch.Tensor, spacing_mm: float) -> torch.Tensor:
    """Voxels (3, 3) of the peaks of heatmaps (3, x, y, z) that are likeliest together.

    A heatmap may have a second peak almost as high; the landmarks' distances tell which is right.
    """
    found = [_peaks(channel) for channel in torch.log_softmax(heat.flatten(1), 1).view_as(heat)]
    first, second, third = (heights for _, heights in found)
    likely = first[:, None, None] + second[:, None] + third
    for (one, other), (least, most) in zip(combinations(range(3), 2), APART_MM):
        between = found[one][0][:, None] - found[other][0]
        apart = spacing_mm * np.linalg.norm(between, axis=2)
        beyond = np.maximum(np.maximum(least - apart, apart - most), 0.0) / APART_SD_MM
        likely = likely - np.expand_dims(beyond**2 / 2, 3 - one - other)
    best = np.unravel_index(likely.argmax(), likely.shape)
    return torch.from_numpy(np.array([place[at] for (place, _), at in zip(found, best)]))


def _peaks(heat: torch.Tensor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Voxels (n, 3) and heights (n,) of a heatmap's peaks, the highest first, at most `PEAKS`."""
    values = heat.double().cpu().numpy()
    highest = ndimage.maximum_filter(values, 2 * PEAKS_APART + 1, mode="nearest")
    voxels = np.argwhere((values == highest) & np.isfinite(values))
    heights = values[tuple(voxels.T)]
    order = np.argsort(-heights, kind="stable")[:PEAKS]
    return voxels[order], heights[order]


def _both_heads(network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return torch.cat([part.float() for part in network(batch)], dim=1)
