"""The axes of an ear: the same to an ear and to its turned, moved or mirrored image."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from hydrops.errors import HydropsError
from hydrops.model.augment import Augmentation, draw_patch, in_ear_frame, prepare_case
from hydrops.model.cases import Case, load_cases, specimens_in
from hydrops.model.ct_task import CtOptions
from hydrops.model.pose import ear_frame
from places import REPOSITORY

#: Helicotrema, oval and round window of an ear, and its labyrinth's points, mm.
LANDMARKS = np.array([[-6.0, -1.5, -0.6], [-1.3, -1.5, 1.3], [-1.6, -4.4, 1.3]])
LABYRINTH = np.random.default_rng(3).normal(0.0, [3.5, 2.5, 2.0], (4000, 3))
angle = st.floats(-180, 180)
angles = st.tuples(angle, angle, angle)
shifts = st.tuples(*[st.floats(-50, 50)] * 3)


@settings(max_examples=60, deadline=None)
@given(angles, shifts, st.booleans())
def test_an_ear_keeps_its_coordinates_however_it_lies(
    turned: tuple[float, ...], shifted: tuple[float, ...], mirrored: bool
) -> None:
    matrix = Rotation.from_euler("xyz", turned, degrees=True).as_matrix()
    matrix = matrix @ np.diag([-1.0 if mirrored else 1.0, 1.0, 1.0])
    plain = ear_frame(LANDMARKS, LABYRINTH)
    moved = ear_frame(LANDMARKS @ matrix.T + shifted, LABYRINTH @ matrix.T + shifted)
    assert plain
    assert moved
    first = (LANDMARKS - plain.origin) @ plain.axes
    second = (LANDMARKS @ matrix.T + shifted - moved.origin) @ moved.axes
    assert np.allclose(first, second, atol=1e-6)
    assert np.allclose(moved.axes.T @ moved.axes, np.eye(3), atol=1e-9)
    same_side = np.linalg.det(moved.axes) * np.linalg.det(plain.axes) > 0
    assert same_side != mirrored


@pytest.mark.parametrize("same", [(1, 2), (0, 1)])
def test_landmarks_that_coincide_tell_nothing(same: tuple[int, int]) -> None:
    points = LANDMARKS.copy()
    points[same[0]] = points[same[1]] + 1e-3
    if same == (0, 1):
        points[2] = points[0] + [1.0, 0.0, 0.0]
    assert ear_frame(points, LABYRINTH) is None
    cube = np.ones((4, 4, 4))
    case = Case("S", "left", cube.astype(np.float32), cube > 0, np.eye(4), np.full((3, 3), 1.5))
    with pytest.raises(HydropsError, match="S: its landmarks do not tell"):
        in_ear_frame(prepare_case(case, 1.0))


def test_patches_of_a_turned_and_mirrored_image_are_the_same() -> None:
    """What a training sees of an ear does not depend on how it lies, nor on its side."""
    still = Augmentation(0.0, 0.0, 0.0, 0.0, False, 0.0, 0.0, 0.0)
    rng = np.random.default_rng(0)
    image = rng.normal(size=(24, 24, 24)).astype(np.float32)
    label = np.zeros(image.shape, bool)
    label[7:18, 8:17, 9:15] = True
    affine = np.eye(4)
    affine[:3, 3] = -12.0
    plain = Case("S", "left", image, label, affine, LANDMARKS)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", [40, 170, -80], degrees=True).as_matrix()
    matrix[:3, :3] = matrix[:3, :3] @ np.diag([1.0, -1.0, 1.0])
    matrix[:3, 3] = [5.0, -20.0, 9.0]
    moved = dataclasses.replace(
        plain, affine=matrix @ affine, landmarks=apply_affine(matrix, LANDMARKS)
    )
    first, second = (
        draw_patch(in_ear_frame(prepare_case(case, 1.0)), np.random.default_rng(1), 16, 1.0, still)
        for case in (plain, moved)
    )
    for one, other in zip(first, second):
        assert np.allclose(one, other, atol=1e-3)


def test_real_ears_of_both_sides_look_alike(shared_data: Path) -> None:
    """Along their own axes, landmarks of all specimens lie within 2 mm of their mean."""
    folder = shared_data / "bony-labyrinth"
    places = []
    for case in load_cases(folder, specimens_in(folder)):
        frame = ear_frame(case.landmarks, apply_affine(case.affine, np.argwhere(case.label)[::9]))
        assert frame
        assert np.linalg.det(frame.axes) * (1 if case.side == "left" else -1) > 0
        places.append((case.landmarks - frame.origin) @ frame.axes)
    assert np.linalg.norm(places - np.mean(places, axis=0), axis=-1).max() < 2.0


def test_a_cascade_without_a_pose_is_refused(tmp_path: Path) -> None:
    written = (REPOSITORY / "config" / "models" / "autocasnet.yaml").read_text()
    path = tmp_path / "model.yaml"
    path.write_text(written[: written.index("# The 3D network")])
    with pytest.raises(HydropsError, match="a cascade has a pose"):
        CtOptions.load(path)
    path.write_text(written.replace("kind: cascade", "kind: joint"))
    with pytest.raises(HydropsError, match="nothing else has"):
        CtOptions.load(path)
