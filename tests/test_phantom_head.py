"""A phantom's head: what is drawn is what is known of it, wherever it lies and moves."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from scipy.spatial.transform import Rotation

from hydrops.arrays import Affine, FloatGrid
from hydrops.labels import LABYRINTH, ORGANS, SIDES, endolymph_code, perilymph_code
from hydrops.phantom.anatomy import Ear, draw_ear, draw_hydrops, mirrored
from hydrops.phantom.head import (
    Blob,
    Head,
    Tube,
    draw_head,
    ear_fractions,
    render,
    scanner_affine,
    truth_fractions,
)
from hydrops.phantom.motion import ROTATION_DEG, TRANSLATION_MM, draw_motion
from hydrops.phantom.signal import MRC, PEI, PPI, Sequence

MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
angles = st.tuples(*[st.floats(-25.0, 25.0)] * 3)
offsets = st.tuples(*[st.floats(-15.0, 15.0)] * 3)
voxels = st.sampled_from([(0.5, 0.5, 1.0), (0.8, 0.8, 0.8), (0.3, 0.3, 0.3)])


@cache
def ears(seed: int) -> dict[str, Ear]:
    """Two ears as a participant gets them, of moderate hydrops so that both fluids are thick."""
    rng = np.random.default_rng(seed)
    return {side: draw_ear(rng, side, draw_hydrops(rng, 0.6)) for side in SIDES}


def a_head(
    seed: int = 1,
    tilt: tuple[float, ...] = (4.0, -3.0, 6.0),
    offset: tuple[float, ...] = (2.0, -3.0, 1.0),
) -> Head:
    pair = ears(seed % 2)
    return draw_head(np.random.default_rng(seed), pair["left"], pair["right"], tilt, offset)


def grid_around(
    head: Head, side: str, voxel: tuple[float, ...] = (0.5, 0.5, 1.0), oblique: float = 0.0
) -> tuple[tuple[int, ...], Affine]:
    """A slab of 34 mm around an ear; the longest ear measures 23 mm."""
    shape = tuple(int(np.ceil(34.0 / v)) for v in voxel)
    return shape, scanner_affine(shape, voxel, head.to_scanner(head.places[side]), oblique)


def clean(
    head: Head, sequence: Sequence, side: str, voxel: tuple[float, ...] = (0.3, 0.3, 0.3)
) -> FloatGrid:
    return render(
        head, sequence, *grid_around(head, side, voxel), np.random.default_rng(0), None, 0
    )


def mirrored_head(head: Head) -> Head:
    """What a mirror shows: the left ear becomes a right one."""
    swap = dict(zip(SIDES, SIDES[::-1]))

    def turn(point: npt.ArrayLike) -> tuple[float, ...]:
        return tuple(np.asarray(point) * [-1.0, 1.0, 1.0])

    return replace(
        head,
        ears={swap[s]: mirrored(e) for s, e in head.ears.items()},
        places={swap[s]: np.array(turn(p)) for s, p in head.places.items()},
        pose=MIRROR @ head.pose @ MIRROR,
        blobs=tuple(Blob(b.tissue, turn(b.centre), b.half_axes) for b in head.blobs),
        tubes=tuple(Tube(t.tissue, turn(t.start), turn(t.end), t.radii) for t in head.tubes),
        effusion={swap[s]: v for s, v in head.effusion.items()},
        gadolinium_mmol={swap[s]: v for s, v in head.gadolinium_mmol.items()},
    )


@pytest.mark.parametrize("number", range(len(ORGANS)))
def test_an_organ_alone_is_darker_where_less_gadolinium_has_reached_it(number: int) -> None:
    head = a_head(1)
    _, affine = grid_around(head, "left", (0.3, 0.3, 0.3))
    uptake = tuple(0.6 if n == number else 1.0 for n in range(len(ORGANS)))
    usual, less = (
        clean(each, PPI, "left") - clean(each, PEI, "left")
        for each in (head, replace(head, uptake=uptake))
    )
    fractions = truth_fractions(head, "left", usual.shape, affine)
    for organ in ORGANS:
        fell = (usual - less)[fractions[perilymph_code(organ)] > 0.999].mean()
        assert (fell > 0.02) == (organ == ORGANS[number])


@settings(max_examples=8)
@given(angles, offsets, voxels, st.sampled_from(SIDES), st.floats(-20.0, 20.0))
def test_truth_holds_the_ears_volumes_on_any_grid_in_any_pose(
    tilt: tuple[float, ...],
    offset: tuple[float, ...],
    voxel: tuple[float, ...],
    side: str,
    oblique: float,
) -> None:
    head = a_head(1, tilt, offset)
    shape, affine = grid_around(head, side, voxel, oblique)
    fractions = truth_fractions(head, side, shape, affine)
    assert np.allclose(fractions.sum(0), 1.0, atol=1e-5)
    sums = fractions.sum(axis=(1, 2, 3), dtype=float) * np.prod(voxel)
    volumes = head.ears[side].volumes_mm3()
    for organ in ORGANS:
        total, endolymph = volumes[organ]
        found = sums[endolymph_code(organ)]
        assert sums[perilymph_code(organ)] + found == pytest.approx(total, rel=0.02)
        assert found == pytest.approx(endolymph, abs=0.02 * total)
    assert sums[1:].sum() == pytest.approx(volumes[LABYRINTH][0], rel=0.01)
    assert sums[2::2].sum() == pytest.approx(volumes[LABYRINTH][1], rel=0.03)


@settings(max_examples=5)
@given(angles, offsets, st.sampled_from(SIDES))
def test_truth_lies_where_the_head_was_put(
    tilt: tuple[float, ...], offset: tuple[float, ...], side: str
) -> None:
    """The fluid's centroid is the ear's place, and each landmark keeps its distance from it."""
    head = a_head(1, tilt, offset)
    shape, affine = grid_around(head, side)
    fluid = truth_fractions(head, side, shape, affine)[1:].sum(0)
    centroid = affine[:3] @ [*ndimage.center_of_mass(fluid), 1.0]
    turn = Rotation.from_euler("xyz", tilt, degrees=True)
    assert np.allclose(centroid, turn.apply(head.places[side]) + offset, atol=0.05)
    for name, point in head.landmarks(side).items():
        assert np.allclose(
            turn.inv().apply(point - centroid), ears(1)[side].landmarks[name], atol=0.05
        )


def test_truth_on_part_of_the_grid_is_the_whole_truth() -> None:
    """An ear cut by the edge keeps its part inside; one outside leaves nothing but background."""
    head = a_head()
    shape, affine = grid_around(head, "left")
    whole = truth_fractions(head, "left", shape, affine)
    cut = affine.copy()
    cut[:3, 3] += affine[:3, 0] * 34
    assert np.allclose(truth_fractions(head, "left", (34, *shape[1:]), cut), whole[:, 34:])
    far = affine.copy()
    far[0, 3] += 200.0
    assert ear_fractions(head, "left", shape, far)[0].size == 0
    assert (truth_fractions(head, "left", shape, far)[0] == 1.0).all()


@pytest.mark.parametrize("sequence", [MRC, PPI, PEI])
def test_a_mirrored_head_gives_mirrored_truth_and_images(sequence: Sequence) -> None:
    """On the mirrored grid, voxel by voxel; the cells of the mastoids alone are drawn anew."""
    head = a_head()
    other = mirrored_head(head)
    for side, opposite in zip(SIDES, SIDES[::-1]):
        shape, affine = grid_around(head, side)
        truth = truth_fractions(head, side, shape, affine)
        assert np.allclose(
            truth_fractions(other, opposite, shape, MIRROR @ affine), truth, atol=1e-6
        )
        image, reflected = (
            render(h, sequence, shape, a, np.random.default_rng(3), None, 0.0)
            for h, a in ((head, affine), (other, MIRROR @ affine))
        )
        inside = truth[0] < 0.5
        assert np.allclose(reflected[inside], image[inside], atol=2e-3 * image[inside].max())


def test_the_two_ears_of_a_head_are_no_mirror_copies() -> None:
    for seed in (0, 1):
        left, right = ears(seed)["left"], mirrored(ears(seed)["right"])
        a, b = left.labels > 0, right.labels > 0
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) < 0.9
        assert left.ratios() != right.ratios()
        assert np.abs(left.landmarks["helicotrema"] - right.landmarks["helicotrema"]).max() > 0.05
    plain = {s: (draw_ear(np.random.default_rng(4), s).labels > 0).sum() for s in SIDES}
    assert plain["left"] == plain["right"]  # one seed does give mirror copies


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("side", SIDES)
def test_fluid_is_bright_on_mrc_and_hydrops_tells_its_two_kinds(seed: int, side: str) -> None:
    head = a_head(seed)
    images = {s.name: clean(head, s, side) for s in (MRC, PPI, PEI)}
    fractions = truth_fractions(head, side, *grid_around(head, side, (0.3, 0.3, 0.3)))
    # Voxels whose neighbours hold the same fluid, so that the point spread brings in nothing else.
    perilymph, endolymph = (ndimage.binary_erosion(fractions[k::2].sum(0) > 0.999) for k in (1, 2))
    wall = (fractions[0] > 0.999) & ndimage.binary_dilation(fractions[0] < 0.999, iterations=2)
    assert min(perilymph.sum(), endolymph.sum()) > 20
    mrc, hydrops = images["MRC"], images["PPI"] - images["PEI"]
    fluid = mrc[perilymph | endolymph]
    assert fluid.min() > 0.7 * fluid.max()
    assert fluid.min() > 3 * np.percentile(mrc[wall], 25)
    assert mrc[perilymph].mean() == pytest.approx(mrc[endolymph].mean(), rel=0.15)
    assert (hydrops[perilymph] > 0).all()
    assert (hydrops[endolymph] < 0).all()
    assert ((hydrops * mrc)[endolymph] < 0).all()


def canal_depth(head: Head, side: str, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Depth of points (n, 3, scanner, mm) below the wall of the internal auditory canal, mm."""
    fundus, porus, narrow, wide = head.ears[side].canal
    start, end = (head.to_scanner(head.places[side] + p) for p in (fundus, porus))
    share = np.clip((points - start) @ (end - start) / ((end - start) @ (end - start)), 0.0, 1.0)
    radius = narrow + share * (wide - narrow)
    return radius - np.linalg.norm(points - start - share[:, None] * (end - start), axis=1)


