"""Find both inner ears in a whole head.

A labyrinth is told by what holds in every head: fluid of a certain shape and size, brighter than
the dense bone around it. A mean labyrinth in a dark shell, in several tilts, is correlated with
the MRC; where it matches at all, it is turned and moved until it matches best; of the places that
match well, the pair is taken that lies as two ears do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation

from hydrops.arrays import Affine, FloatGrid
from hydrops.images import ball_around, corners_of, resample, spacing_mm
from hydrops.labels import SIDES
from hydrops.phantom.anatomy import Ear, draw_ear, mirrored

#: Voxel of the search, mm, and radius of the ball that is correlated, mm.
STEP_MM = 1.25
REACH_MM = 11.0
#: Tilts of the template about the x, y and z axis, degrees, that all of the image is searched in.
TILTS = ((0, 0, 0), (15, 0, 0), (-15, 0, 0), (0, 15, 0), (0, -15, 0), (0, 0, 15), (0, 0, -15))
#: Places of a side that are looked at more closely, and the least correlation there. Turned by 20
#: degrees against all tilts, a real ear has 0.38, and other places have as much as 0.48.
CLOSE_PLACES, CLOSE_SCORE = 24, 0.3
#: Steps by which a template is turned there, degrees, and moved, voxels of the search, until it
#: fits best, and the largest turn, degrees: a head's and, on top of it, an ear's own.
STEPS, MOST_TURN_DEG = ((12.0, 1.0), (6.0, 0.5), (3.0, 0.25)), 45.0
#: Steps of one size at most.
ROUNDS = 3
#: Least SD of the voxels in a ball that are taken for a match: a faint, flat region correlates with
#: anything by chance.
LEAST_SPREAD = 0.045
#: How far behind the best a place may be the ear: in a real image of one the next is 0.13 behind.
NEARLY_AS_GOOD = 0.1
#: Distance within which two places are the same ear, mm.
SAME_MM = 4.0

#: Places that match the template of a side, best first: RAS mm and the score of each, by side.
Candidates = Mapping[str, Sequence[tuple[npt.NDArray[np.float64], float]]]

#: Largest share of a mean labyrinth that may lie beyond the edge of the image (`share_outside`): of
#: ears cut 4 to 6 mm from their middle 0.03 to 0.29 does, but for the thin upper and lower ends.
MOST_OUTSIDE = 0.02


@dataclass(frozen=True)
class SearchOptions:
    """What counts as an ear and as a pair.

    Parameters
    ----------
    min_score
        Least correlation of an ear with the mean labyrinth, turned as it fits best. What is no ear
        has up to 0.53 in simulated heads, a real ear 0.62 to 0.65 however it is turned.
    min_score_beside
        The same of an ear that lies beside another one as two ears do.
    distance_mm
        Least and largest distance of a pair.
    max_slope_deg
        Largest angle between the line through both ears and the left-right axis.
    """

    min_score: float = 0.56
    min_score_beside: float = 0.48
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
    least = min(options.min_score, options.min_score_beside)
    return choose_ears(ear_candidates(mrc, affine, least), options)


def choose_ears(candidates: Candidates, options: SearchOptions) -> Found:
    """As `find_ears`, among candidates; those with too low a score are passed over."""
    pair = _best_pair(candidates["left"], candidates["right"], options)
    if pair is not None:
        return Found(
            {side: c[0] for side, c in zip(SIDES, pair)},
            {side: c[1] for side, c in zip(SIDES, pair)},
        )
    single = [(score, side, point) for side in SIDES for point, score in candidates[side]]
    single = [place for place in single if place[0] > options.min_score]
    if not single:
        return Found()
    score, side, point = max(single, key=lambda place: place[0])
    return Found({side: point}, {side: score})


def places_of_one(candidates: Candidates) -> list[tuple[str, npt.NDArray[np.float64]]]:
    """Where one ear may lie in an MRC that does not show two, the likeliest first: side, RAS mm.

    Those whose score is within `NEARLY_AS_GOOD` of the best.
    """
    found = [(score, side, point) for side in SIDES for point, score in candidates[side]]
    best = max((score for score, _, _ in found), default=0.0)
    likely = [place for place in found if place[0] > best - NEARLY_AS_GOOD]
    return [(side, point) for _, side, point in sorted(likely, key=lambda place: -place[0])]


def share_outside(
    side: str, centre: npt.NDArray[np.float64], shape: Sequence[int], affine: Affine
) -> float:
    """Share of a mean labyrinth that lies beyond the edge of an image, if its middle is here.

    Parameters
    ----------
    centre
        RAS mm.
    shape, affine
        The image's grid.
    """
    ear = _mean_ear() if side == "right" else mirrored(_mean_ear())
    fluid = np.argwhere(ear.labels > 0) * ear.spacing_mm + ear.origin_mm + centre
    voxels = apply_affine(np.linalg.inv(affine), fluid)
    beyond = (voxels < -0.5) | (voxels > np.array(shape) - 0.5)
    return float(beyond.any(axis=1).mean())


def ear_candidates(mrc: FloatGrid, affine: Affine, least_score: float) -> Candidates:
    """Places (RAS mm) that match the template of each side, with their scores, best first."""
    if not (mrc > 0).any():
        return {side: [] for side in SIDES}
    coarse, coarse_affine = _to_search_grid(mrc, affine)
    found: dict[str, list[tuple[npt.NDArray[np.float64], float]]] = {}
    for side in SIDES:
        peaks = _peaks(_correlation(coarse, side))
        fitted = sorted((_fitted(coarse, peak, side) for peak in peaks), key=lambda fit: -fit[1])
        places = found.setdefault(side, [])
        for index, score in fitted:
            point = apply_affine(coarse_affine, index)
            new = all(np.linalg.norm(point - other) > SAME_MM for other, _ in places)
            if new and score > least_score:
                places.append((point, score))
    return found


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
    spread = np.maximum(spread, LEAST_SPREAD * np.sqrt(ball.sum()))
    best = np.full(image.shape, -1.0, np.float32)
    for template in _templates(side):
        np.maximum(best, correlate(spectrum, template) / spread, out=best)
    return best


def _peaks(score: FloatGrid) -> npt.NDArray[np.intp]:
    """Voxels (n, 3) of the best local maxima of a correlation that are worth a closer look."""
    top = (ndimage.maximum_filter(score, size=7) == score) & (score > CLOSE_SCORE)
    return np.argwhere(top)[np.argsort(-score[top], kind="stable")[:CLOSE_PLACES]]


def _fitted(
    image: FloatGrid, peak: npt.NDArray[np.intp], side: str
) -> tuple[npt.NDArray[np.float64], float]:
    """Where near a peak the template of a side fits best, turned freely; voxel and correlation.

    One turn or move is tried after the other, and kept if it fits better.
    """
    ball = _ball()
    template, inside = _templates(side)[0][ball], np.argwhere(ball) - ball.shape[0] // 2

    def fit(turn: Rotation, place: npt.NDArray[np.float64]) -> float:
        seen = ndimage.map_coordinates(image, (turn.apply(inside) + place).T, order=1)
        seen = seen - seen.mean()
        least = LEAST_SPREAD * np.sqrt(len(seen))
        return float(seen @ template / max(float(np.linalg.norm(seen)), least))

    place = peak.astype(float)
    turns = [Rotation.from_euler("xyz", tilt, degrees=True) for tilt in TILTS]
    best, turn = max(((fit(turn, place), turn) for turn in turns), key=lambda tried: tried[0])
    directions = [sign * axis for axis in np.eye(3) for sign in (1.0, -1.0)]
    for degrees, voxels in STEPS:
        for _ in range(ROUNDS):
            before = best
            for direction in directions:
                turned = turn * Rotation.from_rotvec(degrees * direction, degrees=True)
                if np.rad2deg(turned.magnitude()) <= MOST_TURN_DEG:
                    score = fit(turned, place)
                    if score > best:
                        best, turn = score, turned
                score = fit(turn, place + voxels * direction)
                if score > best:
                    best, place = score, place + voxels * direction
            if best == before:
                break
    return place, best


def _best_pair(
    left: Sequence[tuple[npt.NDArray[np.float64], float]],
    right: Sequence[tuple[npt.NDArray[np.float64], float]],
    options: SearchOptions,
) -> tuple[tuple[npt.NDArray[np.float64], float], tuple[npt.NDArray[np.float64], float]] | None:
    """The pair with the best scores among those that lie as two ears do."""
    pairs = []
    for a in left:
        for b in right:
            scores = sorted((a[1], b[1]))
            if scores[0] <= options.min_score_beside or scores[1] <= options.min_score:
                continue
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
