"""What the pure voxels of an ear tell: perilymph of unequal brightness, made equal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hydrops.arrays import FloatGrid
from hydrops.errors import ExcludedError
from hydrops.model.pure import (
    LEAST_ALIKE,
    LEAST_SURE,
    SURE,
    PureVoxels,
    evened_canals,
    mean_of,
)
from hydrops.model.unfold import Unfolded
from hydrops.phantom.signal import USUAL_FLUIDS, Fluids, draw_fluids
from pair import given_images

SHAPE = (30, 32, 16)
#: Share of endolymph in the canals.
CANALS = 0.15
#: Half of an interval that is given with a ratio, where nothing was moved.
NARROWEST = 0.04
ORGANS = {"cochlea": 1, "vestibule": 3, "canals": 5}


def an_ear(canals: float = CANALS) -> FloatGrid:
    """Fractions of a cochlea and a vestibule in which endolymph grows along an axis, and canals."""
    fluid = np.zeros(SHAPE, np.float32)
    fluid[3:27, 3:29, 3:13] = 1.0
    fluid = ndimage.uniform_filter(fluid, 3)
    along = np.clip((np.arange(30.0) - 9.0) / 12.0, 0.0, 1.0)[:, None, None]
    y = np.broadcast_to(np.arange(SHAPE[1])[:, None], SHAPE)
    fractions = np.zeros((7, *SHAPE), np.float32)
    for code, part, share in ((1, y < 12, along), (3, (y >= 12) & (y < 21), along),
                              (5, y >= 21, canals)):  # fmt: skip
        fractions[code], fractions[code + 1] = fluid * part * (1.0 - share), fluid * part * share
    fractions[0] = 1.0 - fluid
    return fractions


def share_of(fractions: FloatGrid) -> FloatGrid:
    """Share of endolymph in the fluid."""
    fluid = fractions[1:].sum(0)
    whole = np.maximum(fluid, 1e-6)
    return np.asarray(np.where(fluid > 0, fractions[2::2].sum(0) / whole, 0.0), np.float32)


def share_of_all(fractions: FloatGrid) -> float:
    """Share of endolymph in the whole of the fluid."""
    return float(fractions[2::2].sum() / fractions[1:].sum())


def channels_of(fractions: FloatGrid, second: npt.NDArray[np.floating]) -> FloatGrid:
    """Channels of an ear in bone that gives no signal, of which the second is given."""
    return np.stack([1.0 - fractions[0], second, np.ones(SHAPE)]).astype(np.float32)


def read(fractions: FloatGrid, fluids: Fluids, evened: bool = True) -> FloatGrid:
    """Share of endolymph that PPI and PEI show, by a network that knows where all lies."""
    mi2, summed, channels = given_images(fluids, fractions)
    pure = PureVoxels.of(channels[0], fractions)
    seen = Unfolded.of(mi2, summed, channels[0], pure).channels(channels)
    if evened:
        seen, _ = evened_canals(pure.evened(seen), fractions)
    return np.asarray((1.0 - seen[1]) / 2.0)


def full_of(fractions: FloatGrid, organ: str) -> npt.NDArray[np.bool_]:
    """Voxels that hold nothing but an organ."""
    code = ORGANS[organ]
    return fractions[code : code + 2].sum(0) > 0.99


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.floats(0.8, 1.25), st.floats(0.5, 1.3))
def test_gadolinium_that_reached_one_organ_more_than_another_leaves_the_share(
    seed: int, cochlea: float, canals: float
) -> None:
    fractions = an_ear()
    drawn = draw_fluids(np.random.default_rng(seed))
    shares = read(fractions, replace(drawn, uptake=(cochlea, 1.0, canals)))
    for organ in ORGANS:
        error = (shares - share_of(fractions))[full_of(fractions, organ)].mean()
        assert error == pytest.approx(0.0, abs=0.12 if organ == "canals" else 0.06)


@pytest.mark.parametrize(("organ", "reached"), [("cochlea", 0.7), ("canals", 0.6)])
def test_without_it_an_organ_that_was_reached_less_looks_hydropic(
    organ: str, reached: float
) -> None:
    fractions = an_ear()
    uptake = tuple(reached if name == organ else 1.0 for name in ORGANS)
    fluids = replace(draw_fluids(np.random.default_rng(1)), uptake=uptake)
    errors = [
        (read(fractions, fluids, evened) - share_of(fractions))[full_of(fractions, organ)].mean()
        for evened in (False, True)
    ]
    assert errors[0] > 0.3 * (1.0 - reached)
    assert abs(errors[1]) < 0.5 * errors[0]


@given(st.floats(0.05, 0.5), st.floats(-0.08, 0.08))
def test_canals_that_show_what_the_network_finds_stay_as_they_are(
    canals: float, apart: float
) -> None:
    fractions = an_ear(canals)
    seen = 1.0 - 2.0 * share_of(an_ear(canals + apart))
    channels = channels_of(fractions, seen)
    evened, moved = evened_canals(channels, fractions)
    assert np.allclose(evened, channels, atol=0.02)
    assert moved < 0.01
    others = fractions[5] + fractions[6] == 0
    assert np.allclose(evened[1][others], channels[1][others], atol=1e-6)


@given(st.floats(0.05, 0.25), st.floats(0.2, 0.6))
def test_what_canals_are_moved_by_covers_what_that_may_be_wrong_by(
    network: float, uptake: float
) -> None:
    truth = an_ear()
    seen = (1.0 - 2.0 * share_of(truth) + 1.0) * np.where(truth[5:].sum(0) > 0, uptake, 1.0) - 1.0
    channels = channels_of(truth, seen)
    evened, moved = evened_canals(channels, an_ear(network))
    fluid = truth[1:].sum(0)
    found = (fluid * (0.5 - 0.5 * evened[1])).sum() / fluid.sum()
    assert abs(found - share_of_all(truth)) <= moved + NARROWEST


@settings(max_examples=25, deadline=None)
@given(st.floats(0.6, 0.95), st.floats(-1.0, 1.0))
def test_the_doubt_covers_what_a_network_is_wrong_by_where_no_endolymph_is_pure(
    told: float, wrong: float
) -> None:
    whole = an_ear()
    held = told + wrong * (SURE - told)
    truth, network = (_with_share(whole, held), _with_share(whole, told))
    mi2, summed, channels = given_images(USUAL_FLUIDS, truth)
    pure = PureVoxels.of(channels[0], network)
    shown = (1.0 - Unfolded.of(mi2, summed, channels[0], pure).channels(channels)[1]) / 2.0
    fluid = truth[1:].sum(0)
    found = float((fluid * shown).sum() / fluid.sum())
    doubt = pure.doubt(found)
    assert doubt > 0.0
    assert abs(found - share_of_all(truth)) <= doubt + NARROWEST


def test_a_network_that_is_sure_of_endolymph_leaves_no_doubt() -> None:
    fractions = an_ear()
    assert PureVoxels.of(1.0 - fractions[0], fractions).doubt(0.5) == 0.0


def _with_share(fractions: FloatGrid, most: float) -> FloatGrid:
    """Fractions of an ear in which endolymph is at most a share of the fluid."""
    changed = fractions.copy()
    changed[1::2] += (1.0 - most) * fractions[2::2]
    changed[2::2] *= most
    return changed


@given(st.floats(0.3, 1.0), st.floats(0.75, 1.3), st.integers(0, 2**16))
def test_both_parts_are_brought_to_one_level_and_endolymph_stays(
    cochlea: float, vestibule_of_it: float, seed: int
) -> None:
    fractions = an_ear()
    vestibule = vestibule_of_it * cochlea
    levels = np.where(fractions[1] + fractions[2] > 0, cochlea, vestibule)
    seen = 1.0 - share_of(fractions) * 2.0
    seen = np.where(seen > -1.0, (seen + 1.0) * levels - 1.0, seen)
    noise = np.random.default_rng(seed).normal(0.0, 0.05, SHAPE)
    channels = channels_of(fractions, seen + noise)
    pure = PureVoxels.of(channels[0], fractions)
    evened = pure.evened(channels)
    inside = pure.cochlea > 0.5
    parts = [mean_of(evened[1], pure.perilymph & part) for part in (inside, ~inside)]
    assert parts[0] == pytest.approx(parts[1], abs=0.06 * max(cochlea, vestibule))
    assert mean_of(evened[1], pure.endolymph) == pytest.approx(-1.0, abs=0.02)
    assert np.array_equal(evened[[0, 2]], channels[[0, 2]])


@given(
    st.sampled_from([("cochlea", (1,)), ("vestibule", (3, 5))]),
    st.floats(0.05, 0.9 * LEAST_ALIKE),
    st.booleans(),
)
def test_an_ear_of_which_gadolinium_reached_one_part_far_less_is_refused(
    part: tuple[str, tuple[int, ...]], uptake: float, taken_for_endolymph: bool
) -> None:
    name, codes = part
    fractions = an_ear()
    seen = 2.0 * (1.0 - share_of(fractions))
    for code in codes:
        seen[fractions[code : code + 2].sum(0) > 0] *= uptake
        if taken_for_endolymph:
            fractions[code + 1] += fractions[code]
            fractions[code] = 0.0
    channels = channels_of(fractions, seen - 1.0)
    with pytest.raises(ExcludedError, match=f"gadolinium has reached the {name} far less"):
        PureVoxels.of(channels[0], fractions).evened(channels)


def test_a_vestibule_without_any_perilymph_is_read_where_its_canals_have_some() -> None:
    fractions = an_ear()
    fractions[4] += fractions[3]
    fractions[3] = 0.0
    seen = 1.0 - 2.0 * share_of(fractions)
    channels = channels_of(fractions, seen)
    evened = PureVoxels.of(channels[0], fractions).evened(channels)
    assert np.allclose(evened, channels, atol=0.1)


def test_an_ear_without_full_voxels_is_refused() -> None:
    fractions = an_ear()
    fractions[1:] *= 0.85
    fractions[0] = 1.0 - fractions[1:].sum(0)
    with pytest.raises(ExcludedError, match=f"at least {2 * LEAST_SURE} are needed"):
        PureVoxels.of(1.0 - fractions[0], fractions)
