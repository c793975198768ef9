"""How much endolymph: the same at every resolution, and nothing moved but endolymph."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ears import fine_affine, made_up_fractions, on_crop
from hydrops.errors import ExcludedError, HydropsError
from hydrops.images import average_onto
from hydrops.model.unmix import (
    LEAST_SHARE,
    Calibration,
    FluidLevels,
    FluidSignal,
    agreed_share,
    calibration_of,
    endolymph_by_signal,
    fluid_by_signal,
    half_width,
    hydrops_level,
    read_signal,
    set_endolymph,
    signal_noise,
)


def pooled(image: np.ndarray, by: int) -> np.ndarray:
    x, y, z = (n // by for n in image.shape)
    return np.asarray(image.reshape(x, by, y, by, z, by).mean(axis=(1, 3, 5)), np.float32)


@settings(max_examples=25)
@given(st.integers(0, 2**16), st.sampled_from([1, 2, 4]), st.floats(0.05, 0.95))
def test_voxel_size_does_not_matter(seed: int, size: int, share: float) -> None:
    """Perilymph at one, endolymph at minus one, in bone: the level is one minus twice the share."""
    rng = np.random.default_rng(seed)
    fluid = np.zeros((16, 16, 16), np.float32)
    fluid[4:12, 4:12, 4:12] = 1.0
    endolymph = fluid * (rng.random(fluid.shape) < share)
    coarse, part = pooled(fluid, size), pooled(endolymph, size)
    ratio = np.divide(coarse - 2 * part, coarse, out=np.zeros_like(coarse), where=coarse > 0)
    level = hydrops_level(np.stack([coarse, ratio, ratio]), coarse)
    assert (1 - level) / 2 == pytest.approx(endolymph.sum() / fluid.sum(), abs=1e-4)


@pytest.fixture(scope="module")
def doubtful() -> np.ndarray:
    """An ear of whose classes a network is nowhere sure."""
    sure = made_up_fractions()[:, ::2, ::2]
    doubt = np.random.default_rng(3).dirichlet(np.ones(7), sure.shape[1:])
    return np.asarray(0.85 * sure + 0.15 * np.moveaxis(doubt, -1, 0), np.float32)


@given(st.floats(0.01, 0.99), st.floats(0.2, 1.0))
def test_only_the_amount_of_endolymph_changes(
    doubtful: np.ndarray, share: float, filled: float
) -> None:
    before = doubtful.copy()
    before[1:] *= filled
    before[0] = 1.0 - before[1:].sum(0)
    after = set_endolymph(before, share)
    fluid = before[1::2] + before[2::2]
    assert np.array_equal(after[0], before[0])
    assert np.allclose(after[1::2] + after[2::2], fluid, atol=1e-6)
    assert after[2::2].sum() / fluid.sum() == pytest.approx(share, abs=1e-3)
    ranks = [np.argsort(f[2][fluid[0] > 0.1] / fluid[0][fluid[0] > 0.1]) for f in (before, after)]
    ordered = (after[2][fluid[0] > 0.1] / fluid[0][fluid[0] > 0.1])[ranks[0]]
    assert (np.diff(ordered) > -1e-4).all()


def a_blurred_guess(fractions: np.ndarray) -> np.ndarray:
    """What an unsure network makes of an ear: the right places with washed-out borders."""
    blurred = ndimage.gaussian_filter(fractions, (0.0, 1.2, 1.2, 0.6))
    return np.asarray(blurred / blurred.sum(0), np.float32)


def an_ear_off_the_grid() -> np.ndarray:
    """Balls and a ring, scaled so that many voxels are neither empty nor full."""
    fine = ndimage.affine_transform(
        made_up_fractions().astype(np.float32), np.diag([1.0, 0.83, 0.87, 0.9]),
        (0.0, 5.3, 4.1, 3.6), order=1,
    )  # fmt: skip
    fine[0] = 1.0 - fine[1:].sum(0)
    return on_crop(fine)


@settings(max_examples=15, deadline=None)
@given(st.floats(1e-2, 1e4), st.floats(0.0, 0.1), st.integers(0, 2**16))
def test_brightness_says_how_full_a_voxel_is(gain: float, bone: float, seed: int) -> None:
    """Under any gain, some shading and noise, and with fluid that is no ear close by."""
    truth = an_ear_off_the_grid()
    rng = np.random.default_rng(seed)
    fluid = truth[1:].sum(0)
    other = np.zeros_like(fluid)
    other[8:12] = 1.0
    x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None, None]
    mrc = bone + (np.maximum(fluid, other) * (1 - bone)) * (1 + rng.uniform(-0.15, 0.15) * x)
    mrc = gain * (mrc + 0.01 * rng.standard_normal(mrc.shape))
    guess = a_blurred_guess(truth)
    found = fluid_by_signal(mrc.astype(np.float32), guess)
    assert np.allclose(found.sum(0), 1.0, atol=1e-4)
    before = np.abs(guess[1:].sum(0) - fluid).mean()
    after = np.abs(found[1:].sum(0) - fluid).mean()
    assert after < 0.5 * before
    assert found[1:, 8:12].max() == 0.0
    assert found[1:].sum() == pytest.approx(fluid.sum(), rel=0.1)


def test_what_is_far_from_the_ear_has_no_say() -> None:
    """More bone around, and as bright a cistern far away, leave the ear as it is."""
    truth = an_ear_off_the_grid()
    guess, mrc = a_blurred_guess(truth), np.asarray(truth[1:].sum(0), np.float32)
    around = [(8, 8)] * 3
    wide = np.pad(guess, [(0, 0), *around])
    wide[0] = 1.0 - wide[1:].sum(0)
    image = np.pad(mrc, around)
    image[:4] = 1.0
    inner = (slice(None), *(slice(8, -8),) * 3)
    assert np.allclose(fluid_by_signal(image, wide)[inner], fluid_by_signal(mrc, guess), atol=1e-5)


def test_bright_and_dark_fluid_is_told_apart_better_than_by_the_network_alone() -> None:
    truth, levels = an_ear_off_the_grid(), FluidLevels(0.5, -0.5, 0.0)
    rng = np.random.default_rng(2)
    fluid, endolymph = truth[1:].sum(0), truth[2::2].sum(0)
    share = np.divide(endolymph, fluid, out=np.zeros_like(fluid), where=fluid > 0.05)
    noise = 0.15 * rng.standard_normal(fluid.shape) / np.maximum(fluid, 0.2)
    channels = np.stack([fluid, 1.0 - 2.0 * share + noise, np.ones_like(fluid)])
    guess = fluid_by_signal(fluid, a_blurred_guess(truth))
    channels = np.asarray(channels, np.float32)
    signal = read_signal(channels, guess)
    found = endolymph_by_signal(channels, guess, levels, signal)
    assert np.array_equal(found[0], guess[0])
    errors = [np.abs(f[2::2].sum(0) - endolymph).sum() for f in (guess, found)]
    assert errors[1] < 0.7 * errors[0]
    ratio = endolymph.sum() / fluid.sum()
    assert found[2::2].sum() / found[1:].sum() == pytest.approx(ratio, abs=0.03)


@settings(max_examples=15)
@given(st.integers(0, 2**16), st.floats(0.05, 0.2))
def test_a_quieter_signal_has_the_larger_say(seed: int, noise: float) -> None:
    """Where network and signal contradict each other, by how noisy HYDROPS is."""
    rng = np.random.default_rng(seed)
    fractions = np.zeros((7, 12, 12, 12), np.float32)
    fractions[3], fractions[4] = 0.5, 0.5
    share = (rng.random(fractions.shape[1:]) < 0.5).astype(np.float32)
    channels = np.stack([np.ones_like(share), 1.0 - 2.0 * share, np.ones_like(share)])
    levels = FluidLevels(0.5, -0.5, 0.0)
    errors = []
    for seen in (0.0, noise, 4.0 * noise):
        signal = FluidSignal(float(channels[1].mean()), seen, 0.5)
        found = endolymph_by_signal(channels, fractions, levels, signal)
        errors.append(float(np.abs(found[4] - share).mean()))
    assert errors == sorted(errors)
    assert errors[0] < 0.5 * errors[2]


def test_where_the_fluids_are_others_the_network_has_the_last_word() -> None:
    truth, levels = an_ear_off_the_grid(), FluidLevels(0.5, -0.5, 0.0)
    fluid, endolymph = truth[1:].sum(0), truth[2::2].sum(0)
    share = np.divide(endolymph, fluid, out=np.zeros_like(fluid), where=fluid > 0.05)
    # Endolymph and perilymph are both brighter than those of the calibration.
    channels = np.stack([fluid, 1.9 - 2.0 * share, np.ones_like(fluid)]).astype(np.float32)
    guess = fluid_by_signal(fluid, a_blurred_guess(truth))
    signal = read_signal(channels, guess)
    found = endolymph_by_signal(channels, guess, levels, signal)
    ratio = endolymph.sum() / fluid.sum()
    alone = levels.offset + levels.slope * signal.level
    assert abs(alone - ratio) > 0.4
    assert levels.contradiction(signal) == pytest.approx(abs(alone - ratio), abs=0.03)
    assert levels.correction(signal) > 0.3
    assert found[2::2].sum() / found[1:].sum() == pytest.approx(ratio, abs=0.1)


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_what_is_agreed_on_lies_between_signal_and_network(signal: float, network: float) -> None:
    agreed = float(agreed_share(signal, network))
    assert min(signal, network) - 1e-9 <= agreed <= max(signal, network) + 1e-9
    assert float(agreed_share(1 - signal, 1 - network)) == pytest.approx(1 - agreed, abs=1e-9)
    if abs(signal - network) < 0.06:
        assert agreed == pytest.approx(signal, abs=0.003)
    if abs(signal - network) > 0.6:
        assert agreed == pytest.approx(network, abs=0.04)


@given(st.floats(-0.4, 0.8), st.floats(0.0, 1.0), st.floats(0.0, 0.5))
def test_what_was_changed_before_is_part_of_a_correction(
    level: float, network: float, moved: float
) -> None:
    levels, signal = FluidLevels(0.55, -0.62, 0.3), FluidSignal(level, 0.1, network)
    before = dataclasses.replace(signal, moved=moved)
    assert levels.correction(before) == pytest.approx(levels.correction(signal) + moved)


@pytest.mark.parametrize("apart", [-0.1, 0.1])
def test_levels_are_free_of_bias_though_the_network_disagrees(apart: float) -> None:
    """A third of the ears, whose network says more or less than their signal."""
    rng = np.random.default_rng(6)
    signals, shares = made_up_ears(rng, FluidLevels(0.55, -0.4, 0.0), 150, 0.01)
    signals = [
        dataclasses.replace(signal, network=signal.network + apart * (number % 3 == 0))
        for number, signal in enumerate(signals)
    ]
    fitted = FluidLevels.fit(signals, shares)
    found = [fitted.share(signal) for signal in signals]
    assert max(fitted.correction(signal) for signal in signals) > 0.02
    assert np.mean(found - shares) == pytest.approx(0.0, abs=1e-3)


def test_levels_are_found_again_from_ears_that_follow_them() -> None:
    known = FluidLevels(0.55, -0.62, 0.3)
    found = FluidLevels.fit(*made_up_ears(np.random.default_rng(0), known, 200, 0.0))
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(known), abs=0.02)
    assert known.share(FluidSignal(-9.0, 0.1, 1.0)) == 1.0 - LEAST_SHARE
    assert known.share(FluidSignal(9.0, 0.1, 0.0)) == LEAST_SHARE


@given(*[st.floats(0.0, 0.9)] * 2, st.floats(0.0, 1.0), st.floats(-0.5, 0.7))
def test_levels_between_two_say_what_lies_between(
    say: float, other_say: float, part: float, level: float
) -> None:
    """Whatever the network's say is in either, as long as it does not contradict."""
    fine, coarse = FluidLevels(0.5, -0.5, say), FluidLevels(0.56, -0.52, other_say)
    signal = FluidSignal(level, 0.1, 0.52 - 0.5 * level)
    shares = [levels.share(signal) for levels in (fine, fine.towards(coarse, part), coarse)]
    assert shares[1] == pytest.approx((1 - part) * shares[0] + part * shares[2], abs=0.003)
    assert fine.towards(coarse, 0.0).share(signal) == pytest.approx(shares[0])
    assert fine.towards(coarse, 1.0).share(signal) == pytest.approx(shares[2])


