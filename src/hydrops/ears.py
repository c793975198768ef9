"""Find both inner ears in a whole head.

A labyrinth is told by what holds in every head: fluid of a certain shape and size, brighter than
the dense bone around it. A mean labyrinth in a dark shell, in several tilts, is correlated with
the MRC; of the places that match, the pair is taken that lies as two ears do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation

from hydrops.images import Affine, FloatGrid, ball_around, corners_of, resample, spacing_mm
from hydrops.labels import SIDES
from hydrops.phantom.anatomy import Ear, draw_ear, mirrored

#: Voxel of the search, mm, and radius of the ball that is correlated, mm.
STEP_MM = 1.25
REACH_MM = 11.0
#: Tilts of the template about the x, y and z axis, degrees.
TILTS = ((0, 0, 0), (15, 0, 0), (-15, 0, 0), (0, 15, 0), (0, -15, 0), (0, 0, 15), (0, 0, -15))


#: Places that match the template of a side, best first: RAS mm and the score of each, by side.
Candidates = Mapping[str, Sequence[tuple[npt.NDArray[np.float64], float]]]


@dataclass(frozen=True)
class SearchOptions:
    """What counts as an ear and as a pair.

    Parameters
    ----------
    min_score
        Least correlation of one ear with the mean labyrinth.
    distance_mm
        Least and largest distance of a pair.
    max_slope_deg
        Largest angle between the line through both ears and the left-right axis.
    """

    min_score: float = 0.45
    distance_mm: tuple[float, float] = (58.0, 95.0)
    max_slope_deg: float = 32.0


@dataclass(frozen=True)
class Found:
    """Centres (RAS mm) and correlation of the ears that were found, by side."""

    centres: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)


def find_ears(mrc: FloatGrid, affine: Affine, options: SearchOptions) -> Found:
    """Find the inner ears in an MRC of any grid.

    With one ear alone, its side is that of the template, left or right, that fits it better.
    """
    return choose_ears(ear_candidates(mrc, affine, options.min_score), options)


def choose_ears(candidates: Candidates, options: SearchOptions) -> Found:
    """As `find_ears`, among candidates; those with too low a score are passed over."""
    candidates = {
        side: [place for place in places if place[1] > options.min_score]
        for side, places in candidates.items()
    }
    pair = _best_pair(candidates["left"], candidates["right"], options)
    if pair is not None:
        return Found(
            {side: c[0] for side, c in zip(SIDES, pair)},
            {side: c[1] for side, c in zip(SIDES, pair)},
        )
    single = [(score, side, point) for side in SIDES for point, score in candidates[side]]
    if not single:
        return Found()
    score, side, point = max(single, key=lambda item: item[0])
    return Found({side: point}, {side: score})


def places_of_one(candidates: Candidates) -> list[tuple[str, npt.NDArray[np.float64]]]:
    """Where one ear may lie in an MRC that does not show two, the likeliest first: side, RAS mm."""
    found = [(score, side, point) for side in SIDES for point, score in candidates[side]]
    return [(side, point) for _, side, point in sorted(found, key=lambda place: -place[0])]


def ear_candidates(mrc: FloatGrid, affine: Affine, least_score: float) -> Candidates:
    """Places (RAS mm) that match the template of each side, with their scores, best first."""
    if not (mrc > 0).any():
        return {side: [] for side in SIDES}
    coarse, coarse_affine = _to_search_grid(mrc, affine)
    return {side: _peaks(_correlation(coarse, side), coarse_affine, least_score) for side in SIDES}


def _to_search_grid(data: FloatGrid, affine: Affine) -> tuple[FloatGrid, Affine]:
    """The MRC on RAS axes with `STEP_MM` voxels, fluid at 1, brighter clipped."""
    world = corners_of(data.shape, affine)
    low, high = world.min(0) - 6.0, world.max(0) + 6.0
    shape = tuple(np.ceil((high - low) / STEP_MM).astype(int) + 1)
    grid = np.diag([STEP_MM] * 3 + [1.0])
    grid[:3, 3] = low
    width = 0.4 * STEP_MM / spacing_mm(affine)
    smooth = ndimage.gaussian_filter(data, width, truncate=2.5)
    coarse = resample(smooth, affine, shape, grid, order=1)
    bright = max(float(np.percentile(coarse[coarse > 0], 99.0)), 1e-9)
    return np.clip(coarse / bright, 0.0, 1.0), grid


@cache
def _mean_ear() -> Ear:
    return draw_ear(np.random.default_rng(0), "right", variation=0.0)


@cache
def _templates(side: str) -> tuple[FloatGrid, ...]:
    """The mean ear's fluid minus the shell around it, in each tilt, zero mean and unit norm."""
    ear = _mean_ear() if side == "right" else mirrored(_mean_ear())
    half = int(np.ceil(REACH_MM / STEP_MM))
    axis = np.arange(-half, half + 1) * STEP_MM
    ball = _ball()
    made = []
    fluid = ndimage.gaussian_filter(
        (ear.labels > 0).astype(np.float32), 0.5 * STEP_MM / ear.spacing_mm
    )
    for tilt in TILTS:
        turn = Rotation.from_euler("xyz", tilt, degrees=True).as_matrix().T
        start = (turn @ np.full(3, axis[0]) - ear.origin_mm) / ear.spacing_mm
        template = ndimage.affine_transform(
            fluid, turn * STEP_MM / ear.spacing_mm, start, output_shape=ball.shape, order=1
        )
        template = (template - template[ball].mean()) * ball
        made.append(np.asarray(template / np.linalg.norm(template), np.float32))
    return tuple(made)


