"""Measures of an ear: volumes by hand, physical truths, published thresholds."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ears import fine_affine, made_up_fractions
from hydrops.labels import LABYRINTH, ORGANS
from hydrops.measure import (
    MeasureOptions,
    ear_rows,
    grade,
    implausible,
    organ_volumes,
)
from hydrops.phantom.anatomy import Ear, draw_ear, draw_hydrops, mirrored
from hydrops.slices import AcquiredSlices

AFFINE = fine_affine((38.0, -10.0, 5.0))
PIXEL_MM = (0.5, 0.5)


@cache
def acquired() -> tuple[np.ndarray, np.ndarray]:
    """Fluid by organ and HYDROPS-Mi2 of a phantom's ear on slices of 1 mm, pixels of 0.5 mm."""
    rng = np.random.default_rng(1)
    ear = draw_ear(rng, "right", draw_hydrops(rng, 0.6))
    return on_slices(ear)


def on_slices(ear: Ear) -> tuple[np.ndarray, np.ndarray]:
    step = np.round(np.array([0.5, 0.5, 1.0]) / ear.spacing_mm).astype(int)
    labels = ear.labels[step[0] // 2 :: step[0], step[1] // 2 :: step[1], step[2] // 2 :: step[2]]
    fluid = np.stack([(labels + 1) // 2 == code for code in (1, 2, 3)]).astype(np.float32)
    mi2 = np.where(labels == 0, 0.0, np.where(labels % 2 == 0, -1.0, 1.0)).astype(np.float32)
    return fluid, mi2


def rows(fluid: np.ndarray, mi2: np.ndarray | None) -> dict[str, dict[str, object]]:
    slices = AcquiredSlices(fluid, mi2, np.arange(fluid.shape[3]), PIXEL_MM)
    return {str(r["organ"]): r for r in ear_rows(made_up_fractions(), AFFINE, True, slices)}


def test_volumes_are_counted_voxels_times_their_size() -> None:
    fractions = made_up_fractions()
    volumes = organ_volumes(fractions, AFFINE)
    counts = np.bincount(fractions.argmax(0).ravel(), minlength=7)
    for number, organ in enumerate(ORGANS):
        perilymph, endolymph = counts[2 * number + 1], counts[2 * number + 2]
        assert volumes[organ] == pytest.approx(((perilymph + endolymph) * 0.125, endolymph * 0.125))
    assert volumes[LABYRINTH][0] == pytest.approx(counts[1:].sum() * 0.125)


@given(st.floats(0.05, 1.0))
def test_a_voxel_half_filled_counts_half(share: float) -> None:
    whole, part = made_up_fractions(), made_up_fractions()
    part[1:] *= share
    part[0] = 1 - part[1:].sum(0)
    for organ, (total, endolymph) in organ_volumes(part, AFFINE).items():
        full = organ_volumes(whole, AFFINE)[organ]
        assert (total, endolymph) == pytest.approx((full[0] * share, full[1] * share), rel=1e-4)


def test_a_mirrored_ear_measures_the_same() -> None:
    rng = np.random.default_rng(2)
    ear = draw_ear(rng, "right", draw_hydrops(rng, 0.5))
    there, back = rows(*on_slices(ear)), rows(*on_slices(mirrored(ear)))
    for organ in ("cochlea", "vestibule"):
        assert back[organ]["representative_slice"] == there[organ]["representative_slice"]
        assert back[organ]["eh_area_ratio"] == pytest.approx(
            there[organ]["eh_area_ratio"], abs=0.06
        )


@settings(max_examples=10)
@given(st.floats(1e-4, 1e4), st.integers(0, 3))
def test_gain_of_the_scanner_and_turns_about_the_long_axis_change_nothing(
    gain: float, turns: int
) -> None:
    fluid, mi2 = acquired()
    turned = rows(np.rot90(fluid, turns, (1, 2)).copy(), np.rot90(gain * mi2, turns).copy())
    assert turned == rows(fluid, mi2)


def test_area_ratio_is_the_negative_share_of_the_organs_region() -> None:
    fluid, mi2 = acquired()
    for organ, row in rows(fluid, mi2).items():
        z = row["representative_slice"]
        if z is None:
            assert organ in ("semicircular_canals", LABYRINTH)
            assert row["eh_area_ratio"] is None
            assert row["grade"] is None
            continue
        region = fluid[ORGANS.index(organ), :, :, z] > 0.5
        assert row["eh_area_ratio"] == pytest.approx((mi2[:, :, z][region] < 0).mean())
        near = fluid[ORGANS.index(organ), :, :, z - 1 : z + 2] > 0.5
        assert row["eh_area_ratio_3_slices"] == pytest.approx(
            (mi2[:, :, z - 1 : z + 2][near] < 0).mean()
        )


def test_neighbours_beyond_the_image_do_not_count() -> None:
    region = np.zeros((3, 6, 6, 3), np.float32)
    region[0, 1:5, 1:5] = 1.0
    mi2 = np.ones((6, 6, 3), np.float32)
    mi2[..., 0] = -1.0
    slices = AcquiredSlices(region, mi2, np.arange(3), PIXEL_MM)
    assert slices.area_ratio("cochlea", 0) == 1.0
    assert slices.area_ratio("cochlea", 0, beside=1) == pytest.approx(1 / 2)
    assert slices.area_ratio("cochlea", 2, beside=1) == 0.0


@given(st.floats(0.0, 1.0))
def test_the_interval_of_the_labyrinth_holds_its_ratio(half_width: float) -> None:
    fluid, mi2 = acquired()
    slices = AcquiredSlices(fluid, mi2, np.arange(fluid.shape[3]), PIXEL_MM)
    fractions = made_up_fractions()
    for row in ear_rows(fractions, AFFINE, True, slices, half_width=half_width):
        low, high, ratio = row["ci_low"], row["ci_high"], row["eh_volume_ratio"]
        if row["organ"] != LABYRINTH:
            assert low is None
            assert high is None
            continue
        assert 0.0 <= low <= ratio <= high <= 1.0
        assert low == pytest.approx(max(0.0, ratio - half_width))
        assert high == pytest.approx(min(1.0, ratio + half_width))
    for row in ear_rows(fractions, AFFINE, False, slices, half_width=half_width):
        assert row["ci_low"] is None


def test_without_the_second_image_there_is_fluid_and_no_ratio() -> None:
    fluid, _ = acquired()
    slices = AcquiredSlices(fluid, None, np.arange(fluid.shape[3]), PIXEL_MM)
    for row in ear_rows(made_up_fractions(), AFFINE, False, slices):
        assert row["tfs_mm3"] > 0
        assert [row[k] for k in ("els_mm3", "eh_volume_ratio", "eh_area_ratio", "grade")] == [
            None
        ] * 4


@pytest.mark.parametrize(
    ("organ", "ratio", "word"),
    [
        ("vestibule", 0.33, "none"),
        ("vestibule", 0.34, "mild"),
        ("vestibule", 0.50, "mild"),
        ("vestibule", 0.51, "significant"),
        ("cochlea", 0.20, "none"),
        ("cochlea", 0.21, "mild"),
        ("cochlea", 0.40, "mild"),
        ("cochlea", 0.41, "significant"),
        ("cochlea", None, None),
        ("semicircular_canals", 0.4, None),
    ],
)
def test_grades_follow_nakashima(organ: str, ratio: float | None, word: str | None) -> None:
    assert grade(organ, ratio) == word


def test_what_cannot_be_an_ear_is_refused_with_its_reason() -> None:
    options = MeasureOptions()
    whole = made_up_fractions()
    assert implausible(whole, AFFINE, options) is None
    huge = whole.copy()
    huge[1, 2:-2, 2:-2, 2:-2] = 1.0
    assert "not plausible" in str(implausible(huge, AFFINE, options))
    cut = np.roll(whole, 24, axis=2)
    assert "cut by the edge" in str(implausible(cut, AFFINE, options))
    without = whole.copy()
    without[5:] = 0.0
    assert "no semicircular canals" in str(implausible(without, AFFINE, options))
    assert "not plausible" in str(implausible(np.zeros_like(whole), AFFINE, options))