FINE = Calibration((0.5, 0.5, 1.0), FluidLevels(0.5, -0.5, 0.1), 0.04, 0.3)
COARSE = Calibration((1.0, 1.0, 1.0), FluidLevels(0.55, -0.52, 0.0), 0.1, 0.2)


@given(st.permutations([0.8, 0.7, 0.9]), st.permutations([FINE, COARSE]))
def test_voxels_between_two_sizes_are_read_by_their_largest_face(
    voxel_mm: list[float], known: list[Calibration]
) -> None:
    found = calibration_of(known, voxel_mm)
    part = (0.8 * 0.9 - 0.5) / 0.5
    assert found.half_width == pytest.approx(0.04 + 0.06 * part)
    assert found.most_noise == pytest.approx(0.3 - 0.2 * (voxel_mm[0] - 0.5))
    assert found.levels == FINE.levels.towards(COARSE.levels, part)


@pytest.mark.parametrize(
    ("voxel_mm", "expected"),
    [
        ((0.5, 0.5, 1.0), FINE),
        ((0.3, 0.3, 0.3), FINE),
        ((1.0, 1.0, 1.0), COARSE),
        ((1.1, 0.4, 1.1), COARSE),
    ],
)
def test_voxels_beyond_the_calibrated_sizes_are_read_as_the_nearest(
    voxel_mm: tuple[float, ...], expected: Calibration
) -> None:
    found = calibration_of([COARSE, FINE], voxel_mm)
    assert dataclasses.replace(found, voxel_mm=expected.voxel_mm) == expected


