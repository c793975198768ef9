"""How blurred an image is, told by the labyrinth in it, and the voxels that it then counts as."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hydrops.images import crop_affine
from hydrops.model.blur import BLURS, MOST_BLUR, SHARP, image_blur, voxel_as_seen
from hydrops.model.geometry import CROP_SHAPE, CROP_SPACING_MM
from hydrops.phantom.anatomy import draw_ear
from hydrops.phantom.head import draw_head, truth_fractions


@pytest.fixture(scope="module")
def fractions() -> np.ndarray:
    """True volume fractions of an ear on the crop grid."""
    rng = np.random.default_rng(3)
    head = draw_head(rng, None, draw_ear(rng, "right"))
    grid = crop_affine(head.to_scanner(head.places["right"]).tolist())
    return truth_fractions(head, "right", CROP_SHAPE, grid)


def shown(fractions: np.ndarray, blur: float, voxel_mm: tuple[float, ...]) -> np.ndarray:
    """Fluid as an image of such voxels and such a blur, in voxels, shows it on the crop grid."""
    box = np.sqrt(np.maximum(np.square(voxel_mm) - np.square(CROP_SPACING_MM), 0.0) / 12.0)
    width = np.hypot(box, blur * np.array(voxel_mm)) / CROP_SPACING_MM
    return ndimage.gaussian_filter(1.0 - fractions[0], width)


@settings(max_examples=15, deadline=None)
@given(
    st.floats(0.5, 1.0),
    st.sampled_from([CROP_SPACING_MM, (0.7, 0.7, 1.0), (1.0, 1.0, 1.0)]),
    st.floats(0.01, 100.0),
    st.floats(-10.0, 10.0),
)
def test_a_blur_is_found_whatever_the_voxel_and_the_gain(
    fractions: np.ndarray,
    blur: float,
    voxel_mm: tuple[float, float, float],
    gain: float,
    zero: float,
) -> None:
    rng = np.random.default_rng(0)
    image = shown(fractions, blur, voxel_mm) + rng.normal(0.0, 0.03, CROP_SHAPE)
    seen = np.asarray(gain * (image + zero), np.float32)
    assert image_blur(seen, fractions, voxel_mm) == pytest.approx(blur, abs=0.04)


@pytest.mark.parametrize("blur", [0.0, 0.2, 0.4])
def test_a_sharp_image_is_sharp_and_its_voxels_are_what_is_told(
    fractions: np.ndarray, blur: float
) -> None:
    image = shown(fractions, blur, CROP_SPACING_MM).astype(np.float32)
    for voxel_mm in (CROP_SPACING_MM, (0.3, 0.3, 0.3)):
        assert image_blur(image, fractions, voxel_mm) == SHARP
    assert voxel_as_seen(CROP_SPACING_MM, SHARP) == CROP_SPACING_MM


def test_larger_voxels_that_nobody_tells_are_a_blur(fractions: np.ndarray) -> None:
    """Such as of an image that was stored in smaller voxels than it was measured in."""
    image = shown(fractions, 0.3, (0.8, 0.8, 1.6)).astype(np.float32)
    assert image_blur(image, fractions, CROP_SPACING_MM) > SHARP
    assert image_blur(image, fractions, (0.8, 0.8, 1.6)) == SHARP


def test_the_more_blurred_the_larger_a_voxel_counts() -> None:
    factors = [voxel_as_seen((0.5, 0.5, 1.0), blur)[0] / 0.5 for blur in np.linspace(0, 1.2, 40)]
    assert (np.diff(factors) >= 0.0).all()
    assert factors[0] == 1.0
    assert factors[-1] > 1.5
    assert sorted(BLURS) == list(BLURS)
    assert BLURS[-1] == MOST_BLUR
