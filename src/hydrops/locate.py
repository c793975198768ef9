"""Locate both inner ears in a head and cut a crop around each.

A labyrinth is told by what holds in every head: fluid of a certain shape and size, brighter than
the dense bone around it. A mean labyrinth in a dark shell, in several tilts, is correlated with
the MRC; of the places that match, the pair is taken that lies as two ears do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation

from hydrops.errors import ExcludedError
from hydrops.images import (
    Affine,
    FloatGrid,
    coarsest_voxel_mm,
    corners_of,
    crop_affine,
    crop_image,
    load_image,
    read_itk_transform,
    resample,
    save_image,
    spacing_mm,
)
from hydrops.labels import SIDES
from hydrops.paths import SUM_MI2, Paths, Unit
from hydrops.phantom.anatomy import Ear, draw_ear, mirrored
from hydrops.records import CSF_RATIO, VOXEL_MM, StageResult, read_record
from hydrops.register import MOVING_ROLES, MRC_WEIGHT, combine

#: Voxel of the search, mm, and radius of the ball that is correlated, mm.
STEP_MM = 1.25
REACH_MM = 11.0
#: Tilts of the template about the x, y and z axis, degrees.
TILTS = ((0, 0, 0), (15, 0, 0), (-15, 0, 0), (0, 15, 0), (0, -15, 0), (0, 0, 15), (0, 0, -15))


@dataclass(frozen=True)
class LocateOptions:
    """What counts as an ear and as a pair.

    Parameters
    ----------
    combination
        How HYDROPS is made, as in `hydrops.register.RegisterOptions`.
    min_score
        Least correlation of one ear with the mean labyrinth.
    distance_mm
        Least and largest distance of a pair.
    max_slope_deg
        Largest angle between the line through both ears and the left-right axis.
    margin_mm
        Least distance of an ear's centre from the edge of the image: nearer, and part of the
        labyrinth is cut off.
    """

    combination: str = "PPI-PEI"
    min_score: float = 0.45
    distance_mm: tuple[float, float] = (58.0, 95.0)
    max_slope_deg: float = 32.0
    margin_mm: float = 9.0


@dataclass(frozen=True)
class Found:
    """Centres (RAS mm) and correlation of the ears that were found, by side."""

    centres: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)


def locate_session(unit: Unit, paths: Paths, options: LocateOptions, output: Path) -> StageResult:
    """Find the ears of a session and write the crop of each image around each ear.

    Every crop is interpolated once from the ingested image, through its transform.

    Raises
    ------
    ExcludedError
        If the MRC cannot be read or shows no inner ear.
    """
    mrc, affine = load_image(paths.image(unit, "MRC"))
    found = find_ears(mrc, affine, options)
    result = StageResult()
    for side in SIDES:
        reason = _missing_reason(side, found, mrc.shape, affine, options)
        if reason is not None:
            result.excluded_sides[side] = reason
    kept = [side for side in SIDES if side not in result.excluded_sides]
    if not kept:
        raise ExcludedError("; ".join(result.excluded_sides.values()))
    roles = {}
    for role in MOVING_ROLES[options.combination]:
        image, image_affine = load_image(paths.image(unit, role))
        roles[role] = (image, image_affine, read_itk_transform(paths.transform(unit, role)))
    registered = read_record(paths.record("register", unit)).numbers
    for side in kept:
        grid = crop_affine(found.centres[side].tolist(), affine)
        crop = crop_image(mrc, affine, grid)
        save_image(output / paths.crop(unit, side, "MRC").name, crop, grid)
        moved = {role: crop_image(i, a, grid, t) for role, (i, a, t) in roles.items()}
        hydrops = combine(options.combination, crop, moved, registered.get(MRC_WEIGHT))
        if hydrops is not None:
            mi2 = np.asarray(hydrops * crop, np.float32)
            save_image(output / paths.crop(unit, side, "HYDROPSMi2").name, mi2, grid)
        if options.combination == "PPI-PEI":
            summed = np.asarray((moved["PPI"] + moved["PEI"]) * crop, np.float32)
            save_image(output / paths.crop(unit, side, SUM_MI2).name, summed, grid)
    # The crops of both sides have the same axes.
    voxel_mm = coarsest_voxel_mm(grid, affine, *(own for _, own, _ in roles.values()))
    result.numbers = {
        "centres_ras_mm": {s: [round(float(v), 3) for v in found.centres[s]] for s in kept},
        "score": {s: round(found.scores[s], 4) for s in kept},
        VOXEL_MM: [round(width, 4) for width in voxel_mm],
        CSF_RATIO: registered.get(CSF_RATIO),
    }
    return result


def find_ears(mrc: FloatGrid, affine: Affine, options: LocateOptions) -> Found:
    """Find the inner ears in an MRC of any grid.

    With one ear alone, its side is that of the template, left or right, that fits it better.
    """
    coarse, coarse_affine = _to_search_grid(mrc, affine)
    candidates = {
        side: _peaks(_correlation(coarse, side), coarse_affine, options.min_score) for side in SIDES
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


def _missing_reason(
    side: str, found: Found, shape: Sequence[int], affine: Affine, options: LocateOptions
) -> str | None:
    """Why a side cannot be used, or None if it can."""
    if side in found.centres:
        edge = _distance_to_edge(found.centres[side], shape, affine)
        if edge >= options.margin_mm:
            return None
        return f"the {side} inner ear is cut by the edge of the MRC's field of view"
    other = next(iter(found.centres), None)
    if other is None:
        return f"no {side} inner ear can be recognised in the MRC"
    across = -75.0 if side == "left" else 75.0
    expected = found.centres[other] + np.array([across, 0.0, 0.0])
    if _distance_to_edge(expected, shape, affine) < options.margin_mm:
        return f"the {side} inner ear lies outside the MRC's field of view"
    return f"the {side} inner ear cannot be recognised in the MRC, though the {other} one can"


def _distance_to_edge(
    point: npt.NDArray[np.float64], shape: Sequence[int], affine: Affine
) -> float:
    """Distance of a world point from the nearest face of a grid, mm, negative outside."""
    index = np.linalg.inv(affine)[:3] @ np.append(point, 1.0)
    inside = np.minimum(index + 0.5, np.asarray(shape) - 0.5 - index)
    return float((inside * spacing_mm(affine)).min())


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
    grid = np.ogrid[-half : half + 1, -half : half + 1, -half : half + 1]
    return np.asarray(sum(g**2 for g in grid) <= (REACH_MM / STEP_MM) ** 2)


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
    options: LocateOptions,
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