def _ball() -> npt.NDArray[np.bool_]:
    half = int(np.ceil(REACH_MM / STEP_MM))
    steps = np.diag([STEP_MM] * 3 + [1.0])
    return ball_around([half * STEP_MM] * 3, REACH_MM, [2 * half + 1] * 3, steps)


def _correlation(image: FloatGrid, side: str) -> FloatGrid:
    """Normalised correlation of the image with the best-fitting tilt, at each voxel."""
    ball = _ball()
    reach = ball.shape[0] // 2
    shape = [fft.next_fast_len(n + 2 * reach, real=True) for n in image.shape]

    def transform(data: FloatGrid) -> npt.NDArray[np.complex64]:
        return np.asarray(fft.rfftn(data, shape), np.complex64)

    def correlate(spectrum: npt.NDArray[np.complex64], kernel: FloatGrid) -> FloatGrid:
        full = fft.irfftn(spectrum * transform(kernel[::-1, ::-1, ::-1]), shape)
        middle = tuple(slice(reach, reach + n) for n in image.shape)
        return np.asarray(full[middle], np.float32)

    spectrum = transform(image)
    window = ball.astype(np.float32)
    total = correlate(spectrum, window)
    square = correlate(transform(image**2), window)
    spread = np.sqrt(np.maximum(square - total**2 / ball.sum(), 0.0))
    # A faint, flat region correlates with anything by chance.
    spread = np.maximum(spread, 0.15 * np.sqrt(ball.sum()) * 0.3)
    best = np.full(image.shape, -1.0, np.float32)
    for template in _templates(side):
        np.maximum(best, correlate(spectrum, template) / spread, out=best)
    return best


def _peaks(
    score: FloatGrid, affine: Affine, least: float, most: int = 12
) -> list[tuple[npt.NDArray[np.float64], float]]:
    """Local maxima above a score, best first, to a fraction of a voxel, as world points."""
    top = (ndimage.maximum_filter(score, size=7) == score) & (score > least)
    index = np.argwhere(top)
    order = np.argsort(-score[top], kind="stable")[:most]
    peaks = []
    for place in index[order]:
        offset = np.zeros(3)
        for axis in range(3):
            line = [
                score[
                    tuple(
                        np.clip(
                            place + np.eye(3, dtype=int)[axis] * d, 0, np.array(score.shape) - 1
                        )
                    )
                ]
                for d in (-1, 0, 1)
            ]
            curvature = line[0] - 2 * line[1] + line[2]
            if curvature < 0:
                offset[axis] = np.clip(0.5 * (line[0] - line[2]) / curvature, -0.5, 0.5)
        world = affine[:3, :3] @ (place + offset) + affine[:3, 3]
        peaks.append((world, float(score[tuple(place)])))
    return peaks


def _best_pair(
    left: Sequence[tuple[npt.NDArray[np.float64], float]],
    right: Sequence[tuple[npt.NDArray[np.float64], float]],
    options: SearchOptions,
) -> tuple[tuple[npt.NDArray[np.float64], float], tuple[npt.NDArray[np.float64], float]] | None:
    """The pair with the best scores among those that lie as two ears do."""
    pairs = []
    for a in left:
        for b in right:
            line = b[0] - a[0]
            distance = float(np.linalg.norm(line))
            slope = np.rad2deg(np.arccos(np.clip(line[0] / max(distance, 1e-9), -1.0, 1.0)))
            low, high = options.distance_mm
            if low <= distance <= high and slope <= options.max_slope_deg:
                pairs.append((a[1] + b[1], a, b))
    if not pairs:
        return None
    _, a, b = max(pairs, key=lambda pair: pair[0])
    return a, b
