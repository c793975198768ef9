"""What a model does not know is refused, what it knows is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import mahalanobis

from ears import made_up_fractions, on_crop
from hydrops.model.novelty import FEATURES, KEPT, STRANGE, Novelty, ear_features

SURE = np.full(3, 0.9, np.float32)


def an_ear(blur: float = 0.0, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """MRC as a network sees it, and the fractions behind it."""
    fractions = on_crop(made_up_fractions())
    rng = np.random.default_rng(0)
    mrc = ndimage.gaussian_filter(fractions[1:].sum(0), blur) + 0.03
    return np.asarray(mrc + noise * rng.standard_normal(mrc.shape), np.float32), fractions


def feature(name: str, values: np.ndarray) -> float:
    (place,) = [n for n, words in enumerate(FEATURES) if name in words]
    return float(values[place])


def test_an_inverted_a_smeared_and_a_noisy_image_each_show_in_their_feature() -> None:
    mrc, fractions = an_ear()
    plain = ear_features(mrc, fractions, SURE, 0.1)
    inverted = ear_features(1.1 - mrc, fractions, SURE, 0.1)
    smeared = ear_features(an_ear(blur=3.0)[0], fractions, SURE, 0.1)
    noisy = ear_features(an_ear(noise=0.3)[0], fractions, SURE, 0.1)
    assert feature("brightness of", inverted) < 0 < feature("brightness of", plain)
    assert feature("agreement", inverted) < 0 < feature("agreement", plain)
    assert feature("agreement", smeared) < feature("agreement", plain)
    assert feature("unevenness", noisy) > feature("unevenness", plain)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_ear_is_as_well_known(axis: int) -> None:
    mrc, fractions = an_ear()
    mirrored = ear_features(np.flip(mrc, axis), np.flip(fractions, axis + 1), SURE, 0.1)
    assert np.allclose(mirrored, ear_features(mrc, fractions, SURE, 0.1), atol=1e-4)


def test_a_blank_image_and_an_overfull_crop_have_features_too() -> None:
    mrc, fractions = an_ear()
    assert np.isfinite(ear_features(np.zeros_like(mrc), fractions, SURE[:0], 0.0)).all()
    full = np.zeros_like(fractions)
    full[1] = 1.0
    assert np.isfinite(ear_features(mrc, full, SURE, 0.0)).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16))
def test_the_limit_keeps_nearly_all_and_a_far_one_is_named(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((len(FEATURES), len(FEATURES))) + 2 * np.eye(len(FEATURES))
    rows = rng.standard_normal((400, len(FEATURES))) @ mixing.T + 5.0
    known = Novelty.fit(list(rows))
    distances = np.array([known.distance(row) for row in rows])
    assert (distances <= known.limit).mean() >= KEPT
    assert known.distance(np.array(known.mean)) == pytest.approx(0.0, abs=1e-9)
    place = int(rng.integers(len(FEATURES)))
    far = np.array(known.mean)
    away = 30 * rows[:, place].std() * (STRANGE[place] or 1)
    far[place] += away
    assert known.distance(far) > known.limit
    assert known.strangest(far) == FEATURES[place]
    far[place] -= 2 * away
    assert (known.distance(far) > known.limit) == (STRANGE[place] == 0)
    with pytest.raises(ValueError, match="too few"):
        Novelty.fit(list(rows[:50]))


def test_the_limit_is_half_as_far_again_as_nearly_all_ears_lie() -> None:
    """Distances by scipy, of what lies where it is strange; 0.995 of 401 are 399."""
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((len(FEATURES), len(FEATURES))) + 2 * np.eye(len(FEATURES))
    rows = rng.standard_normal((400, len(FEATURES))) @ mixing.T
    apart = rows - rows.mean(0)
    covariance = np.cov(rows, rowvar=False)
    shrunk = 0.9 * covariance + 0.1 * np.diag(np.diag(covariance))
    strange = np.where(STRANGE * apart < 0, 0.0, apart)
    inverse, nowhere = np.linalg.inv(shrunk), np.zeros(len(FEATURES))
    distances = sorted(mahalanobis(row, nowhere, inverse) for row in strange)
    known = Novelty.fit(list(rows))
    assert known.limit == pytest.approx(1.5 * distances[-2], rel=1e-4)
    assert known.distance(rows[0]) == pytest.approx(
        mahalanobis(strange[0], nowhere, inverse), rel=1e-4
    )


def test_a_feature_that_is_the_same_for_all_ears_counts_for_nothing() -> None:
    """A model without landmarks is as confident in each of its ears."""
    rows = np.random.default_rng(0).standard_normal((400, len(FEATURES)))
    place = [n for n, words in enumerate(FEATURES) if "landmarks" in words]
    rows[:, place] = 0.0
    known = Novelty.fit(list(rows))
    far = 30 * np.delete(np.where(STRANGE == 0, 1, STRANGE), place)
    assert known.distance(np.insert(far, place, 0.0)) > known.limit
    assert known.strangest(np.insert(far, place, 0.0)) != FEATURES[place[0]]
    assert (np.array([known.distance(row) for row in rows]) <= known.limit).mean() >= KEPT