@pytest.mark.parametrize("side", SIDES)
def test_the_nerve_canal_is_as_bright_as_the_ear_and_a_millimetre_away(side: str) -> None:
    for seed in (0, 1):
        head = a_head(seed)
        shape, affine = grid_around(head, side, (0.3, 0.3, 0.3))
        mrc = clean(head, MRC, side)
        fluid = truth_fractions(head, side, shape, affine)[1:].sum(0)
        points = np.moveaxis(np.indices(shape), 0, -1).reshape(-1, 3) @ affine[:3, :3].T
        depth = canal_depth(head, side, points + affine[:3, 3]).reshape(shape)
        assert -1.6 < depth[fluid > 0.5].max() < -0.3
        # Nerves run above and below the middle; the most of the rest is fluid.
        canal = np.percentile(mrc[depth > 0.6], 85)
        assert canal == pytest.approx(np.median(mrc[fluid > 0.99]), rel=0.25)
        # Bone parts the two: the brighter voxels of one do not touch the other's.
        bright, _ = ndimage.label(mrc > 0.5 * np.median(mrc[fluid > 0.99]))
        assert not set(np.unique(bright[fluid > 0.9])) & set(np.unique(bright[depth > 0.6])) - {0}


@settings(max_examples=4)
@given(st.integers(0, 2**31), st.sampled_from([MRC, PPI]))
def test_motion_of_the_head_is_counter_motion_of_the_scanner(seed: int, sequence: Sequence) -> None:
    head, motion = a_head(), draw_motion(np.random.default_rng(seed))
    shape, affine = grid_around(head, "right")
    about = np.eye(4)
    about[:3, 3] = head.pose[:3, 3]
    scanner = about @ motion @ np.linalg.inv(about)
    still = render(head, sequence, shape, affine, np.random.default_rng(0))
    moved = render(head, sequence, shape, scanner @ affine, np.random.default_rng(0), motion)
    assert np.abs(moved - still).max() < 0.05 * still.max()
    assert np.abs(moved - still).mean() < 1e-3 * still.max()
    unmoved = render(head, sequence, shape, scanner @ affine, np.random.default_rng(0))
    assert np.abs(unmoved - still).mean() > 3 * np.abs(moved - still).mean()


