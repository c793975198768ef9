"""Measures of a segmentation: by hand, against MONAI's, and by what must hold for any."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from hydrops.model.metrics import (
    area_under_curve,
    overlap_metrics,
    surface_metrics,
    volume_error_percent,
)


def ball(centre: tuple[float, ...], radius: float, size: int = 24) -> np.ndarray:
    axes = np.ogrid[:size, :size, :size]
    return np.asarray(sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) <= radius**2)


def test_overlap_by_hand() -> None:
    found = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    truth = np.array([0, 1, 1, 1, 1, 0, 0, 0], bool)
    measured = overlap_metrics(found, truth)
    assert measured == pytest.approx(
        {"dice": 4 / 7, "jaccard": 2 / 5, "accuracy": 5 / 8, "precision": 2 / 3, "recall": 2 / 4,
         "specificity": 3 / 4}
    )  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 4), st.floats(3, 7), st.floats(3, 7))
def test_distances_are_those_of_monai(shift: int, first: float, second: float) -> None:
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    a, b = ball((12, 12, 12), first), ball((12 - shift, 12, 12), second)
    spacing = (0.5, 0.5, 1.0)
    ours = surface_metrics(a, b, spacing)
    one, two = (torch.from_numpy(m[None, None].astype(np.float32)) for m in (a, b))
    theirs = compute_hausdorff_distance(one, two, include_background=True, spacing=spacing)
    assert ours["hausdorff_mm"] == pytest.approx(float(theirs), abs=1e-5)
    mean = compute_average_surface_distance(
        one, two, include_background=True, symmetric=True, spacing=spacing
    )
    assert ours["surface_distance_mm"] == pytest.approx(float(mean), abs=0.02)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**16), st.floats(0.1, 10.0))
def test_measures_are_symmetric_and_distances_grow_with_the_voxel(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = (ball(tuple(rng.uniform(9, 15, 3)), rng.uniform(3, 6)) for _ in range(2))
    there, back = overlap_metrics(a, b), overlap_metrics(b, a)
    assert there["dice"] == pytest.approx(back["dice"])
    assert there["precision"] == pytest.approx(back["recall"])
    plain = surface_metrics(a, b, (1, 1, 1))
    scaled = surface_metrics(b, a, (size,) * 3)
    for name, value in plain.items():
        assert scaled[name] == pytest.approx(size * value, rel=1e-5)
    assert plain["hausdorff95_mm"] <= plain["hausdorff_mm"]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**16))
def test_the_95th_percentile_is_that_of_all_distances_of_both_surfaces(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (ball(tuple(rng.uniform(9, 15, 3)), rng.uniform(3, 6)) for _ in range(2))
    spacing = np.array([0.5, 0.5, 1.0])
    first, second = (np.argwhere(mask & ~ndimage.binary_erosion(mask)) * spacing for mask in (a, b))
    apart = cdist(first, second)
    pooled = np.concatenate([apart.min(1), apart.min(0)])
    found = surface_metrics(a, b, spacing)
    assert found["hausdorff95_mm"] == pytest.approx(np.percentile(pooled, 95))
    assert found["hausdorff_mm"] == pytest.approx(pooled.max())
    assert found["surface_distance_mm"] == pytest.approx(pooled.mean())


def test_an_error_of_volume_is_a_share_of_the_truth() -> None:
    truth = np.zeros((4, 4, 4), bool)
    truth[:2, :2, :2] = True
    twice, half = truth.copy(), truth.copy()
    twice[2:4, :2, :2] = True
    half[:1] = False
    assert volume_error_percent(twice, truth) == pytest.approx(100.0)
    assert volume_error_percent(half, truth) == pytest.approx(-50.0)
    assert volume_error_percent(truth, truth) == 0.0
    assert np.isnan(volume_error_percent(truth, np.zeros_like(truth)))


def test_an_empty_mask_has_no_distance() -> None:
    nothing = np.zeros((8, 8, 8), bool)
    assert all(np.isnan(list(surface_metrics(nothing, ball((4, 4, 4), 2, 8), (1, 1, 1)).values())))
    assert np.isnan(overlap_metrics(nothing, nothing)["dice"])


@settings(max_examples=20)
@given(st.integers(0, 2**16))
def test_area_under_the_curve_counts_the_pairs_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(40) < 0.4
    truth[:2] = (True, False)
    probability = np.round(rng.random(40), 1).astype(np.float32)
    pairs = probability[truth][:, None] - probability[~truth][None]
    expected = (pairs > 0).mean() + 0.5 * (pairs == 0).mean()
    assert area_under_curve(probability, truth) == pytest.approx(expected)
    assert np.isnan(area_under_curve(probability, np.ones(40, bool)))
