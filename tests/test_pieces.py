"""What of a network's fluid is kept as labyrinth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrops.errors import ExcludedError
from hydrops.labels import perilymph_code
from hydrops.model.pieces import keep_labyrinth, without_rims

SHAPE = (30, 30, 10)
#: A turn of the cochlea, and a piece above it.
TURN = (slice(5, 15), slice(5, 15), slice(2, 5))
ABOVE = (slice(12, 14), slice(12, 14), slice(5, 6))


def test_only_the_largest_piece_and_its_rim_are_kept() -> None:
    probabilities = np.zeros((7, 40, 40, 40), np.float32)
    probabilities[1, 10:20, 10:20, 10:20] = 1.0
    probabilities[1, 20, 10:20, 10:20] = 0.3
    probabilities[3, 30:34, 30:34, 30:34] = 1.0
    probabilities[0] = 1.0 - probabilities[1:].sum(0)
    kept = keep_labyrinth(probabilities)
    assert kept[1].sum() == pytest.approx(1000 + 30)
    assert kept[3].sum() == 0.0
    assert np.allclose(kept.sum(0), 1.0)
    with pytest.raises(ExcludedError, match="no inner ear"):
        keep_labyrinth(probabilities * (np.arange(7) == 3)[:, None, None, None])


def an_ear(organ: str = "cochlea") -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """MRC and fractions of a turn, and of a dim piece above it at the edge of a bright canal."""
    fractions = np.zeros((7, *SHAPE), np.float32)
    fractions[perilymph_code("cochlea")][TURN] = 1.0
    fractions[perilymph_code(organ)][ABOVE] = 0.7
    fractions[perilymph_code(organ), 11, 12:14, 5] = 0.3
    fractions[0] = 1.0 - fractions[1:].sum(0)
    mrc = np.zeros(SHAPE, np.float32)
    mrc[TURN] = 1.0
    mrc[ABOVE] = 0.7
    mrc[14:20, 10:16, 5:9] = 1.2
    return mrc, fractions


@given(st.floats(1e-3, 1e4))
def test_the_rim_of_brighter_fluid_is_no_turn_of_the_cochlea(scale: float) -> None:
    mrc, fractions = an_ear()
    kept = without_rims(np.float32(scale) * mrc, fractions)
    assert (kept[0, ..., 5] == 1.0).all()
    assert np.array_equal(kept[..., :5], fractions[..., :5])
    assert np.allclose(kept.sum(0), 1.0)


def test_what_stands_alone_in_bone_is_kept() -> None:
    mrc, fractions = an_ear()
    mrc[14:20] = 0.0
    assert np.array_equal(without_rims(mrc, fractions), fractions)


def test_what_is_brighter_than_the_fluid_beside_it_is_kept() -> None:
    mrc, fractions = an_ear()
    mrc[ABOVE] = 1.3
    assert np.array_equal(without_rims(mrc, fractions), fractions)


def test_canals_are_kept_whatever_runs_along_them() -> None:
    mrc, fractions = an_ear("semicircular_canals")
    assert np.array_equal(without_rims(mrc, fractions), fractions)


def test_a_turn_beside_the_internal_auditory_canal_is_kept() -> None:
    mrc, fractions = an_ear()
    mrc[15:20, 10:16] = 1.2
    kept = without_rims(mrc, fractions)
    assert np.array_equal(kept[..., :5], fractions[..., :5])