def test_noise_of_a_magnitude_is_rayleigh_and_of_a_real_image_gaussian() -> None:
    """In air alone (Gudbjartsson and Patz, Magn Reson Med 1995;34:910)."""
    head, shape = draw_head(np.random.default_rng(0), None, None), (40, 40, 20)
    air = scanner_affine(shape, (0.5, 0.5, 1.0), (0.0, 0.0, 300.0))
    magnitude = render(head, MRC, shape, air, np.random.default_rng(1), None, 0.02)
    signed = render(head, replace(MRC, real=True), shape, air, np.random.default_rng(1), None, 0.02)
    assert magnitude.mean() == pytest.approx(0.02 * np.sqrt(np.pi / 2), rel=0.02)
    assert magnitude.std() == pytest.approx(0.02 * np.sqrt(2 - np.pi / 2), rel=0.02)
    assert signed.mean() == pytest.approx(0.0, abs=5e-4)
    assert signed.std() == pytest.approx(0.02, rel=0.02)


def drawn_motions() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Angles (deg) and lengths (mm) of many drawn motions."""
    motions = [draw_motion(np.random.default_rng(i)) for i in range(1500)]
    for motion in motions[:20]:
        assert np.allclose(motion[:3, :3] @ motion[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(motion) == pytest.approx(1.0)
        assert motion[3].tolist() == [0, 0, 0, 1]
    directions = np.array([m[:3, 3] / np.linalg.norm(m[:3, 3]) for m in motions])
    assert np.abs(directions.mean(0)).max() < 0.06  # no direction is preferred
    turns = Rotation.from_matrix([m[:3, :3] for m in motions]).magnitude()
    return np.degrees(turns), np.linalg.norm([m[:3, 3] for m in motions], axis=1)


def test_motions_follow_their_constants() -> None:
    for values, (mean, spread, largest) in zip(drawn_motions(), (ROTATION_DEG, TRANSLATION_MM)):
        assert np.log(values).mean() == pytest.approx(mean, abs=0.05)
        assert np.log(values).std() == pytest.approx(spread, rel=0.08)
        assert values.max() <= largest * (1 + 1e-9)


def test_motions_are_those_of_real_patients(shared_data: Path) -> None:
    table = pd.read_csv(shared_data / "motion" / "t1_to_t2_rigid.tsv", sep="\t")
    for values, column, (mean, spread, largest) in zip(
        drawn_motions(), ("rotation_deg", "translation_mm"), (ROTATION_DEG, TRANSLATION_MM)
    ):
        real = table[column].to_numpy()
        assert [np.log(real).mean(), np.log(real).std()] == pytest.approx([mean, spread], abs=1e-3)
        assert real.max() == pytest.approx(largest, abs=0.01)
        for percentile in (25, 50, 75, 95):
            assert np.percentile(values, percentile) == pytest.approx(
                np.percentile(real, percentile), rel=0.25
            )
        assert stats.ks_2samp(values, real).statistic < 0.12
