"""The slice on which an organ is measured: rings drawn by hand, and ears under noise."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrops.images import save_image, slice_axis
from hydrops.labels import SIDES
from hydrops.paths import Paths, Unit
from hydrops.phantom.anatomy import draw_ear, draw_hydrops
from hydrops.phantom.head import MATRIX, VOXEL_MM, draw_head, ear_fractions, scanner_affine
from hydrops.slices import (
    RING_DEGREES,
    AcquiredSlices,
    on_acquired_slices,
    representative_slice,
    ring_degrees,
)

PIXEL_MM = VOXEL_MM[:2]


def drawn_slice(
    seen_degrees: float, middle: tuple[float, float] = (0.2, -0.1), pixel_mm: float = 0.5
) -> np.ndarray:
    """A vestibule of 5 x 4 mm, and of a lateral canal's ring around a point so much, (3, x, y).

    The canal is 1.2 mm wide, its middle 2.6 mm from the point. It leaves the vestibule on both
    sides, which itself takes a quarter of the circle.
    """
    steps = 5
    edge = round(16 / pixel_mm)
    places = (np.arange(edge * steps) + 0.5) / steps * pixel_mm - 8.0
    x, y = np.meshgrid(places - middle[0], places - middle[1], indexing="ij")
    radius, angle = np.hypot(x, y), np.degrees(np.arctan2(y, x))
    vestibule = (x > -6.0) & (x < -2.0) & (np.abs(y) < 2.5)
    canal = (np.abs(radius - 2.6) < 0.6) & (180.0 - np.abs(angle) < seen_degrees / 2) & ~vestibule
    fine = np.stack([np.zeros_like(canal), vestibule, canal]).astype(np.float32)
    return fine.reshape(3, edge, steps, edge, steps).mean((2, 4))


@settings(max_examples=40)
@given(
    st.floats(200.0, 360.0),
    st.tuples(st.floats(-0.25, 0.25), st.floats(-0.25, 0.25)),
    st.sampled_from([0.3, 0.4, 0.5]),
)
def test_a_ring_is_seen_over_the_angle_that_was_drawn(
    drawn: float, middle: tuple[float, float], pixel_mm: float
) -> None:
    """From beside the middle a little more may be seen than from there, less so of a whole ring."""
    found = ring_degrees(drawn_slice(drawn, middle, pixel_mm), (pixel_mm, pixel_mm))
    assert drawn - 15.0 < found < drawn + 55.0 - 40.0 * (drawn - 200.0) / 160.0


@settings(max_examples=20)
@given(st.integers(0, 3), st.booleans(), st.floats(200.0, 360.0))
def test_how_the_ear_lies_in_the_slice_changes_no_ring(
    turns: int, flipped: bool, drawn: float
) -> None:
    image = drawn_slice(drawn)
    turned = np.rot90(image[:, ::-1] if flipped else image, turns, (1, 2))
    assert ring_degrees(turned, PIXEL_MM) == pytest.approx(ring_degrees(image, PIXEL_MM), abs=1.0)


def test_pixels_need_not_be_squares() -> None:
    image = drawn_slice(300.0, pixel_mm=0.25)
    flat = image.reshape(3, 64, 32, 2).mean(3)
    square = ring_degrees(image, (0.25, 0.25))
    assert ring_degrees(flat, (0.25, 0.5)) == pytest.approx(square, abs=15.0)


def test_no_ring_without_canal_vestibule_or_hole() -> None:
    image = drawn_slice(330.0)
    assert ring_degrees(image, PIXEL_MM) > RING_DEGREES
    for organ in (1, 2):
        without = image.copy()
        without[organ] = 0.0
        assert ring_degrees(without, PIXEL_MM) < RING_DEGREES
    filled = image.copy()
    filled[2] = np.where(image.sum(0) < 1.0, 1.0, image[2])
    assert ring_degrees(filled, PIXEL_MM) == 0.0
    assert ring_degrees(np.zeros_like(image), PIXEL_MM) == 0.0


def test_the_vestibules_slice_is_the_lowest_with_the_ring_or_else_three_quarters_up() -> None:
    seen = (100.0, 180.0, 300.0, 330.0)
    fluid = np.stack([drawn_slice(angle) for angle in seen], -1)
    fluid[1, ..., 3] *= 2.0
    assert representative_slice("vestibule", fluid, PIXEL_MM) == 2
    fluid[2] = 0.0
    assert representative_slice("vestibule", fluid, PIXEL_MM) == 3
    fluid[1, ..., 3] = 0.0
    assert representative_slice("vestibule", fluid, PIXEL_MM) == 2
    assert representative_slice("vestibule", np.zeros_like(fluid), PIXEL_MM) is None


def test_the_vestibules_slice_has_much_of_it_where_the_ring_lies_above() -> None:
    """A tipped head: the ring is whole only where the vestibule ends."""
    fluid = np.stack([drawn_slice(angle) for angle in (100.0, 180.0, 200.0, 330.0)], -1)
    fluid[1, ..., 3] *= 0.65
    assert ring_degrees(fluid[..., 3], PIXEL_MM) > RING_DEGREES
    assert representative_slice("vestibule", fluid, PIXEL_MM) == 2


@pytest.mark.parametrize("pitch_deg", [-20.0, 20.0])
def test_a_tipped_head_is_measured_where_there_is_a_vestibule(pitch_deg: float) -> None:
    affine = scanner_affine(MATRIX, VOXEL_MM, (0.0, 0.0, 8.0), 0.0)
    rng = np.random.default_rng(5)
    left, right = (draw_ear(rng, side, draw_hydrops(rng, 0.6)) for side in SIDES)
    head = draw_head(rng, left, right, [pitch_deg, 0.0, 0.0])
    for side in SIDES:
        fractions, _ = ear_fractions(head, side, MATRIX, affine)
        fluid = fractions[1::2] + fractions[2::2]
        z = representative_slice("vestibule", fluid, PIXEL_MM)
        sections = fluid[1].sum((0, 1))
        assert z is not None
        assert sections[z] > 0.65 * sections.max()


def test_the_cochleas_slice_is_where_it_is_longest() -> None:
    fluid = np.zeros((3, 20, 20, 4), np.float32)
    for z, length in enumerate((4, 9, 14, 6)):
        fluid[0, 5 : 5 + length, 8:12, z] = 1.0
    assert representative_slice("cochlea", fluid, PIXEL_MM) == 2
    assert representative_slice("cochlea", 0.0 * fluid, PIXEL_MM) is None


def test_nothing_is_no_endolymph() -> None:
    """Voxels of HYDROPS-Mi2 that are neither positive nor negative."""
    fluid = np.zeros((3, 8, 8, 1), np.float32)
    fluid[0, 2:6, 2:6] = 1.0
    mi2 = np.zeros((8, 8, 1), np.float32)
    assert AcquiredSlices(fluid, mi2, np.arange(1), PIXEL_MM).area_ratio("cochlea", 0) == 0.0
    mi2[2:4] = -1e-6
    assert AcquiredSlices(fluid, mi2, np.arange(1), PIXEL_MM).area_ratio("cochlea", 0) == 0.5


@pytest.mark.parametrize("transposed", [False, True])
def test_an_mrc_of_oblong_pixels_gives_the_ring_and_the_slice_that_were_drawn(
    transposed: bool, tmp_path: Path
) -> None:
    """Pixels of 0.4 x 0.6 mm, whichever of both axes is listed first."""
    seen = (100.0, 180.0, 300.0, 330.0)
    drawn = np.stack([drawn_slice(angle, pixel_mm=0.2) for angle in seen], -1)
    fractions = np.zeros((7, *drawn.shape[1:]), np.float32)
    fractions[1::2] = drawn
    fractions[0] = 1.0 - drawn.sum(0)
    affine = np.diag([0.4, 0.6, 1.0, 1.0])
    affine[:3, 3] = [0.1, 0.2, 0.0]
    mrc = nib.Nifti1Image(np.zeros((40, 27, 4), np.float32), affine)
    if transposed:
        mrc = mrc.as_reoriented(np.array([[1.0, 1.0], [0.0, 1.0], [2.0, 1.0]]))
    grid = np.diag([0.2, 0.2, 1.0, 1.0])
    found = on_acquired_slices(fractions, grid, mrc, Unit("1", "1"), Paths(tmp_path))
    assert found.pixel_mm == pytest.approx((0.6, 0.4) if transposed else (0.4, 0.6))
    assert found.representative("vestibule") == 2
    for z in range(4):
        square = ring_degrees(drawn[..., z], (0.2, 0.2))
        assert ring_degrees(found.fluid[..., z], found.pixel_mm) == pytest.approx(square, abs=25.0)


def test_noise_at_the_borders_seldom_changes_the_vestibules_slice() -> None:
    """Noise of 8 % where fluid and bone share a voxel, as a good segmentation is wrong there."""
    affine = scanner_affine(MATRIX, VOXEL_MM, (0.0, 0.0, 8.0), 0.0)
    same = []
    for seed in range(4):
        rng = np.random.default_rng([seed, 41])
        left, right = (
            draw_ear(rng, side, draw_hydrops(rng, float(rng.random()))) for side in SIDES
        )
        head = draw_head(rng, left, right)
        for side in SIDES:
            fractions, _ = ear_fractions(head, side, MATRIX, affine)
            fluid = fractions[1::2] + fractions[2::2]
            border = (fluid > 0.001) & (fluid < 0.999)
            chosen = representative_slice("vestibule", fluid, PIXEL_MM)
            for _ in range(4):
                noisy = fluid + 0.08 * border * rng.standard_normal(fluid.shape)
                noisy = noisy.clip(0.0, 1.0).astype(np.float32)
                same.append(representative_slice("vestibule", noisy, PIXEL_MM) == chosen)
    assert np.mean(same) >= 0.85


@settings(max_examples=12)
@given(
    st.permutations(range(3)),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_how_an_mrc_is_stored_changes_no_area_and_no_height(
    order: list[int], flips: tuple[bool, bool, bool]
) -> None:
    """Head first, feet first, sagittal or coronal: the same voxels, listed otherwise."""
    shape, affine = (40, 38, 26), np.diag([0.5, 0.5, 1.0, 1.0])
    affine[:3, 3] = [-10.0, -9.0, -13.0]
    rng = np.random.default_rng(0)
    mi2 = rng.normal(size=shape).astype(np.float32)
    fractions = np.zeros((7, *shape), np.float32)
    fractions[1, 5:20, 5:20, 4:9] = 1.0
    fractions[3, 20:34, 6:20, 9:14] = 1.0
    fractions[0] = 1.0 - fractions[1:].sum(0)
    plain = nib.Nifti1Image(mi2, affine)
    orientation = np.array([[new, -1 if flip else 1] for new, flip in zip(order, flips)], float)
    stored = plain.as_reoriented(orientation)
    unit = Unit("1", "1")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate((plain, stored)):
            paths = Paths(Path(folder) / str(number))
            path = paths.registered(unit, "HYDROPSMi2")
            save_image(path, np.asarray(image.dataobj, np.float32), image.affine)
            found.append(on_acquired_slices(fractions, affine, image, unit, paths))
    axis = slice_axis(stored.affine)
    for z in (5, 8, 10, 13):
        heights = [
            image.affine[2, along] * each.numbers[z] + image.affine[2, 3]
            for image, along, each in zip((plain, stored), (2, axis), found)
        ]
        assert heights[0] == pytest.approx(heights[1])
        for organ in ("cochlea", "vestibule"):
            first, second = (each.area_ratio(organ, z) for each in found)
            assert first == (None if second is None else pytest.approx(second))
    assert found[0].area_ratio("cochlea", 5) is not None
