"""PPI and PEI unfolded: even in the share of endolymph, whatever the fluids' T1 are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hydrops.errors import ExcludedError
from hydrops.model.geometry import CROP_SPACING_MM
from hydrops.model.preprocess import prepare
from hydrops.model.pure import PureVoxels
from hydrops.model.unfold import Unfolded, unfold
from hydrops.phantom.signal import (
    PEI,
    PPI,
    USUAL_FLUIDS,
    Fluids,
    Tissue,
    draw_fluids,
    gadolinium,
    gadolinium_for,
    null_t1_ms,
    signal,
)
from pair import given_images, shown

#: Fluids that the published inversion times do not null.
OTHERS = [
    Fluids(4000.0, 4000.0, 4000.0, gadolinium_for(2900.0, 4000.0)),
    Fluids(4300.0, 4300.0, 4300.0, gadolinium_for(3100.0, 4300.0)),
]


def an_ear() -> tuple[np.ndarray, np.ndarray]:
    """Share of fluid in each voxel, and of endolymph in the fluid: two pure parts, one mixed."""
    fluid = np.zeros((30, 16, 16), np.float32)
    fluid[3:27, 4:13, 3:13] = 1.0
    along = np.clip((np.arange(30.0) - 9.0) / 12.0, 0.0, 1.0)[:, None, None]
    share = np.broadcast_to(along, fluid.shape).astype(np.float32)
    return np.asarray(ndimage.uniform_filter(fluid, 3), np.float32), share


def read(fluids: Fluids, fluid: np.ndarray, share: np.ndarray, gain: float = 1.0) -> np.ndarray:
    """Share that the pair shows in full voxels, see `read_all`."""
    return read_all(fluids, fluid, share, fractions_of(fluid, share), gain)[fluid > 0.99]


def read_all(
    fluids: Fluids,
    fluid: np.ndarray,
    share: np.ndarray,
    network: np.ndarray,
    gain: float = 1.0,
    voxel_mm: Sequence[float] = CROP_SPACING_MM,
) -> np.ndarray:
    """Share that the pair shows, by what a network finds."""
    mi2, summed, channels = given_images(fluids, fractions_of(fluid, share), gain)
    pure = PureVoxels.of(channels[0], network, voxel_mm)
    seen = Unfolded.of(mi2, summed, channels[0], pure).channels(channels)
    assert np.array_equal(seen[[0, 2]], channels[[0, 2]])
    return np.asarray((1.0 - seen[1]) / 2.0)


def fractions_of(fluid: np.ndarray, share: np.ndarray) -> np.ndarray:
    """What a network that knows where all is finds, in one organ."""
    fractions = np.zeros((7, *fluid.shape), np.float32)
    fractions[0], fractions[1], fractions[2] = 1.0 - fluid, fluid * (1.0 - share), fluid * share
    return fractions


@given(st.floats(2900.0, 4450.0), st.floats(-100.0, 100.0))
def test_the_signed_signals_lie_equally_far_apart_in_all_fluids(
    t1_ms: float, later_ms: float
) -> None:
    """To 12 %, for any fluid of a head; so say Bloch's equations, whatever the times null."""
    ppi, pei = (replace(s, ti_ms=(s.ti_ms or 0.0) + later_ms) for s in (PPI, PEI))
    fluids = (Tissue(ms, 1500.0, 1.0) for ms in (t1_ms, 3500.0))
    here, there = (signal(fluid, ppi) - signal(fluid, pei) for fluid in fluids)
    assert here == pytest.approx(there, rel=0.12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.floats(1e-3, 1e4))
def test_a_mixed_voxel_shows_its_share_with_the_fluids_of_any_patient(
    seed: int, gain: float
) -> None:
    fluid, share = an_ear()
    found = read(draw_fluids(np.random.default_rng(seed)), fluid, share, gain)
    # Round the corners of the line, what noise could have moved there counts as well.
    assert found == pytest.approx(share[fluid > 0.99], abs=0.16)
    assert np.mean(found) == pytest.approx(np.mean(share[fluid > 0.99]), abs=0.05)


@pytest.mark.parametrize("fluids", [USUAL_FLUIDS, *OTHERS])
def test_voxels_that_hold_both_fluids_in_a_coarse_image_do_not_count_as_pure(
    fluids: Fluids,
) -> None:
    """Thin perilymph between endolymph, seen at 1 mm, and a network that knows it at 0.5 mm."""
    fluid, _ = an_ear()
    share = np.broadcast_to((np.arange(30)[:, None, None] % 8 > 1), fluid.shape)
    sharp, width = fluid * share, 0.5**0.5
    coarse, endolymph = (ndimage.gaussian_filter(part, (width, 0, 0)) for part in (fluid, sharp))
    seen_share = np.divide(endolymph, coarse, out=np.zeros_like(coarse), where=coarse > 1e-3)
    network = fractions_of(fluid, share.astype(np.float32))
    errors = [
        (read_all(fluids, coarse, seen_share, network, voxel_mm=v) - seen_share)[
            fluid > 0.99
        ].mean()
        for v in ((1.0, 0.5, 1.0), CROP_SPACING_MM)
    ]
    assert abs(errors[0]) < 0.01 < abs(errors[1])


