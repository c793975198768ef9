"""What is lost where the voxels of one image lie between those of another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import from_matvec
from scipy.spatial.transform import Rotation

from hydrops.arrays import Affine, FloatGrid
from hydrops.images import crop_affine
from hydrops.phantom.anatomy import draw_ear
from hydrops.phantom.head import NOISE, draw_head, render
from hydrops.phantom.signal import MRC
from hydrops.sampling import share_kept


@pytest.fixture(scope="module")
def scan() -> tuple[FloatGrid, Affine]:
    """The MRC of an ear in the published voxels, as usually noisy."""
    rng = np.random.default_rng(8)
    head = draw_head(rng, draw_ear(rng, "left"), None)
    affine = crop_affine(head.to_scanner(head.places["left"]).tolist())
    return render(head, MRC, (64, 64, 32), affine, rng, noise=NOISE["MRC"]), affine


def shifted(affine: Affine, voxels: Sequence[float]) -> Affine:
    return np.asarray(affine @ from_matvec(np.eye(3), voxels))


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(-3, 3)] * 3), st.floats(1e-3, 1e4))
def test_nothing_is_lost_on_the_same_voxels(
    scan: tuple[FloatGrid, Affine], by: tuple[int, int, int], gain: float
) -> None:
    mrc, affine = scan
    others = [affine, shifted(affine, by)]
    assert share_kept(mrc, affine, affine, []) == 1.0
    assert share_kept(gain * mrc, affine, affine, others) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("axis", range(3))
def test_more_is_lost_the_further_voxels_lie_between(
    scan: tuple[FloatGrid, Affine], axis: int
) -> None:
    mrc, affine = scan

    def kept(part: float) -> float:
        return share_kept(mrc, affine, affine, [shifted(affine, part * np.eye(3)[axis])])

    shares = [kept(part) for part in (0.0, 0.15, 0.3, 0.5)]
    assert (np.diff(shares) < -1e-3).all()
    assert shares[-1] > 0.9
    assert kept(0.7) == pytest.approx(kept(-0.3), abs=1e-3)
    # Of two images, what the mean of both keeps.
    both = [shifted(affine, part * np.eye(3)[axis]) for part in (0.0, 0.5)]
    assert share_kept(mrc, affine, affine, both) == pytest.approx((shares[0] + shares[-1]) / 2)


def test_finer_voxels_lose_nothing_and_larger_ones_little(scan: tuple[FloatGrid, Affine]) -> None:
    """Larger ones are told from those that lie between: they blur wherever they lie."""
    mrc, affine = scan
    finer, larger = (
        share_kept(mrc, affine, affine, [affine @ np.diag([*factors, 1.0])])
        for factors in ((0.4, 0.4, 0.4), (2.0, 2.0, 1.0))
    )
    assert finer == pytest.approx(1.0, abs=5e-3)
    assert 0.9 < larger < 0.99


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**16))
def test_a_turn_of_the_head_with_its_images_changes_nothing(
    scan: tuple[FloatGrid, Affine], seed: int
) -> None:
    mrc, affine = scan
    rng = np.random.default_rng(seed)
    turn = from_matvec(Rotation.random(random_state=seed).as_matrix(), rng.normal(size=3))
    other = shifted(affine, rng.uniform(0.1, 0.5, 3))
    usual = share_kept(mrc, affine, affine, [other])
    assert usual < 0.995
    turned = share_kept(mrc, turn @ affine, turn @ affine, [turn @ other])
    assert turned == pytest.approx(usual, abs=1e-5)


def test_the_rest_of_a_head_says_nothing(scan: tuple[FloatGrid, Affine]) -> None:
    """A cistern beside the ear, of which next to nothing is lost, does not dilute what is."""
    mrc, affine = scan
    other = [shifted(affine, (0.5, 0.5, 0.5))]
    beside = mrc.copy()
    beside[:14] = np.quantile(mrc, 0.999)
    kept = [share_kept(image, affine, affine, other) for image in (mrc, beside)]
    assert kept[1] == pytest.approx(kept[0], abs=2e-3)


def test_an_image_without_brightness_keeps_all() -> None:
    assert share_kept(np.zeros((64, 64, 32), np.float32), np.eye(4), np.eye(4), [np.eye(4)]) == 1.0
