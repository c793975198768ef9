"""Anatomy of the phantom's inner ears against published dimensions and real specimens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hydrops.labels import LABYRINTH, ORGANS, endolymph_code, perilymph_code
from hydrops.model.simulate import load_specimens, specimen_ear
from hydrops.phantom.anatomy import Ear, draw_ear, draw_hydrops, mirrored

SEED = st.integers(0, 2**31)


@settings(max_examples=5, deadline=None)
@given(SEED)
def test_an_ear_has_human_dimensions(seed: int) -> None:
    ear = draw_ear(np.random.default_rng(seed), "right")
    total, _ = ear.volumes_mm3()[LABYRINTH]
    assert 110 < total < 330
    points = np.argwhere(ear.labels > 0) * ear.spacing_mm
    spread = points - points.mean(0)
    longest = np.linalg.svd(spread[::10], full_matrices=False)[2][0]
    assert 14 < np.ptp(spread @ longest) < 23


@settings(max_examples=4, deadline=None)
@given(SEED, st.tuples(*[st.floats(0.02, 0.9)] * 3))
def test_hydrops_is_as_asked_at_constant_fluid(seed: int, shares: tuple[float, ...]) -> None:
    wanted = dict(zip(ORGANS, shares, strict=True))
    ear = draw_ear(np.random.default_rng(seed), "right", wanted)
    other = draw_ear(np.random.default_rng(seed), "right", dict.fromkeys(ORGANS, 0.1))
    for organ in ORGANS:
        assert ear.ratios()[organ] == pytest.approx(wanted[organ], abs=0.005)
        assert ear.volumes_mm3()[organ][0] == pytest.approx(other.volumes_mm3()[organ][0])


def places_of(ear: Ear, code: int) -> np.ndarray:
    return np.argwhere(ear.labels == code) * ear.spacing_mm + ear.origin_mm


def depths(ear: Ear, origin: str, towards: str, code: int) -> np.ndarray:
    """How far voxels lie along the line from one landmark to another, and how far from it."""
    start = ear.landmarks[origin]
    line = ear.landmarks[towards] - start
    line /= np.linalg.norm(line)
    apart = places_of(ear, code) - start
    along = apart @ line
    return np.stack([along, np.linalg.norm(apart - along[:, None] * line, axis=1)])


def test_endolymph_lies_outside_in_the_cochlea_and_away_from_the_oval_window() -> None:
    """As the scala media does; utricle and saccule lie on the medial wall of the vestibule."""
    deeper = []
    for seed in range(3):
        ear = draw_ear(np.random.default_rng(seed), "right", dict.fromkeys(ORGANS, 0.3))
        perilymph, endolymph = (
            depths(ear, "modiolus", "helicotrema", code("cochlea")).mean(1)
            for code in (perilymph_code, endolymph_code)
        )
        assert endolymph[1] > perilymph[1] + 0.2
        perilymph, endolymph = (
            depths(ear, "oval_window", "vestibule", code("vestibule")).mean(1)
            for code in (perilymph_code, endolymph_code)
        )
        deeper.append(endolymph[0] - perilymph[0])
    assert np.mean(deeper) > 0.1


def test_mirrored_ear_has_the_same_ratios_on_the_other_side() -> None:
    right = draw_ear(np.random.default_rng(5), "right")
    left = draw_ear(np.random.default_rng(5), "left")
    assert left.side == "left"
    assert left.ratios() == right.ratios()
    assert np.array_equal(mirrored(left).labels, right.labels)
    assert left.landmarks["helicotrema"][0] == -right.landmarks["helicotrema"][0]


def test_centre_is_the_centroid_of_the_fluid_on_both_sides() -> None:
    for side in ("left", "right"):
        ear = draw_ear(np.random.default_rng(8), side)
        where = np.argwhere(ear.labels > 0) * ear.spacing_mm + ear.origin_mm
        assert np.abs(where.mean(0)).max() < 0.01


def test_the_fluid_is_one_connected_space_and_landmarks_lie_on_it() -> None:
    ear = draw_ear(np.random.default_rng(2), "right")
    assert ndimage.label(ear.labels > 0, np.ones((3, 3, 3)))[1] == 1
    outside = ndimage.distance_transform_edt(ear.labels == 0, sampling=ear.spacing_mm)
    for name in ("helicotrema", "oval_window", "round_window"):
        index = np.round((ear.landmarks[name] - ear.origin_mm) / ear.spacing_mm).astype(int)
        assert outside[tuple(index)] < 0.8, name


def test_same_seed_same_ear_other_seed_other_ear() -> None:
    first, again, other = (draw_ear(np.random.default_rng(s), "left") for s in (1, 1, 2))
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.labels, other.labels)


def test_anatomy_does_not_depend_on_hydrops() -> None:
    severe = draw_hydrops(np.random.default_rng(0), 1.0)
    first = draw_ear(np.random.default_rng(3), "right", severe)
    second = draw_ear(np.random.default_rng(3), "right")
    assert np.array_equal(first.labels > 0, second.labels > 0)


def test_severe_hydrops_exceeds_none() -> None:
    rng = np.random.default_rng(0)
    for organ in ORGANS:
        none = np.mean([draw_hydrops(rng, 0.0)[organ] for _ in range(30)])
        severe = np.mean([draw_hydrops(rng, 1.0)[organ] for _ in range(30)])
        assert severe > 1.8 * none


def test_real_specimens_keep_their_volume_and_chirality(shared_data: Path) -> None:
    """Turned into the head's frame, a specimen's landmarks lie where a phantom's do."""
    phantom = draw_ear(np.random.default_rng(0), "right", variation=0.0)
    for specimen in load_specimens(shared_data / "bony-labyrinth", ["F01", "F03", "T06"]):
        ear = specimen_ear(specimen, np.random.default_rng(0))
        real = specimen.lumen.sum() * abs(np.linalg.det(specimen.affine[:3, :3]))
        assert ear.volumes_mm3()[LABYRINTH][0] == pytest.approx(real, rel=0.05)
        for name in ("helicotrema", "oval_window", "round_window", "modiolus"):
            assert np.linalg.norm(ear.landmarks[name] - phantom.landmarks[name]) < 2.5, name
        assert all(volume > 25 for volume, _ in ear.volumes_mm3().values())
