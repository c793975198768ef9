"""Where the ears of a CT lie: in a large image they are looked for, then seen from closer up.

In a first look at a large image much else is taken for labyrinth, some of it larger than an ear.
From closer up, where it fills the field as in the training, an ear is told from it by how much
labyrinth there is and by how surely its landmarks are found.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

from hydrops.arrays import Affine, FloatGrid
from hydrops.errors import ExcludedError
from hydrops.images import affine_of, voxel_mm3
from hydrops.model.ct_look import NO_EAR, Look
from hydrops.model.field import (
    Field,
    field_around,
    field_of,
    is_long,
    shown_field,
    without_metal,
)

LOG = logging.getLogger(__name__)
#: Image and affine to what a network makes of them.
Looking = Callable[[FloatGrid, Affine], Look]

#: How far from the middle of the largest piece of labyrinth there may be more of the same, mm.
EAR_RADIUS_MM = 12.0
#: How many places of a first look are seen from closer up, for each ear.
PLACES = 8
#: How often the middle of an ear is told anew, from a field around the one told before.
CLOSER_LOOKS = 2
#: How far from one ear the other is looked for, mm: adults' are 75 apart.
EARS_APART_MM = (45.0, 105.0)
#: Labyrinth beyond which a place is no more like an ear, mm3: about what a labyrinth holds.
LABYRINTH_MM3 = 200.0


def ear_fields(looking: Looking, image: FloatGrid, affine: Affine) -> Iterator[Field]:
    """The fields in which the ears of an image are to be seen: all of a small one, else each ear's.

    The first is that of the place most like an ear; the second that of the place most like an ear
    `EARS_APART_MM` from it, in any direction, where there is any, ear or not.

    Raises
    ------
    ExcludedError
        If nothing in a large image is taken for labyrinth.
    """
    whole = shown_field(image, affine)
    if not is_long(whole.image.shape, whole.affine):
        yield without_metal(whole)
        return
    LOG.info("looking for inner ears in %s voxels", " x ".join(map(str, whole.image.shape)))
    middles, sizes = _pieces(looking(whole.image, whole.affine))
    first = _most_like_an_ear(looking, whole, places(middles, sizes))
    yield first.field
    apart = np.linalg.norm(middles - first.centre, axis=1)
    other = (apart > EARS_APART_MM[0]) & (apart < EARS_APART_MM[1])
    if other.any():
        yield _most_like_an_ear(looking, whole, places(middles[other], sizes[other])).field


def places(middles: Affine, sizes: Affine) -> list[Affine]:
    """Where ears may lie, at most `PLACES`, told from pieces of labyrinth; the largest come first.

    A place is the middle of the largest piece and whatever lies within `EAR_RADIUS_MM` of it, for
    in a first look a canal may come off; the next is the same among the rest.

    Parameters
    ----------
    middles, sizes
        (n, 3) RAS mm and (n,) voxels of the pieces.
    """
    found: list[Affine] = []
    while len(sizes) and len(found) < PLACES:
        near = np.linalg.norm(middles - middles[sizes.argmax()], axis=1) < EAR_RADIUS_MM
        found.append(np.average(middles[near], axis=0, weights=sizes[near]))
        middles, sizes = middles[~near], sizes[~near]
    return found


def likeness(look: Look) -> float:
    """How much what was seen is like an ear, 0 to `LABYRINTH_MM3`.

    The volume of the labyrinth, as far as an ear has as much, times the geometric mean of the
    landmarks' confidences: in cavities that are no ear, a network may well find as much labyrinth,
    but hardly its landmarks.
    """
    volume = look.labyrinth.sum() * voxel_mm3(look.grid)
    return float(min(volume, LABYRINTH_MM3) * np.prod(look.shares) ** (1 / len(look.shares)))


@dataclass(frozen=True)
class _Place:
    """The field around a place, its middle (RAS mm), and how much it is like an ear."""

    field: Field
    centre: Affine
    likeness: float


def _most_like_an_ear(looking: Looking, whole: Field, centres: list[Affine]) -> _Place:
    found = [_closer(looking, whole, centre) for centre in centres]
    return max(found, key=lambda place: place.likeness)


def _closer(looking: Looking, whole: Field, centre: Affine) -> _Place:
    """A place whose middle is told anew, `CLOSER_LOOKS` times, from the field around it."""
    place = _Place(_narrowed(whole, centre), centre, 0.0)
    with suppress(ExcludedError):
        for _ in range(CLOSER_LOOKS):
            look = looking(place.field.image, place.field.affine)
            centre = look.inside().mean(0)
            place = _Place(_narrowed(whole, centre), centre, likeness(look))
    return place


def _narrowed(whole: Field, centre: Affine) -> Field:
    """The part of a field in which an ear is seen that has its middle at a point, RAS mm."""
    at = apply_affine(np.linalg.inv(whole.affine), centre)
    near = field_around(at, whole.image.shape, whole.affine)
    return without_metal(Field(whole.image[near], affine_of(near, whole.affine)))


def close_field(looking: Looking, field: Field) -> Field:
    """The part of an ear's field that holds the labyrinth and little else, told in `CLOSER_LOOKS`.

    Where air takes up most of the field, a network sees grey levels as it never learned them.
    """
    close = field
    with suppress(ExcludedError):
        for _ in range(CLOSER_LOOKS):
            close = field_of(looking(close.image, close.affine).inside(), field)
    return close


def _pieces(look: Look) -> tuple[Affine, Affine]:
    """Middle (n, 3), RAS mm, and size (n,), voxels, of each piece of labyrinth that was seen."""
    pieces, count = ndimage.label((look.probability > 0.5).cpu().numpy(), np.ones((3, 3, 3)))
    if not count:
        raise ExcludedError(NO_EAR)
    middles = ndimage.center_of_mass(pieces > 0, pieces, range(1, count + 1))
    return apply_affine(look.grid, middles), np.bincount(pieces.ravel())[1:].astype(float)
