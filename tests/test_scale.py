"""The scale of PPI and PEI is told by their noise, whatever they show."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from hydrops.arrays import FloatGrid
from hydrops.errors import ExcludedError
from hydrops.scale import MOST_APART, check_one_scale, noise_level

SHAPE = (48, 40, 12)


def scan(seed: int, sd: float, gain: float = 1.0) -> FloatGrid:
    """A magnitude of bright blobs, the same ones each time, shaded, in air, with Rician noise."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE), 3.0)
    shading = np.linspace(0.7, 1.3, SHAPE[0])[:, None, None]
    shown = np.where(blobs > 0.02, 1.0 + 10.0 * blobs, 0.0) * shading
    noise = rng.normal(0.0, sd, (2, *SHAPE))
    return np.asarray(gain * np.hypot(shown + noise[0], noise[1]), np.float32)


@given(st.integers(0, 2**16), st.floats(0.01, 0.1), st.floats(1e-3, 1e4))
def test_noise_is_proportional_to_its_sd_whatever_is_shown(
    seed: int, sd: float, gain: float
) -> None:
    level = noise_level(scan(seed, sd, gain))
    other = noise_level(scan(seed + 1, 2.0 * sd, gain))
    assert other / level == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("gain", [0.5, 0.6, 1.7])
def test_images_of_different_scales_are_refused_and_told_by_how_much(gain: float) -> None:
    with pytest.raises(ExcludedError, match=r"times that of the PEI") as refused:
        check_one_scale(scan(1, 0.05), scan(2, 0.05, gain))
    (told,) = re.findall(r"PPI is ([\d.]+) times", refused.value.reason)
    assert float(told) == pytest.approx(1.0 / gain, rel=0.04)


def test_images_of_one_scale_are_taken_also_with_twice_the_averages() -> None:
    for sd in (0.05, 0.05 * 2**0.5, 0.05 / 2**0.5):
        found = check_one_scale(scan(1, sd), scan(2, 0.05))
        assert found == pytest.approx(sd / 0.05, rel=0.04)
    assert MOST_APART > 2**0.5


def test_whole_numbers_and_a_mask_change_little() -> None:
    ppi, pei = scan(3, 0.05), scan(4, 0.05)
    coarse = [np.round(30.0 * image) for image in (ppi, pei)]
    for image in coarse:
        image[:8] = 0.0
    assert check_one_scale(*coarse) == pytest.approx(1.0, abs=0.05)


def test_without_noise_there_is_nothing_to_tell_a_scale_by() -> None:
    flat = np.ones(SHAPE, np.float32)
    assert check_one_scale(flat, scan(1, 0.05)) is None
    assert check_one_scale(scan(1, 0.05), np.zeros(SHAPE, np.float32)) is None