def test_thick_slices_may_be_as_noisy_as_thin_ones() -> None:
    """Nothing is interpolated along the axis on which noise is measured."""
    thick = calibration_of([FINE, COARSE], (0.5, 0.5, 2.0))
    assert thick.half_width == COARSE.half_width
    assert thick.most_noise == FINE.most_noise


def test_voxels_too_large_for_a_ratio_are_refused() -> None:
    with pytest.raises(ExcludedError, match=r"1\.20 x 1\.20 mm are too large .* 1\.25 may be"):
        calibration_of([FINE, COARSE], (1.2, 1.2, 1.2))


def test_calibrations_of_an_older_bundle_are_told_from_todays() -> None:
    one = {"levels": {"offset": 0.5, "slope": -0.5, "say": 0.1}, "half_width": 0.04}
    metadata = {"name": "mine", "version": "1.0.0"}
    with pytest.raises(HydropsError, match=r"mine 1\.0\.0: .* package it again"):
        Calibration.all_of(metadata | {"calibrations": {"unfolded": one}})
    today = one | {"most_noise": 0.3, "voxel_mm": [0.5, 0.5, 1.0]}
    known = Calibration.all_of(metadata | {"calibrations": {"unfolded": [today]}})
    assert known["unfolded"] == (
        Calibration((0.5, 0.5, 1.0), FluidLevels(0.5, -0.5, 0.1), 0.04, 0.3),
    )