@pytest.mark.parametrize("fluids", [USUAL_FLUIDS, *OTHERS])
def test_a_voxel_that_is_partly_bone_shows_the_share_of_its_fluid(fluids: Fluids) -> None:
    fluid, share = an_ear()
    fluid[:, :3] = 0.0
    rim = (fluid > 0.25) & (fluid < 0.9)
    found = read_all(fluids, fluid, share, fractions_of(fluid, share))
    for part in (share == 0.0, share == 1.0):
        assert np.mean((found - share)[rim & part]) == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("fluids", OTHERS)
def test_hydrops_alone_does_not_show_it(fluids: Fluids) -> None:
    fluid, share = an_ear()
    true = share[fluid > 0.99]
    ppi, pei = (shown(fluids, s, fractions_of(fluid, share))[fluid > 0.99] for s in (PPI, PEI))
    hydrops = ppi - pei
    alone = (hydrops.max() - hydrops) / (hydrops.max() - hydrops.min())
    assert np.abs(alone - true).max() > 0.15
    assert np.abs(read(fluids, fluid, share) - true).max() < 0.08


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.floats(0.05, 0.3))
def test_noise_moves_a_place_along_the_line_less_than_it_moves_the_images(
    seed: int, noise: float
) -> None:
    """Beyond either null, where the difference of the magnitudes says no more."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(-3.0, 3.0, (20, 20, 20)).astype(np.float32)
    difference, total = np.clip(places, -1.0, 1.0), np.maximum(1.0, np.abs(places))
    # The darkest tenth of what is looked at tells the distance, 0.9 times that being one here.
    noisy = [
        (part + noise * rng.standard_normal(part.shape)).astype(np.float32)
        for part in (difference, total)
    ]
    found = unfold(noisy[0] / 0.9, noisy[1] / 0.9, np.ones_like(places))
    beyond = np.abs(places) > 1.5
    ends = np.polyfit(places[beyond], found[beyond], 1)
    assert np.std(found[beyond] / ends[0] - places[beyond]) < 1.3 * noise + 0.05
    product = noisy[0] * noisy[1]
    assert np.std(found[beyond] / ends[0] - places[beyond]) < np.std(
        product[beyond] - places[beyond]
    )


@pytest.mark.parametrize("share_of_t1", [1.06, 1.0, 0.965, 0.93])
def test_endolymph_that_the_ppi_does_not_null_is_shown_as_if_it_did(share_of_t1: float) -> None:
    """CSF beside it, of another T1 or not, is as dark in either."""
    nulled = replace(USUAL_FLUIDS, endolymph_ms=null_t1_ms(PPI))
    other = replace(nulled, endolymph_ms=share_of_t1 * nulled.endolymph_ms)
    fluid, share = an_ear()
    fractions = fractions_of(fluid, share)
    usual, seen = (Seen.of(fluids, fractions) for fluids in (nulled, other))
    assert usual.unfolded.nulled
    assert seen.unfolded.nulled == (share_of_t1 >= 1.0)
    pure = (fluid > 0.99) & (share == 1.0)
    assert usual.prepared[1][pure].mean() == pytest.approx(-1.0, abs=0.02)
    assert seen.as_if[1][pure].mean() == pytest.approx(-1.0, abs=0.3)
    assert share_of_t1 >= 1.0 or seen.prepared[1][pure].mean() > -0.6
    full = fluid > 0.99
    assert np.corrcoef(seen.as_if[1][full], usual.prepared[1][full])[0, 1] > 0.99


@dataclass(frozen=True)
class Seen:
    """An ear as `prepare` shows it to a network, unfolded, and as if its endolymph were nulled."""

    prepared: np.ndarray
    unfolded: Unfolded
    as_if: np.ndarray

    @staticmethod
    def of(fluids: Fluids, fractions: np.ndarray) -> Seen:
        mi2, summed, channels = given_images(fluids, fractions)
        prepared = prepare(*map(torch.from_numpy, (channels[0], mi2))).numpy()
        pure = PureVoxels.of(channels[0], fractions)
        unfolded = Unfolded.of(mi2, summed, prepared[0], pure)
        return Seen(prepared, unfolded, unfolded.as_if_nulled(prepared))


def test_few_sure_voxels_are_taken_where_there_are_no_more() -> None:
    """Of an ear that is full of endolymph, the least sure voxels stand for perilymph."""
    fluid, share = an_ear()
    share = np.clip(0.4 + share, 0.0, 1.0)
    assert read(USUAL_FLUIDS, fluid, share) == pytest.approx(share[fluid > 0.99], abs=0.08)


def test_endolymph_brighter_than_perilymph_is_refused() -> None:
    fluid, share = an_ear()
    with pytest.raises(ExcludedError, match="swapped"):
        read(USUAL_FLUIDS, fluid, share, gain=-1.0)


def test_the_fluids_that_are_drawn_are_those_of_patients() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_fluids(rng) for _ in range(400)]
    assert all(3700.0 < fluids.csf_ms <= 4450.0 for fluids in drawn)
    assert all(fluids.endolymph_ms <= fluids.csf_ms for fluids in drawn)
    usual = [f for f in drawn if f.perilymph_mmol == USUAL_FLUIDS.perilymph_mmol]
    assert 150 < len(usual) < 250
    for fluids in drawn:
        enhanced = gadolinium(fluids.tissues()["perilymph"], fluids.perilymph_mmol)
        assert 2890.0 < enhanced.t1_ms < 3380.0
