"""Cut a crop around each inner ear of a head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hydrops.arrays import Affine
from hydrops.ears import MOST_OUTSIDE, Found, SearchOptions, find_ears, share_outside
from hydrops.errors import ExcludedError
from hydrops.images import (
    coarsest_voxel_mm,
    crop_affine,
    crop_image,
    distance_to_edge,
    load_image,
    read_itk_transform,
    save_image,
)
from hydrops.labels import SIDES
from hydrops.paths import SUM_MI2, Paths, Unit
from hydrops.protocol import MOVING_ROLES
from hydrops.records import CSF_RATIO, SHARE_KEPT, VOXEL_MM, StageResult, read_record
from hydrops.register import MRC_WEIGHT, combine
from hydrops.sampling import share_kept


@dataclass(frozen=True)
class LocateOptions(SearchOptions):
    """What counts as an ear, as a pair, and as whole.

    Parameters
    ----------
    combination
        How HYDROPS is made, as in `hydrops.register.RegisterOptions`.
    margin_mm
        Least distance of an ear's centre from the edge of the image: nearer, and part of the
        labyrinth is cut off.
    """

    combination: str = "PPI-PEI"
    margin_mm: float = 9.0


def locate_session(unit: Unit, paths: Paths, options: LocateOptions, output: Path) -> StageResult:
    """Find the ears of a session and write the crop of each image around each ear.

    Every crop is interpolated once from the ingested image, through its transform.

    Raises
    ------
    ExcludedError
        If the MRC cannot be read, or no inner ear is shown by all images.
    """
    mrc, affine = load_image(paths.image(unit, "MRC"))
    found = find_ears(mrc, affine, options)
    result = StageResult()
    for side in SIDES:
        reason = missing_reason(side, found, mrc.shape, affine, options)
        if reason is not None:
            result.excluded_sides[side] = reason
    kept = [side for side in SIDES if side not in result.excluded_sides]
    if not kept:
        raise ExcludedError.of_ears(result.excluded_sides, "no ear was found")
    roles = {}
    for role in MOVING_ROLES[options.combination]:
        image, image_affine = load_image(paths.image(unit, role))
        roles[role] = (image, image_affine, read_itk_transform(paths.transform(unit, role)))
    registered = read_record(paths.record("register", unit)).numbers
    others = [np.linalg.inv(transform) @ own for _, own, transform in roles.values()]
    fields = [(role, image.shape, own) for (role, (image, _, _)), own in zip(roles.items(), others)]
    for side in kept:
        if cutting := image_that_cuts(side, found.centres[side], fields):
            result.excluded_sides[side] = (
                f"the {side} inner ear is cut by the edge of the {cutting}'s field of view"
            )
    kept = [side for side in kept if side not in result.excluded_sides]
    if not kept:
        raise ExcludedError.of_ears(result.excluded_sides, "no ear was found")
    shares: dict[str, float] = {}
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
        shares[side] = round(share_kept(mrc, affine, grid, others), 5)
    # The crops of both sides have the same axes.
    voxel_mm = coarsest_voxel_mm(grid, affine, *(own for _, own, _ in roles.values()))
    result.numbers = {
        "centres_ras_mm": {s: [round(float(v), 3) for v in found.centres[s]] for s in kept},
        "score": {s: round(found.scores[s], 4) for s in kept},
        VOXEL_MM: [round(width, 4) for width in voxel_mm],
        CSF_RATIO: registered.get(CSF_RATIO),
        SHARE_KEPT: shares,
    }
    return result


def image_that_cuts(
    side: str,
    centre: npt.NDArray[np.float64],
    fields: Iterable[tuple[str, Sequence[int], Affine]],
) -> str | None:
    """Name of the first image that does not show all of an ear; None where all do.

    Parameters
    ----------
    centre
        RAS mm.
    fields
        Name, shape and affine of each image; names need not differ.
    """
    cuts = (
        name
        for name, shape, affine in fields
        if share_outside(side, centre, shape, affine) > MOST_OUTSIDE
    )
    return next(cuts, None)


def missing_reason(
    side: str, found: Found, shape: Sequence[int], affine: Affine, options: LocateOptions
) -> str | None:
    """Why a side cannot be used, or None if it can."""
    if side in found.centres:
        edge = distance_to_edge(found.centres[side], shape, affine)
        if edge >= options.margin_mm:
            return None
        return f"the {side} inner ear is cut by the edge of the MRC's field of view"
    other = next(iter(found.centres), None)
    if other is None:
        return f"no {side} inner ear can be recognised in the MRC"
    across = -75.0 if side == "left" else 75.0
    expected = found.centres[other] + np.array([across, 0.0, 0.0])
    if distance_to_edge(expected, shape, affine) < options.margin_mm:
        return f"the {side} inner ear lies outside the MRC's field of view"
    return f"the {side} inner ear cannot be recognised in the MRC, though the {other} one can"