def test_the_share_of_the_whole_is_that_of_its_voxels() -> None:
    levels, signal = FluidLevels(0.55, -0.62, 0.3), FluidSignal(0.1, 0.12, 0.3)
    (share,) = levels.shares(np.array([signal.level], np.float32), signal)
    assert share == pytest.approx(levels.share(signal), abs=1e-5)


@pytest.mark.parametrize("sd", [0.1, 0.2, 0.4])
def test_noise_is_measured_beside_borders_and_shading(sd: float) -> None:
    truth = an_ear_off_the_grid()
    fluid, endolymph = truth[1:].sum(0), truth[2::2].sum(0)
    share = 1.0 - 2.0 * np.divide(endolymph, fluid, out=np.zeros_like(fluid), where=fluid > 0.05)
    share += np.linspace(-0.3, 0.3, share.shape[1])[:, None]
    noise = sd * np.random.default_rng(0).standard_normal(share.shape)
    channels = np.stack([fluid, share + noise, np.ones_like(fluid)]).astype(np.float32)
    assert signal_noise(channels) == pytest.approx(sd, rel=0.25)
    channels[0] = 0.0
    assert signal_noise(channels) == 0.0


def made_up_ears(
    rng: np.random.Generator, levels: FluidLevels, count: int, sd: float
) -> tuple[list[FluidSignal], npt.NDArray[np.float64]]:
    """Ears that follow some levels but for an error, and a network that is less exact."""
    level, noise = rng.uniform((-0.4, 0.03), (0.8, 0.2), (count, 2)).T
    alone = levels.offset + levels.slope * level
    network = alone + rng.normal(0.0, 0.05, count)
    weighed = (1.0 - levels.say) * alone + levels.say * network
    shares = agreed_share(weighed, network) + rng.normal(0.0, sd, count)
    known = zip(level, noise, network, strict=True)
    return [FluidSignal(*row) for row in known], shares


@pytest.mark.parametrize("voxel", [(0.5, 0.5, 1.0), (0.8, 0.4, 0.5), (1.0, 1.0, 2.0)])
def test_averaging_onto_another_grid_keeps_the_volume(voxel: tuple[float, ...]) -> None:
    fractions, affine = made_up_fractions(), fine_affine((3.0, -8.0, 1.0))
    target = affine @ np.diag([*(np.array(voxel) / 0.5), 1.0])
    target[:3, 3] -= 0.37
    shape = tuple(int(np.ceil(33.0 / v)) for v in voxel)
    there = average_onto(fractions[1:], affine, shape, target)
    volume = there.sum((1, 2, 3)) * np.prod(voxel)
    assert volume == pytest.approx(fractions[1:].sum((1, 2, 3)) * 0.125, rel=0.03)


