"""Cases that are there under two names: one could be learned from and the other tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine

from hydrops.arrays import Values
from hydrops.errors import HydropsError
from hydrops.images import box_around

if TYPE_CHECKING:
    from hydrops.model.cases import Case

#: Voxels of an image that are looked at before all of them are, about.
LOOKED_AT = 4096
#: Farthest apart that voxels of one image may be once scaled, standard deviations: a copy may have
#: been rounded anew. Noise alone sets two images farther apart.
SAME_LEVEL = 0.01
#: Farthest apart that one place may be written in two headers, mm.
SAME_PLACE_MM = 1e-3


@dataclass(frozen=True)
class _Trace:
    """A case, and the little of it that tells most others apart.

    `sample` are some scaled voxels; `drawn` is the label within its own box, which begins at the
    voxel `begin`, in RAS mm `place`.
    """

    case: Case
    sample: Values
    drawn: npt.NDArray[np.bool_]
    begin: tuple[int, ...]
    place: Values

    @staticmethod
    def of(case: Case) -> _Trace:
        """What tells a case apart."""
        box = box_around(case.label, (0, 0, 0))
        begin = tuple(side.start for side in box)
        return _Trace(
            case,
            _scaled(case.image.flat[:: max(1, case.image.size // LOOKED_AT)]),
            case.label[box],
            begin,
            apply_affine(case.affine, begin),
        )


def refuse_twins(folder: Path, cases: Sequence[Case]) -> None:
    """Refuse two cases of one image, of one label, or of landmarks that are the same.

    Two images of one person may share label and landmarks, for they are in one part of a fold.

    Raises
    ------
    HydropsError
        Naming both, and what they share.
    """
    for one, other in combinations([_Trace.of(case) for case in cases], 2):
        names = f"{folder}: {one.case.name} and {other.case.name}"
        if _same_picture(one, other):
            raise HydropsError(
                f"{names} are one image, so it would be trained on and tested; keep one"
            )
        shared = _shared(one, other)
        if shared and one.case.owner != other.case.owner:
            raise HydropsError(
                f"{names} have the same {shared}, so they would be trained on and tested as two; "
                "keep one, or tell in persons.tsv that both are of one person"
            )


def _same_picture(one: _Trace, other: _Trace) -> bool:
    """Whether both images are the same but for gain and offset."""
    first, second = one.case.image, other.case.image
    return (
        first.shape == second.shape
        and np.allclose(one.sample, other.sample, rtol=0.0, atol=SAME_LEVEL)
        and np.allclose(_scaled(first), _scaled(second), rtol=0.0, atol=SAME_LEVEL)
    )


def _scaled(values: npt.NDArray[np.floating]) -> Values:
    """Zero mean and unit standard deviation; all zero where all are the same."""
    centred = values.astype(float) - values.mean(dtype=float)
    return np.asarray(centred / (centred.std() or 1.0))


def _shared(one: _Trace, other: _Trace) -> str:
    """What a person has placed or drawn in both cases, and would not do twice alike; else empty.

    Where there are landmarks, they tell it. A label is the same where slices were cut off as well.
    """
    if len(one.case.landmarks):
        same = np.array_equal(one.case.landmarks, other.case.landmarks)
        return "landmarks" if same else ""
    in_one_place = one.begin == other.begin or np.allclose(
        one.place, other.place, rtol=0.0, atol=SAME_PLACE_MM
    )
    return "label" if in_one_place and np.array_equal(one.drawn, other.drawn) else ""