def test_an_interval_holds_as_often_as_it_says() -> None:
    """Fitted on 40 ears, tried on 200 more, many times over."""
    rng = np.random.default_rng(1)
    held = []
    for _ in range(60):
        signals, shares = made_up_ears(rng, FluidLevels(0.55, -0.4, 0.2), 240, 0.02)
        known = (signals[:40], shares[:40])
        fitted, reach = FluidLevels.fit(*known), half_width(*known, np.arange(40), 0.9)
        found = np.array([fitted.share(signal) for signal in signals])
        reaches = reach + np.array([fitted.correction(signal) for signal in signals])
        held.append((np.abs(found - shares) <= reaches)[40:].mean())
    assert 0.88 < np.mean(held) < 0.95
    with pytest.raises(ValueError, match="too few"):
        half_width(signals[:8], shares[:8], np.arange(8), 0.95)


def test_an_interval_allows_for_what_both_ears_of_a_head_share() -> None:
    """Errors that come by head: the fit of the other ear of a head must not take them away."""
    rng = np.random.default_rng(2)
    signals, shares = made_up_ears(rng, FluidLevels(0.55, -0.4, 0.2), 12, 0.03)
    heads = np.repeat(np.arange(12), 2)
    signals, shares = [signals[head] for head in heads], shares[heads]
    by_head, by_ear = (half_width(signals, shares, h, 0.9) for h in (heads, np.arange(24)))
    assert by_head > by_ear


def test_a_head_of_which_there_are_more_ears_has_no_larger_say() -> None:
    """Every ear of those heads again and again that err most, or that err least."""
    rng = np.random.default_rng(7)
    levels = FluidLevels(0.55, -0.4, 0.2)
    signals, shares = made_up_ears(rng, levels, 40, 0.03)
    heads = np.arange(40)
    once = half_width(signals, shares, heads, 0.9, levels)
    errors = np.abs(shares - [levels.share(signal) for signal in signals])
    for chosen in (errors > np.median(errors), errors < np.median(errors)):
        rows = np.repeat(heads, np.where(chosen, 5, 1))
        again = half_width([signals[row] for row in rows], shares[rows], rows, 0.9, levels)
        assert again == pytest.approx(once)


def test_an_error_as_large_as_the_correction_needs_no_further_interval() -> None:
    signals, _ = made_up_ears(np.random.default_rng(8), FluidLevels(0.55, -0.4, 0.2), 40, 0.0)
    signals = [dataclasses.replace(s, level=0.2, network=s.network + 0.2) for s in signals]
    levels = FluidLevels(0.55, -0.4, 0.2)
    corrections = np.array([levels.correction(signal) for signal in signals])
    assert np.quantile(corrections, 0.9) > 0.02
    shares = np.array([levels.share(signal) for signal in signals]) - corrections
    assert half_width(signals, shares, np.arange(40), 0.9, levels) == pytest.approx(0.0, abs=1e-9)


def test_levels_of_other_ears_that_are_wrong_here_widen_the_interval() -> None:
    signals, shares = made_up_ears(np.random.default_rng(4), FluidLevels(0.55, -0.4, 0.2), 60, 0.0)
    heads = np.arange(60)
    right, wrong = FluidLevels(0.55, -0.4, 0.2), FluidLevels(0.65, -0.4, 0.2)
    assert half_width(signals, shares, heads, 0.9, right) == pytest.approx(0.0, abs=1e-6)
    assert half_width(signals, shares, heads, 0.9, wrong) == pytest.approx(0.08, abs=0.005)


def test_an_interval_holds_for_heads_to_come() -> None:
    """Errors that both ears of a head share, and heads of which one ear alone is left."""
    rng = np.random.default_rng(5)
    levels = FluidLevels(0.55, -0.4, 0.2)
    held = []
    for _ in range(40):
        signals, shares = made_up_ears(rng, levels, 200, 0.0)
        heads = np.repeat(np.arange(100), 2)
        kept = rng.random(200) < 0.8
        shares = shares + 0.03 * rng.standard_normal(100)[heads]
        first = kept & (heads < 40)
        known = [signals[ear] for ear in np.flatnonzero(first)]
        fitted = FluidLevels.fit(known, shares[first])
        reach = half_width(known, shares[first], heads[first], 0.9)
        errors = np.array([fitted.share(s) for s in signals]) - shares
        reaches = reach + np.array([fitted.correction(s) for s in signals])
        held.append((np.abs(errors) <= reaches)[kept & (heads >= 40)].mean())
    assert 0.88 < np.mean(held) < 0.96
