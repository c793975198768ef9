"""Models of labelled CT: cases refused, patches, two kinds of network, bundles, folds."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial import Delaunay
from scipy.spatial.transform import Rotation

from bundles import all_bundles, network_of
from hydrops.cli import main
from hydrops.cohort import read_table, write_table
from hydrops.config import resolve
from hydrops.errors import ExcludedError, HydropsError
from hydrops.images import affine_of, average_onto, corners_of, part_under, resample
from hydrops.labels import LANDMARKS
from hydrops.model import ct_package
from hydrops.model.ablation import merged
from hydrops.model.augment import (
    Augmentation,
    Prepared,
    draw_patch,
    prepare_case,
    standardise,
)
from hydrops.model.bundle import WEIGHTS, Bundle, find_bundle, read_bundle
from hydrops.model.cascade import Cascade, PlaneTask, handed_on
from hydrops.model.cases import Case, cases_of_part, draw_folds, load_cases, specimens_in
from hydrops.model.compare_folds import count_tested, join_folds, write_fold_comparison
from hydrops.model.course import Phase
from hydrops.model.crossval import compare_variants, evaluate_cases, summarise_folds
from hydrops.model.ct import CtModel, find_labyrinth, train_ct
from hydrops.model.ct_ears import LABYRINTH_MM3, ear_fields, likeness, places
from hydrops.model.ct_look import Look, look_at
from hydrops.model.ct_package import (
    draw_boxes,
    load_ct_bundle,
    write_ct_bundle,
    write_ct_card,
)
from hydrops.model.ct_task import CtOptions, JointTask
from hydrops.model.field import (
    Field,
    _outside_hull,
    field_around,
    field_of,
    is_long,
    shown_field,
    without_metal,
)
from hydrops.model.folds import evaluate_parts
from hydrops.model.metrics import overlap_metrics
from hydrops.model.network import DualHeadUNet
from hydrops.model.surface import surface_by_signal, surface_share
from hydrops.model.tasks import CT_KINDS, find_trainings
from hydrops.model.taught import write_taught
from hydrops.model.train import TrainOptions
from hydrops.model.whole import largest_component, mirror_mean, onto_grid, own_axes, to_network
from hydrops.single import segment_files
from places import REPOSITORY
from specimens import write_specimen

STILL = Augmentation(0.0, 0.0, 0.0, 0.0, False, 0.0, 0.0, 0.0)
CONFIGURATIONS = REPOSITORY / "config" / "models"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("specimens")
    for number in range(4):
        write_specimen(place, f"S{number}", number, "left" if number % 2 else "right")
    return place


@pytest.fixture(params=["joint_unet3d_ct", "autocasnet"])
def options(request: pytest.FixtureRequest) -> CtOptions:
    return small(CtOptions.load(CONFIGURATIONS / f"{request.param}.yaml"))


def small(options: CtOptions) -> CtOptions:
    """A training of seconds, for ears that all lie alike."""
    return dataclasses.replace(
        options,
        phases=(Phase(60, 0.01, 1.0, 1.0),),
        patch=32,
        spacing_mm=0.5,
        validate_every=30,
        folds=2,
        network=dataclasses.replace(options.network, channels=(8, 16, 32)),
        augmentation=dataclasses.replace(options.augmentation, rotation_deg=20.0),
        pose=options.pose and small(options.pose),
    )


def test_each_specimen_is_tested_once_and_never_trained_on() -> None:
    names = [f"S{number:02d}" for number in range(14)]
    folds = draw_folds(names, 7, 1)
    assert [len(fold) for fold in folds] == [2] * 7
    assert sorted(sum(folds, ())) == names
    assert draw_folds(names, 7, 1) == folds != draw_folds(names, 7, 2)


@pytest.mark.parametrize(
    ("names", "count", "message"),
    [(["A"], 2, "cannot be dealt"), (["A", "B"], 1, "cannot be dealt")],
)
def test_folds_that_cannot_be_are_refused(names: list[str], count: int, message: str) -> None:
    with pytest.raises(HydropsError, match=message):
        draw_folds(names, count, 0)


def test_a_part_leaves_out_its_fold(folder: Path) -> None:
    names = specimens_in(folder)
    tested = draw_folds(names, 2, 5)[1]
    trained = [case.name for case in cases_of_part(folder, 2, 5, "1")]
    assert sorted([*tested, *trained]) == names
    assert [case.name for case in cases_of_part(folder, 2, 5, "all")] == names


def damaged(folder: Path, damage: str) -> None:
    image, label = (folder / "S0" / f"S0_{kind}.nii.gz" for kind in ("ct", "label"))
    read = nib.load(label)
    data = np.asarray(read.dataobj)
    if damage == "grid":
        nib.save(nib.Nifti1Image(data[:-1], read.affine), label)
    elif damage == "moved":
        moved = read.affine.copy()
        moved[0, 3] += 1.0
        nib.save(nib.Nifti1Image(data, moved), label)
    elif damage == "image as label":
        label.write_bytes(image.read_bytes())
    elif damage in ("empty", "full"):
        nib.save(nib.Nifti1Image(np.full_like(data, damage == "full"), read.affine), label)
    elif damage == "a piece":
        piece = data & (np.arange(data.shape[0])[:, None, None] > 26)
        nib.save(nib.Nifti1Image(piece, read.affine), label)
    elif damage == "bone":
        nib.save(nib.Nifti1Image(1 - data, read.affine), label)
    elif damage == "label as image":
        image.write_bytes(label.read_bytes())
    elif damage == "no image":
        image.unlink()
    elif damage == "cut off":
        label.write_bytes(label.read_bytes()[:500])
    else:
        table = pd.read_csv(folder / "landmarks.tsv", sep="\t")
        table.loc[table["landmark"] == "A", "x_ras_mm"] += 100.0
        table.to_csv(folder / "landmarks.tsv", sep="\t", index=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("grid", "differ in grid"),
        ("moved", "differ in grid"),
        ("image as label", "is this the image"),
        ("empty", "must hold 0 and 1, and this is 0 everywhere"),
        ("full", "must hold 0 and 1, and this is 1 everywhere"),
        ("a piece", r"S0_label\.nii\.gz: labels \d.* mm3, and a labyrinth has 50 to 1000"),
        ("bone", r"S0_label\.nii\.gz: labels \d.* mm3, and a labyrinth has 50 to 1000"),
        ("label as image", "is this the label"),
        ("no image", "is missing"),
        ("cut off", "not a readable"),
        ("landmark", "lies outside its image"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(
    tmp_path: Path, damage: str, message: str
) -> None:
    write_specimen(tmp_path, "S0", 0)
    damaged(tmp_path, damage)
    with pytest.raises(HydropsError, match=message):
        load_cases(tmp_path, ["S0"])


def change_table(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = folder / "landmarks.tsv"
    table = pd.read_csv(path, sep="\t", dtype=str, na_filter=False)
    change(table).to_csv(path, sep="\t", index=False)


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        ("x_ras_mm", "", "x_ras_mm of landmark OW of S0 is '', not a finite number"),
        ("y_ras_mm", "nan", "y_ras_mm of landmark OW of S0 is 'nan'"),
        ("z_ras_mm", "-inf", "z_ras_mm of landmark OW of S0 is '-inf'"),
        ("x_ras_mm", "-11,13", "is '-11,13', not a finite number; .* decimal point"),
        ("x_ras_mm", "abc", "is 'abc'"),
        ("side", "Left", "the side of S0 is 'Left'; write left or right"),
        ("side", "", "the side of S0 is ''"),
        ("side", "right", "S0 is of both sides"),
        ("landmark", "X", "S0 has a landmark 'X'; .* known are A, OW, RW, C, V"),
        ("landmark", "A", "landmark A of S0 is there twice"),
        ("specimen", "", r"a row \(landmark 'OW'\) names no specimen"),
    ],
)
def test_a_cell_that_cannot_be_used_is_named(
    tmp_path: Path, column: str, text: str, message: str
) -> None:
    def changed(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[table["landmark"] == "OW", column] = text
        return table

    write_specimen(tmp_path, "S0", 0)
    change_table(tmp_path, changed)
    with pytest.raises(HydropsError, match=rf"landmarks\.tsv: .*{message}"):
        load_cases(tmp_path, ["S0"])


def test_a_specimen_may_lack_the_landmarks_that_are_not_looked_for(tmp_path: Path) -> None:
    write_specimen(tmp_path, "S0", 0)
    change_table(tmp_path, lambda table: table[~table["landmark"].isin(["C", "V"])])
    assert load_cases(tmp_path, ["S0"])[0].landmarks.shape == (3, 3)
    change_table(tmp_path, lambda table: table[table["landmark"] != "RW"])
    with pytest.raises(HydropsError, match=r"landmarks\.tsv: S0 lacks RW; add"):
        load_cases(tmp_path, ["S0"])


def test_a_labelled_specimen_without_landmarks_is_not_passed_over(tmp_path: Path) -> None:
    for number in range(3):
        write_specimen(tmp_path, f"S{number}", number)
    change_table(tmp_path, lambda table: table[table["specimen"] != "S1"])
    with pytest.raises(HydropsError, match=r"landmarks\.tsv: has no rows for S1; .* move"):
        cases_of_part(tmp_path, 2, 5, "all")
    (tmp_path / "S1" / "S1_label.nii.gz").unlink()
    assert specimens_in(tmp_path) == ["S0", "S2"]


def test_what_cannot_be_tested_is_not_trained_for(tmp_path: Path) -> None:
    """The broken specimen is in the test set of one fold, and no other fold's either is trained."""
    for number in range(4):
        write_specimen(tmp_path, f"S{number}", number)
    damaged(tmp_path, "image as label")
    for part in ("0", "1", "all"):
        with pytest.raises(HydropsError, match=r"S0_label.*is this the image"):
            cases_of_part(tmp_path, 2, 5, part)


def test_one_image_under_two_names_is_refused(tmp_path: Path) -> None:
    for name in ("S0", "S1"):
        write_specimen(tmp_path, name, 0)
    with pytest.raises(HydropsError, match="S0 and S1 are one image"):
        load_cases(tmp_path, ["S0", "S1"])


def store_again(folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Both images of a specimen, changed and in floating point."""
    for kind in ("ct", "label"):
        path = folder / name / f"{name}_{kind}.nii.gz"
        read = nib.load(path)
        data = change(np.asarray(read.dataobj).astype(np.float32))
        nib.save(nib.Nifti1Image(data, read.affine), path)


def test_a_copy_is_known_by_its_landmarks_unless_it_is_of_the_same_person(tmp_path: Path) -> None:
    for name in ("S0", "S1"):
        write_specimen(tmp_path, name, 0)
    store_again(tmp_path, "S1", lambda data: data[:, :, :-1])
    with pytest.raises(HydropsError, match=r"S0 and S1 have the same landmarks.*persons\.tsv"):
        load_cases(tmp_path, ["S0", "S1"])
    (tmp_path / "persons.tsv").write_text("name\tperson\nS0\tA\nS1\tA\n")
    assert len(load_cases(tmp_path, ["S0", "S1"])) == 2


def test_an_image_in_other_units_is_the_same_image(tmp_path: Path) -> None:
    for name in ("S0", "S1"):
        write_specimen(tmp_path, name, 0)
    image = tmp_path / "S1" / "S1_ct.nii.gz"
    read = nib.load(image)
    data = 0.5 * np.asarray(read.dataobj).astype(np.float32) + 1.0
    nib.save(nib.Nifti1Image(data, read.affine), image)
    table = pd.read_csv(tmp_path / "landmarks.tsv", sep="\t")
    table.loc[table["specimen"] == "S1", "x_ras_mm"] += 0.1
    table.to_csv(tmp_path / "landmarks.tsv", sep="\t", index=False)
    with pytest.raises(HydropsError, match="S0 and S1 are one image"):
        load_cases(tmp_path, ["S0", "S1"])


def test_an_ear_that_lies_no_way_is_told_before_anything_is_trained(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*_: object) -> None:
        raise AssertionError("a network was trained")

    monkeypatch.setattr("hydrops.model.ct.run_course", trained)
    options = small(CtOptions.load(CONFIGURATIONS / "autocasnet.yaml"))
    *cases, last = load_cases(folder, specimens_in(folder))
    same = dataclasses.replace(last, landmarks=last.landmarks[[0, 1, 1]])
    with pytest.raises(HydropsError, match=rf"landmarks\.tsv, {last.name}: .*how the ear lies"):
        train_ct(options, [*cases, same], tmp_path)


def test_specimens_set_aside_watch_every_network_of_a_training(
    folder: Path, options: CtOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[tuple[set[str], set[str]]] = []

    def noting(task: type) -> Callable[..., object]:
        def made(made_of: CtOptions, cases: Sequence[Prepared], *rest: Any) -> object:
            names = [{c.case.name for c in part} for part in (cases, rest[-1])]
            parts.append((names[0], names[1]))
            return task(made_of, cases, *rest)

        return made

    for task in (JointTask, PlaneTask):
        monkeypatch.setattr(f"hydrops.model.ct.{task.__name__}", noting(task))
    phases = (Phase(1, 0.01, 1.0, 1.0),)
    options = dataclasses.replace(options, validation=1, validate_every=1, phases=phases)
    if options.pose:
        pose = dataclasses.replace(options.pose, validation=1, validate_every=1, phases=phases)
        options = dataclasses.replace(options, pose=pose)
    train_ct(options, load_cases(folder, specimens_in(folder)), tmp_path)
    histories = sorted(tmp_path.rglob("history.tsv"))
    assert len(histories) == len(parts) == (4 if options.pose else 1)
    for learned, watching in parts:
        assert learned | watching == set(specimens_in(folder))
        assert len(watching) == 1
        assert not learned & watching
    for path in histories:
        assert pd.read_csv(path, sep="\t")["dice"].between(0.0, 1.0).all()


def test_a_single_case_is_refused(folder: Path, options: CtOptions, tmp_path: Path) -> None:
    with pytest.raises(HydropsError, match="at least two"):
        train_ct(options, load_cases(folder, ["S0"]), tmp_path)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**16))
def test_label_and_landmarks_move_with_the_patch(seed: int) -> None:
    """A dot at each landmark is found again where the patch says that the landmark is."""
    affine = np.diag([0.3, 0.3, 0.3, 1.0])
    dots = np.array([[30, 30, 30], [38, 26, 33], [24, 35, 29]])
    grid = np.stack(np.meshgrid(*[np.arange(60)] * 3, indexing="ij"), -1)
    rng = np.random.default_rng(seed)
    bent = dataclasses.replace(Augmentation(), blur_mm=0.0, noise=0.0, contrast=0.0, shift_mm=1.0)
    for index, dot in enumerate(dots):
        image = np.exp(-((grid - dot) ** 2).sum(-1) / 8.0).astype(np.float32)
        case = Case("S", "left", image, image > 0.5, affine, dots * 0.3)
        patch, label, points = draw_patch(prepare_case(case, 0.3), rng, 48, 0.3, bent)
        weights = (patch[0] - patch.min()).numpy() ** 4
        centre = (np.indices(weights.shape) * weights).sum((1, 2, 3)) / weights.sum()
        assert points[index].numpy() == pytest.approx(centre, abs=0.6)
        assert label.max() > 0.5


def test_a_patch_that_is_not_moved_is_the_image(folder: Path) -> None:
    case = load_cases(folder, ["S1"])[0]
    rng = np.random.default_rng(0)
    patch, label, _ = draw_patch(prepare_case(case, 0.5), rng, 32, 0.5, STILL)
    assert patch.shape == label.shape == (1, 32, 32, 32)
    volume = case.label.sum() * 0.4 * 0.4 * 0.5
    assert float(label.sum()) * 0.5**3 == pytest.approx(volume, rel=0.05)


@pytest.mark.parametrize(("part", "changes"), [("fill", "label"), ("surround", "dark")])
def test_levels_change_inside_or_around_the_labyrinth_and_never_in_bone(
    part: str, changes: str
) -> None:
    i, j, _ = np.indices((24, 24, 24))
    label, dark = np.hypot(i - 12, j - 12) < 4, np.hypot(i - 18, j - 12) < 1.6
    image = np.where(label | dark, -1.0, 1.0).astype(np.float32)
    case = Case("made", "left", image, label, np.diag([0.5] * 3 + [1.0]), np.zeros((3, 3)))
    prepared = prepare_case(case, 0.5)
    plain = draw_patch(prepared, np.random.default_rng(0), 16, 0.5, STILL)[0]
    moved = []
    for seed in range(12):
        options = dataclasses.replace(STILL, **{part: 0.8})
        patch, share, _ = draw_patch(prepared, np.random.default_rng(seed), 16, 0.5, options)
        by = (patch - plain).abs()
        places = {"label": share > 0.99, "dark": (share < 0.01) & (plain < -0.5)}
        other = places["dark" if changes == "label" else "label"]
        assert by[(plain > 0.3) & (share < 0.01)].max() < 1e-4
        assert by[other].max() < 1e-4
        moved.append(float(by[places[changes]].max()))
    assert 3 <= np.sum(np.array(moved) > 0.01) <= 9  # in about half of the patches


def test_padding_is_what_hangs_together_with_a_corner() -> None:
    image = np.random.default_rng(0).normal(size=(12, 10, 8)).astype(np.float32)
    assert shown_field(image, np.eye(4)).image is image
    image[5, 5, 4] = -7.0
    for width in (((2, 1), (1, 3), (1, 2)), ((0, 0), (0, 3), (0, 0))):
        field = shown_field(np.pad(image, width, constant_values=-7.0), np.eye(4))
        assert np.array_equal(field.affine[:3, 3], [before for before, _ in width])
        assert np.array_equal(field.image, image)  # within it, the same value is a measurement
    nothing = np.full((4, 4, 4), 3.0, np.float32)
    assert shown_field(nothing, np.eye(4)).image is nothing


def test_a_cavity_that_opens_into_the_air_around_is_no_padding() -> None:
    """In a dried specimen air around, middle ear and labyrinth are one, if all are saturated."""
    rng = np.random.default_rng(0)
    bone = rng.normal(900.0, 50.0, (30, 28, 26)).astype(np.float32)
    bone[12:17, 12:16, :] = -500.0
    within = np.s_[8:38, 7:35, 6:32]
    image = np.full((45, 42, 40), -500.0, np.float32)
    image[within] = bone
    field = shown_field(image, np.eye(4))
    assert np.array_equal(field.affine[:3, 3], [8, 7, 6])
    assert np.array_equal(field.image, bone)


def test_a_corner_beyond_a_round_field_of_view_is_padding() -> None:
    """Real voxels may be as dark, if they are few or lie between others."""
    x, y, _ = np.indices((40, 40, 20))
    image = np.random.default_rng(0).normal(100.0, 1.0, (40, 40, 20)).astype(np.float32)
    image[-1, -1, -1] = image[20, 20, 10] = -3024.0
    assert shown_field(image, np.eye(4)).image is image
    outside = x + y < 20
    image[outside] = -3024.0
    shown = shown_field(image, np.eye(4)).image
    assert abs(shown[outside] - 100.0).max() < 0.5
    assert shown[20, 20, 10] == -3024.0
    assert np.array_equal(shown[~outside][:-1], image[~outside][:-1])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.005, 0.02, 0.3]))
def test_the_outside_of_a_hull_is_that_of_its_triangulation(seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((9, 14, 11)) < share
    points = np.argwhere(mask)
    assume(len(points) > 6)
    inside = Delaunay(points).find_simplex(np.argwhere(np.ones_like(mask)), tol=1e-9) >= 0
    assert np.array_equal(_outside_hull(mask), ~inside.reshape(mask.shape))


def test_a_round_field_of_view_is_filled_with_the_mean() -> None:
    image = np.random.default_rng(0).normal(100.0, 1.0, (30, 30, 6)).astype(np.float32)
    outside = np.hypot(*(np.indices((30, 30)) - 14.5)) > 14.6
    image[outside] = -3024.0
    shown = shown_field(image, np.eye(4)).image
    assert abs(shown[outside] - 100.0).max() < 0.1
    assert np.array_equal(shown[~outside], image[~outside])


@settings(max_examples=10, deadline=None)
@given(st.tuples(*[st.floats(-45.0, 45.0)] * 3), st.floats(0.3, 0.6))
def test_a_turned_volume_is_seen_along_its_own_axes(
    angles: tuple[float, float, float], voxel: float
) -> None:
    """Of a box that lies across an image the least box is its own, and it shows the same."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    assume(np.degrees(Rotation.from_matrix(turn[:3, :3]).magnitude()) > 12.0)
    size = np.array([24, 18, 15])
    noise = np.random.default_rng(0).normal(size=size)
    image = 100.0 + 20.0 * ndimage.gaussian_filter(noise, 2.0).astype(np.float32)
    own = turn @ np.diag([0.6, 0.6, 0.6, 1.0])
    reach = corners_of(size, own)
    grid = np.diag([voxel, voxel, voxel, 1.0])
    grid[:3, 3] = reach.min(0) - 1.0
    shape = tuple(int(n) for n in (np.ptp(reach, axis=0) + 2.0) // voxel + 1)
    across = resample(image + 1000.0, own, shape, grid, order=1) - 1000.0
    field = shown_field(across, grid)
    axes = field.affine[:3, :3] / voxel
    turned_by = np.abs(axes.T @ turn[:3, :3]).max(0)
    assert turned_by.min() > np.cos(np.radians(3.0))
    seen = np.prod(voxel * np.array(field.image.shape))
    assert 0.6 < seen / np.prod(0.6 * size) < 1.05
    there = resample(image, own, field.image.shape, field.affine, outside="nearest")
    assert np.abs(there - field.image)[2:-2, 2:-2, 2:-2].mean() < 0.3 * image.std()


def test_a_single_slice_in_an_empty_volume_is_left_as_it_lies() -> None:
    image = np.zeros((20, 20, 5), np.float32)
    x, y = np.indices((20, 20)) - 9.5
    image[..., 2] = np.where(abs(x) + abs(y) < 9.0, 100.0 + x + y, 0.0)
    field = shown_field(image, np.eye(4))
    assert field.image.shape[2] == 1
    assert np.array_equal(field.affine[:3, :3], np.eye(3))


def test_a_head_in_constant_air_is_left_as_it_lies() -> None:
    """What fills no box was not turned by any software."""
    x, y, z = np.indices((40, 40, 40)) - 19.5
    u, v = (x + y) / np.sqrt(2), (x - y) / np.sqrt(2)
    head = (u / 19.0) ** 2 + (v / 12.0) ** 2 + (z / 12.0) ** 2 < 1.0
    noise = np.random.default_rng(0).normal(40.0, 5.0, head.shape)
    field = shown_field(np.where(head, noise, -1000.0).astype(np.float32), np.eye(4))
    assert np.array_equal(field.affine[:3, :3], np.eye(3))


def test_an_ear_in_a_large_field_is_looked_at_in_a_small_one() -> None:
    affine = np.diag([0.5, 0.5, 1.0, 1.0])
    assert not is_long((50, 50, 26), affine)
    assert is_long((54, 50, 26), affine)
    box = field_around(np.array([60.0, 5.0, 30.0]), (120, 60, 36), affine)
    assert box == (slice(40, 81), slice(0, 26), slice(20, 36))
    assert affine_of(box, affine)[:3, 3].tolist() == [20.0, 0.0, 20.0]


def test_only_the_largest_piece_is_kept() -> None:
    probability = torch.zeros(12, 12, 12)
    probability[1:6, 1:6, 1:6] = 0.9
    probability[8:10, 8:10, 8:10] = 0.9
    kept = largest_component(probability)
    assert int((kept > 0.5).sum()) == 125
    assert not largest_component(torch.zeros(4, 4, 4)).any()


def test_a_small_training_finds_the_tube_and_survives_the_bundle(
    folder: Path, options: CtOptions, tmp_path: Path
) -> None:
    """Trained on three, tested on the fourth; the same from the bundle, in any orientation."""
    cases = load_cases(folder, specimens_in(folder))
    weights = train_ct(options, cases[:3], tmp_path / "run", threads=1)
    bundle = write_ct_bundle(options, cases[:3], weights, tmp_path / "models")
    model = load_ct_bundle(read_bundle(bundle.folder), torch.device("cpu"))
    assert model.surface_share == surface_share(cases[:3])
    older = {key: value for key, value in bundle.metadata.items() if key != "surface_share"}
    untold = dataclasses.replace(bundle, metadata=older)
    assert load_ct_bundle(untold, torch.device("cpu")).surface_share == 0.5
    rows = evaluate_cases(options.name, model, cases[3:], 0)
    assert rows["dice"].iloc[-1] > 0.8
    joint = options.kind == "joint"
    assert list(rows["variant"]) == (["joint"] if joint else ["coronal", "sagittal", "axial"])
    assert ("landmark_mm" in rows) == joint
    plain = find_labyrinth(model, cases[3].image, cases[3].affine)
    turned = np.ascontiguousarray(cases[3].image.transpose(2, 0, 1)[:, ::-1])
    affine = cases[3].affine[:, [2, 0, 1, 3]] @ np.array(
        [[1, 0, 0, 0], [0, -1, 0, 39], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    there = find_labyrinth(model, turned, affine).label[:, ::-1].transpose(1, 2, 0)
    assert (there != plain.label).mean() < 1e-3
    padded = np.pad(cases[3].image, 9, constant_values=-1024.0)
    moved = cases[3].affine.copy()
    moved[:3, 3] -= moved[:3, :3] @ (9, 9, 9)
    assert np.array_equal(find_labyrinth(model, padded, moved).label[9:-9, 9:-9, 9:-9], plain.label)
    summary, comparison = summarise_folds(rows), compare_variants(rows)
    picture = tmp_path / "boxes.png"
    draw_boxes(rows).savefig(picture)
    write_table(comparison, tmp_path / "comparison.tsv")
    comparison = pd.read_csv(tmp_path / "comparison.tsv", sep="\t")
    assert comparison.empty == joint
    card = write_ct_card(bundle, summary, comparison, [picture]).read_text()
    assert bundle.sha256 in card
    assert "dice" in card
    with (bundle.folder / WEIGHTS).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(HydropsError, match="sha256"):
        load_ct_bundle(bundle, torch.device("cpu"))


def test_an_image_without_a_labyrinth_is_refused(options: CtOptions) -> None:
    class Nothing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, image: torch.Tensor) -> object:
            shape = (1, 2, *image.shape[2:])
            logits = torch.zeros(shape)
            logits[:, 0] = 9.0
            return logits, torch.zeros((1, len(LANDMARKS), *image.shape[2:]))

    joint = CtModel(Nothing(), (options.pose or options).design, 0.5)
    model = CtModel(Nothing(), options.design, 0.5, joint) if options.pose else joint
    image = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
    with pytest.raises(ExcludedError, match="no inner ear"):
        find_labyrinth(model, image, np.diag([0.5, 0.5, 0.5, 1.0]))


def test_bundles_network_is_built_by_monai(
    folder: Path, options: CtOptions, tmp_path: Path
) -> None:
    """It gives, class by class, what this project's does."""
    weights = tmp_path / "weights.pt"
    torch.manual_seed(2)
    built = (
        Cascade(options.network, options.pose.network)
        if options.pose
        else DualHeadUNet(options.network)
    ).eval()
    torch.save(built.state_dict(), weights)
    bundle = write_ct_bundle(options, load_cases(folder, ["S0"]), weights, tmp_path / "models")
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        classes = network_of(bundle.folder)(image)[0]
        if isinstance(built, Cascade):
            labyrinth = built(image[0])["axial"]
            torch.testing.assert_close(classes[1], labyrinth)
            torch.testing.assert_close(classes[0], 1.0 - labyrinth)
        else:
            torch.testing.assert_close(classes, built(image)[0][0])
    assert json.loads((bundle.folder / "configs" / "metadata.json").read_text())["roles"] == ["CT"]


def test_tests_of_variants_are_paired_and_corrected() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"model": "m", "variant": v, "specimen": f"S{n}", "person": f"P{n}",
         "dice": 0.9 + gain + rng.normal(0, 1e-3)}
        for v, gain in (("a", 0.0), ("b", 0.02), ("c", 0.02)) for n in range(14)
    ]  # fmt: skip
    cases = pd.DataFrame(rows)
    table = compare_variants(cases).set_index(["first", "second"])
    assert (table["p_corrected"] >= table["p"]).all()
    assert table.loc[("m a", "m b"), "p_corrected"] < 0.01 < table.loc[("m b", "m c"), "p"]
    assert table.loc[("m a", "m b"), "median_difference"] == pytest.approx(-0.02, abs=2e-3)
    # Both ears of a person count once.
    assert set(compare_variants(cases.assign(person=cases["person"].str[:2]))["n"]) == {10}
    # Variants that no specimen shares have no test, and none that others are corrected for.
    apart = cases[(cases["variant"] == "a") == (cases["specimen"] == "S0")]
    assert len(compare_variants(apart)) == 1


def test_a_model_is_found_by_its_name() -> None:
    training = {"model": "paired_unet3d", "configurations": str(CONFIGURATIONS)}
    (default,) = find_trainings({"training": training})
    assert not default.on_ct
    (found,) = find_trainings({"training": training, "model": "autocasnet"})
    assert found.on_ct
    assert found.folds == 7
    with pytest.raises(HydropsError, match="there are: autocasnet"):
        find_trainings({"training": training, "model": "nothing"})


def test_several_models_are_named_together_on_ct_alone() -> None:
    training = {"model": "paired_unet3d", "configurations": str(CONFIGURATIONS)}
    names = ["joint_unet3d_ct", "autocasnet"]
    assert [t.name for t in find_trainings({"training": training, "model": names})] == names
    with pytest.raises(HydropsError, match="unet2d: only models of CT"):
        find_trainings({"training": training, "model": ["autocasnet", "unet2d"]})
    with pytest.raises(HydropsError, match="named twice"):
        find_trainings({"training": training, "model": ["autocasnet", "autocasnet"]})


def cross_validated(model: str, variants: Sequence[str], seed: int) -> pd.DataFrame:
    """As `evaluate_cases` leaves it, of a model that is a little better with each variant."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(14):
        base = 0.95 + rng.normal(0, 0.002)
        for place, variant in enumerate(variants):
            row = {
                "model": model, "variant": variant, "part": "test", "specimen": f"S{number}",
                "person": f"S{number}", "fold": number % 7,
                "dice": base + place * rng.uniform(4e-3, 5e-3),
                "hausdorff95_mm": 0.2, "surface_distance_mm": 0.03 + rng.normal(0, 1e-3),
            }  # fmt: skip
            rows.append(row | ({"landmark_mm": 0.3} if model.startswith("joint") else {}))
    return pd.DataFrame(rows)


def test_models_of_one_cross_validation_are_compared_on_one_page(tmp_path: Path) -> None:
    names = {"joint_unet3d_ct": ["joint"], "autocasnet": ["coronal", "sagittal", "axial"]}
    trainings = [CtOptions.load(CONFIGURATIONS / f"{name}.yaml") for name in names]
    tables = [cross_validated(n, v, seed) for seed, (n, v) in enumerate(names.items())]
    drawn = {name: tmp_path / f"{name}_drawn.png" for name in names}
    for picture in drawn.values():
        draw_boxes(tables[0]).savefig(picture)
    folder = tmp_path / "page"
    write_fold_comparison(trainings, tables, drawn, folder)
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "nan" not in page
    assert "Real CT of 14 specimens" in page
    assert "2000 (pose), 600 a plane" in page
    for picture in ("boxes", *names):
        assert f"({picture}.png)" in page
        assert (folder / f"{picture}.png").stat().st_size > 5000
    measures = read_table(folder / "measures.tsv").set_index(["model", "variant", "measure"])
    axial = tables[1].query("variant == 'axial'")["dice"]
    assert measures.loc[("autocasnet", "axial", "dice"), "mean"] == pytest.approx(
        axial.mean(), abs=1e-5
    )
    assert ("autocasnet", "axial", "landmark_mm") not in measures.index
    tests = read_table(folder / "comparison.tsv").set_index(["measure", "first", "second"])
    assert len(tests) == 2 * 6  # every two of four, by two measures
    row = tests.loc[("dice", "autocasnet coronal", "autocasnet axial")]
    assert row["p"] == pytest.approx(2 / 2**14, abs=1e-5)  # all fourteen differences of one sign
    assert row["p_corrected"] == pytest.approx(12 * 2 / 2**14, abs=1e-4)


def test_models_tested_on_other_folds_are_not_compared() -> None:
    ours, theirs = (cross_validated(n, ["v"], 0) for n in ("joint_unet3d_ct", "autocasnet"))
    with pytest.raises(HydropsError, match="autocasnet were not tested on the same specimens"):
        join_folds([ours, theirs[theirs["specimen"] != "S3"]])
    with pytest.raises(HydropsError, match="same `folds` and `seed`"):
        join_folds([ours, theirs.assign(fold=0)])


def test_padding_around_padding_is_none_of_an_image() -> None:
    """A round field of view that another tool has put into a larger box of another value."""
    rng = np.random.default_rng(0)
    image = rng.normal(0.0, 300.0, (60, 60, 20)).astype(np.float32)
    x, y = np.indices((60, 60)) - 29.5
    image[np.hypot(x, y) > 30.0] = -3024.0
    once = shown_field(image, np.eye(4))
    twice = shown_field(np.pad(image, 8, constant_values=-1024.0), np.eye(4))
    assert np.array_equal(once.image, twice.image)
    assert (once.image > -3000.0).all()
    assert np.allclose(twice.affine[:3, 3], 8.0)


def test_padding_may_have_a_value_or_two_beside_it() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(0.0, 300.0, (30, 30, 20)).astype(np.float32)
    padded = np.pad(image, 6, constant_values=-3000.0)
    padded[padded == -3000.0] += rng.integers(-1, 2, (padded == -3000.0).sum())
    shown = shown_field(padded.astype(np.float32), np.eye(4))
    assert np.array_equal(shown.image, image)


def test_metal_becomes_as_bright_as_bone_and_an_image_without_any_stays() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(-1000.0, 2000.0, (40, 40, 40)).astype(np.float32)
    plain = Field(image, np.eye(4))
    assert without_metal(plain) is plain
    metal = image.copy()
    metal[:8, :8, :8] = 30000.0
    seen = without_metal(Field(metal, np.eye(4))).image
    assert 2000.0 < seen.max() < 4000.0
    assert np.array_equal(seen[8:], image[8:])
    # What is bright in a twentieth of the image, or more, is no ball of metal.
    metal[:8] = 30000.0
    much = Field(metal, np.eye(4))
    assert without_metal(much) is much


def test_a_close_field_holds_its_points_and_three_millimetres_around() -> None:
    affine = np.diag([0.5, 0.25, 1.0, 1.0])
    affine[:3, 3] = (3.0, -8.0, 1.0)
    whole = Field(np.arange(40 * 60 * 20, dtype=np.float32).reshape(40, 60, 20), affine)
    points = apply_affine(affine, [[15.0, 20.0, 2.0], [20.0, 30.0, 9.0]])
    close = field_of(points, whole)
    assert close.image.shape == (18, 35, 13)  # below, the image ends two slices off
    first = np.linalg.inv(affine) @ close.affine[:, 3]
    assert np.allclose(first[:3], (9, 8, 0))
    assert np.array_equal(close.image, whole.image[9:27, 8:43, :13])


@pytest.mark.parametrize("bundle", ["joint_unet3d_ct", "autocasnet"])
def test_a_specimen_that_lies_in_air_is_seen_from_closer_up(bundle: str, shared_data: Path) -> None:
    """On a specimen that the weights were trained on, so this says nothing about how well."""
    case = load_cases(shared_data / "bony-labyrinth", ["T01"])[0]
    voxel = np.linalg.norm(case.affine[:3, :3], axis=0)
    widths = [(round(3.0 / mm),) * 2 for mm in voxel]
    inside = np.pad(np.ones(case.image.shape, bool), widths)
    air = np.random.default_rng(0).normal(-1000.0, 40.0, inside.shape).astype(np.float32)
    image = np.where(inside, np.pad(case.image, widths), air)
    affine = case.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ [before for before, _ in widths]
    model = load_ct_bundle(find_bundle(REPOSITORY / "models", bundle), torch.device("cpu"))
    found = model.find(image, affine)
    assert overlap_metrics(found.label, np.pad(case.label, widths))["dice"] > 0.94
    for name, truth in zip(LANDMARKS, case.landmarks):
        if name in found.landmarks:
            assert np.linalg.norm(np.array(found.landmarks[name]) - truth) < 1.2


ON_CT = [b for b in all_bundles(REPOSITORY / "models") if b.metadata.get("kind") in CT_KINDS]


@pytest.mark.parametrize("bundle", ON_CT, ids=lambda bundle: bundle.identifier)
def test_a_shipped_bundle_is_small_and_keeps_the_contract(
    bundle: Bundle, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a specimen that it was trained on, so this says nothing about how well it does."""
    files = [path for path in bundle.folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10e6
    card = (bundle.folder / "docs" / "README.md").read_text()
    for words in (bundle.sha256, "Cross-validation", "dice", "published"):
        assert words in card
    case = shared_data / "bony-labyrinth" / "T01"
    arguments = ["segment", str(case / "T01_ct.nii.gz"), "--output", str(tmp_path)]
    arguments += ["--model", bundle.identifier, "--models-dir", str(REPOSITORY / "models")]
    assert main(arguments) == 0
    told = capsys.readouterr()
    written = [Path(line) for line in told.out.splitlines()]
    assert ("finds no landmarks" in told.err) == (not bundle.metadata["landmarks"])
    label = nib.load(case / "T01_label.nii.gz")
    found = nib.load(written[0])
    assert np.allclose(found.affine, label.affine)
    masks = [np.asarray(image.dataobj) > 0 for image in (found, label)]
    assert overlap_metrics(*masks)["dice"] > 0.9
    assert len(written) == (4 if bundle.metadata["landmarks"] else 2)
    with pytest.raises(HydropsError, match="takes CT"):
        segment_files([case / "T01_ct.nii.gz"] * 2, bundle, tmp_path)


@pytest.mark.parametrize("bundle", ON_CT, ids=lambda bundle: bundle.identifier)
def test_a_specimen_may_lie_any_way(bundle: Bundle, shared_data: Path) -> None:
    """Head up, down or on its side, and oblique: the same; scaled and shifted levels, too."""
    (case,) = load_cases(shared_data / "bony-labyrinth", ["T01"])
    model = load_ct_bundle(bundle, torch.device("cpu"))
    lying = np.eye(4)
    lying[:3, :3] = Rotation.from_euler("xyz", [100, 35, -70], degrees=True).as_matrix()
    plain = model.find(case.image, case.affine)
    found = model.find(0.4 * case.image + 300.0, lying @ case.affine)
    assert overlap_metrics(found.label, case.label)["dice"] > 0.95
    assert overlap_metrics(found.label, plain.label)["dice"] > 0.98
    for name, truth in zip(LANDMARKS, case.landmarks):
        if name in found.landmarks:
            there = apply_affine(np.linalg.inv(lying), found.landmarks[name])
            assert np.linalg.norm(there - truth) < 0.7


def with_both_ears(case: Case, voxel_mm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A specimen on its right and, mirrored, on its left side of a long image; and its label."""
    shape = tuple(int(mm / voxel_mm) for mm in (104.0, 26.0, 26.0))
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = -voxel_mm * (np.array(shape) - 1) / 2
    image = np.random.default_rng(3).normal(500.0, 60.0, shape).astype(np.float32)
    label = np.zeros(shape, bool)
    middle = apply_affine(case.affine, (np.array(case.image.shape) - 1) / 2)
    for sign in (1.0, -1.0):
        place = np.diag([sign, 1.0, 1.0, 1.0])
        place[:3, 3] = middle - (37.5, 0.0, 0.0)
        parts = (np.ones_like(case.image), case.image, case.label.astype(np.float32))
        there, seen, inside = average_onto(
            np.stack(parts), case.affine, shape, affine, place, order=1
        )
        image = np.where(there > 0.99, seen, image)
        label |= inside > 0.5
    return image, label, affine


@pytest.mark.parametrize("bundle", ON_CT, ids=lambda bundle: bundle.identifier)
def test_both_ears_of_an_image_are_found_and_told_apart(
    bundle: Bundle, shared_data: Path, tmp_path: Path
) -> None:
    """On a specimen that it was trained on, in bone that is not there."""
    (case,) = load_cases(shared_data / "bony-labyrinth", ["T01"])
    image, label, affine = with_both_ears(case, 0.4)
    nib.save(nib.Nifti1Image(image.astype(np.int16), affine), tmp_path / "both.nii.gz")
    segmented, *told, measures = segment_files([tmp_path / "both.nii.gz"], bundle, tmp_path)
    found = np.asarray(nib.load(segmented).dataobj) > 0
    half = len(found) // 2
    for part in (slice(0, half), slice(half, None)):
        assert overlap_metrics(found[part], label[part])["dice"] > 0.85
    volumes = [ear["labyrinth_mm3"] for ear in json.loads(measures.read_text())["ears"].values()]
    assert volumes == pytest.approx([found.sum() / 2 * 0.4**3] * 2, rel=0.1)
    if not told:
        assert not bundle.metadata["landmarks"]
        return
    ears = json.loads(told[0].read_text())
    assert set(ears) == {"left", "right"}
    middle = apply_affine(case.affine, (np.array(case.image.shape) - 1) / 2)
    for side, sign in (("right", 1.0), ("left", -1.0)):
        for name, truth in zip(LANDMARKS, case.landmarks):
            there = (truth - middle + (37.5, 0.0, 0.0)) * (sign, 1.0, 1.0)
            assert np.linalg.norm(ears[side][name]["ras_mm"] - there) < 1.2


def test_what_has_labyrinth_enough_but_not_every_landmark_is_no_ear() -> None:
    grid = np.diag([0.5, 0.5, 0.5, 1.0])
    labyrinth = np.ones((12, 12, 12), bool)
    probability, points = torch.ones(labyrinth.shape), np.zeros((3, 3))
    sure, unsure = (
        likeness(Look(probability, labyrinth, grid, points, np.array([0.9, 0.9, share])))
        for share in (0.9, 1e-6)
    )
    assert sure == pytest.approx(0.9 * LABYRINTH_MM3)
    assert unsure < 0.02 * LABYRINTH_MM3
    little = labyrinth & (np.arange(12) < 6)
    half = likeness(Look(probability, little, grid, points, np.full(3, 0.9)))
    assert half == pytest.approx(0.9 * 12 * 12 * 6 * 0.125)


@given(
    st.floats(50.0, 100.0), st.sampled_from([-1.0, 1.0]), st.floats(1.0, 40.0), st.integers(0, 99)
)
def test_pieces_are_gathered_to_places(
    apart_mm: float, sign: float, size: float, seed: int
) -> None:
    """Canals that came off count for their ear; what lies between two ears is a third place."""
    rng = np.random.default_rng(seed)
    first, other = np.array([sign * 30.0, 5.0, -8.0]), np.array([sign * (30.0 - apart_mm), 0, 0])
    around = [rng.uniform(-4.0, 4.0, (2, 3)) + ear for ear in (first, other)]
    between = np.array([[sign * 5.0, 0.0, 0.0]])
    middles = np.concatenate([first[None], *around, other[None], between])
    sizes = np.array([200.0, size, size, size, size, 90.0, 150.0])
    shuffled = rng.permutation(len(sizes))
    found = places(middles[shuffled], sizes[shuffled])
    assert len(found) == 3
    for centre, ear in zip(found, (first, between[0], other)):
        assert np.linalg.norm(centre - ear) < 7.0


def bright_is_labyrinth(image: np.ndarray, affine: np.ndarray) -> Look:
    """A network that takes all bright for labyrinth; the brighter, the surer its landmarks."""
    sure = 0.2 * float(image.max())
    inside = torch.from_numpy((image > 0.5).astype(np.float32))
    piece = largest_component(inside).numpy() > 0.5
    return Look(inside, piece, affine, np.zeros((3, 3)), np.full(3, sure))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("also", [(), (1.0,), (2.5,)])
def test_an_ear_is_told_from_larger_cavities_by_its_landmarks(
    also: tuple[float, ...], order: tuple[int, ...]
) -> None:
    """The clearest place comes first, and away from it whatever is most like an ear there.

    However the head lies: in the second order both ears are apart from front to back.
    """
    affine = np.diag([0.5, 0.5, 0.5, 1.0])
    affine[:3, 3] = (-50.0, -15.0, -15.0)
    affine[:3] = affine[list(order)]
    # What is around differs as much as bone and air, so that nothing here is as bright as metal.
    image = np.random.default_rng(0).uniform(-6.0, 0.3, (200, 60, 60)).astype(np.float32)
    image[90:106, 20:36, 20:36] = 1.0  # no ear, in the middle, but the largest
    image[170:182, 24:36, 24:36] = 3.0
    for level in also:
        image[20:32, 26:38, 26:38] = level
    fields = list(ear_fields(bright_is_labyrinth, image, affine))
    middles = [apply_affine(f.affine, (np.array(f.image.shape) - 1) / 2) for f in fields]
    assert np.allclose(middles[0], np.array((37.75, -0.25, -0.25))[list(order)], atol=0.6)
    across = np.array((-37.25, 0.75, 0.75))[list(order)]
    assert len(fields) == (2 if also else 1)
    assert not also or np.allclose(middles[1], across, atol=0.6)
    for field in fields:
        part, there = part_under(field.image.shape, field.affine, image.shape, affine)
        assert np.array_equal(there, field.affine)
        assert np.array_equal(image[part], field.image)


def test_where_no_landmark_is_found_there_is_no_ear(options: CtOptions) -> None:
    """A cavity that a network takes for labyrinth, with heatmaps that are the same all over."""

    class Cavity(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, image: torch.Tensor) -> object:
            return torch.cat([-image, image], 1), torch.zeros(1, 3, *image.shape[2:])

    joint = CtModel(Cavity(), (options.pose or options).design, 0.5)
    model = CtModel(Cavity(), options.design, 0.5, joint) if options.pose else joint
    image = np.zeros((40, 40, 40), np.float32)
    image[10:30, 10:30, 10:30] = 1.0
    with pytest.raises(ExcludedError, match="no inner ear"):
        find_labyrinth(model, image, np.diag([0.4, 0.4, 0.4, 1.0]))


@given(st.floats(0.45, 0.6), st.floats(2.2, 4.0), st.floats(0.0, 3.0))
def test_coarse_voxels_reach_the_network_sharp(
    voxel_mm: float, wavelength_mm: float, phase: float
) -> None:
    """A wave stays one between its voxels; linear interpolation would flatten it half way."""
    along = voxel_mm * np.arange(60)
    wave = np.sin(2 * np.pi * along / wavelength_mm + phase)
    image = np.broadcast_to(wave[:, None, None], (60, 12, 12)).astype(np.float32)
    affine, grid = np.diag([*[voxel_mm] * 3, 1.0]), np.diag([0.4, 0.4, 0.4, 1.0])
    grid[:3, 3] = (4.0, 2.0, 2.0)
    seen = onto_grid(image, affine, grid, (50, 4, 4))[0, :, 1, 1].numpy()
    there = grid[0, 3] + 0.4 * np.arange(50)
    truth = np.sin(2 * np.pi * there / wavelength_mm + phase)
    left = [1.0 - np.corrcoef(x, truth)[0, 1] for x in (seen, np.interp(there, along, wave))]
    assert left[0] < 1e-3
    assert left[0] < left[1]


@pytest.mark.parametrize("landmark", range(3))
def test_a_higher_peak_too_far_from_the_other_landmarks_is_not_taken(landmark: int) -> None:
    """Distances are those of a specimen; another peak of one heatmap is 1.6 times as high."""
    truth = np.array([[10, 12, 14], [25, 12, 14], [25, 19, 14]])
    places = np.indices((40, 40, 40))

    def heat(voxel: Sequence[float]) -> np.ndarray:
        square = ((places - np.reshape(voxel, (3, 1, 1, 1))) ** 2).sum(0)
        return np.asarray(np.exp(-square / 2))

    heats = np.stack([heat(voxel) for voxel in truth])
    heats[landmark] += 1.6 * heat((30, 34, 33))

    class Seeing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = torch.stack([torch.zeros_like(image[0]), torch.full_like(image[0], 9.0)], 1)
            return logits, torch.from_numpy(np.log(heats + 1e-6)).float()[None]

    affine = np.diag([0.4, 0.4, 0.4, 1.0])
    look = look_at(Seeing(), 0.4, np.random.default_rng(0).random((40,) * 3, np.float32), affine)
    found = apply_affine(np.linalg.inv(look.grid), look.points)
    assert np.allclose(found, truth, atol=0.1)
    assert look.shares[landmark] < 0.5 < np.delete(look.shares, landmark).min()


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 0.7))
@settings(deadline=None, max_examples=15)
def test_an_oblique_image_is_seen_along_its_own_axes(seed: int, spacing_mm: float) -> None:
    """Turned by less than would name its axes anew, it shows a network just the same."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(14, 18, 11)).astype(np.float32)
    affine = np.diag([-0.4, 0.5, 0.6, 1.0])[:, [1, 0, 2, 3]]
    affine[:3, 3] = rng.uniform(-50, 50, 3)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(rng.uniform(-0.4, 0.4, 3)).as_matrix()
    plain, grid = to_network(image, affine, spacing_mm)
    turned, there = to_network(image, turn @ affine, spacing_mm)
    assert np.allclose(grid[:3, :3], spacing_mm * np.eye(3))
    assert np.allclose(there, turn @ grid, atol=1e-6)
    assert np.allclose(turned, plain, atol=1e-3)


def test_a_tilted_gantrys_image_is_seen_on_axes_at_right_angles() -> None:
    affine = np.diag([0.4, 0.4, 0.6, 1.0])
    affine[1, 2] = 0.6 * np.tan(np.radians(20.0))
    axes = own_axes(affine)
    assert np.allclose(axes @ axes.T, np.eye(3))
    assert np.degrees(np.arccos(np.diag(axes).min())) < 20.0
    volume, grid = to_network(np.zeros((20, 20, 20), np.float32), affine, 0.5)
    within = corners_of((20, 20, 20), np.linalg.inv(grid) @ affine)
    assert (within > -0.5).all()
    assert (within < np.array(volume.shape[1:]) - 0.5).all()


def ball(radius_mm: float, size: int, voxel_mm: float) -> np.ndarray:
    """Share of each voxel that a ball takes, by five samples along each axis."""
    fine = (np.arange(5 * size) + 0.5) * voxel_mm / 5 - size * voxel_mm / 2
    inside = (fine**2)[:, None, None] + (fine**2)[:, None] + fine**2 < radius_mm**2
    return np.asarray(inside.reshape(size, 5, size, 5, size, 5).mean((1, 3, 5)), np.float32)


def surface_case(noise: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Share of a dark ball in bone, its image, and what a coarse network makes of it; affine."""
    affine = np.diag([0.2, 0.2, 0.2, 1.0])
    share = ball(2.0, 40, 0.2)
    rng = np.random.default_rng(seed)
    image = 1500.0 - 1400.0 * share + rng.normal(0, noise, share.shape)
    rough = ndimage.gaussian_filter(ball(1.85, 40, 0.2), 1.2).astype(np.float32)
    return share, image.astype(np.float32), rough, affine


@pytest.mark.parametrize("noise", [0.0, 100.0])
def test_brightness_mends_a_surface_that_the_network_sets_too_far_in(noise: float) -> None:
    share, image, rough, affine = surface_case(noise, 1)
    found = surface_by_signal(rough, rough > 0.5, image, affine, 0.5)
    before, after = (overlap_metrics(p > 0.5, share > 0.5)["dice"] for p in (rough, found))
    assert before < 0.93
    assert after > 0.98
    assert found.sum() == pytest.approx(share.sum(), rel=0.02)
    scaled = surface_by_signal(rough, rough > 0.5, 3 * image - 50, affine, 0.5)
    assert np.allclose(scaled, found, atol=1e-4)


def test_where_there_is_no_contrast_the_networks_word_stands() -> None:
    _, image, rough, affine = surface_case(0.0, 1)
    flat = np.random.default_rng(0).normal(0, 500, image.shape).astype(np.float32)
    assert np.array_equal(surface_by_signal(rough, rough > 0.5, flat, affine, 0.5), rough)
    nothing = np.zeros_like(rough)
    assert np.array_equal(surface_by_signal(nothing, nothing > 0.5, image, affine, 0.5), nothing)


def test_the_noisier_an_image_the_less_it_says() -> None:
    """Where its noise would roughen the surface, the network smooths it."""
    share, image, _, affine = surface_case(350.0, 2)
    rough = ndimage.gaussian_filter(share, 1.2)
    found = surface_by_signal(rough, rough > 0.5, image, affine, 0.5)
    doubtful = (rough > 0.1) & (rough < 0.9)
    by_signal = np.where(doubtful, ((1500.0 - image) / 1400.0).clip(0.0, 1.0), rough)
    errors = [((p - share)[doubtful] ** 2).mean() for p in (found, by_signal, rough)]
    assert errors[0] < 0.9 * min(errors[1:])


@given(st.sampled_from([0.42, 0.46, 0.5, 0.53, 0.57]), st.floats(10, 5000), st.floats(-500, 500))
@settings(deadline=None, max_examples=10)
def test_the_share_at_the_surface_is_that_of_the_labels(
    at: float, gain: float, offset: float
) -> None:
    """Drawn at a level of its own, whatever the units; and drawn there by a model that knows it."""
    # A ball's voxels have few shares that differ; those of an ellipsoid off the middle, many.
    affine, place = np.diag([0.2, 0.2, 0.2, 1.0]), np.arange(40) - 19.5
    along = (1.03 * place + 0.21, 0.96 * place - 0.13, 1.01 * place + 0.07)
    radius = np.sqrt(along[0][:, None, None] ** 2 + along[1][:, None] ** 2 + along[2] ** 2)
    share = (1.0 / (1.0 + np.exp((radius - 10.3) / 0.6))).astype(np.float32)
    rough = ndimage.gaussian_filter(share, 1.2)
    noise = np.random.default_rng(3).normal(0.0, 0.01, share.shape)
    image = (gain * (noise - share) + offset).astype(np.float32)
    label = share > at
    told = surface_share([Case("S0", "left", image, label, affine, np.zeros((0, 3)))])
    assert told == pytest.approx(at, abs=0.015)
    found = surface_by_signal(rough, rough > 0.5, image, affine, told)
    assert overlap_metrics(found > 0.5, label)["dice"] > 0.97


def test_labels_without_contrast_tell_no_share_at_the_surface() -> None:
    share, image, _, affine = surface_case(0.0, 1)
    flat = np.random.default_rng(0).normal(0, 500, image.shape).astype(np.float32)
    case = Case("S0", "left", flat, share > 0.5, affine, np.zeros((0, 3)))
    assert surface_share([case]) == 0.5


def test_dark_cavities_beside_the_labyrinth_are_left_to_the_network() -> None:
    _, image, rough, affine = surface_case(0.0, 1)
    canal = ball(1.0, 40, 0.2)
    image -= 1400.0 * np.roll(canal, 17, axis=0)
    found = surface_by_signal(rough, rough > 0.5, image, affine, 0.5)
    apart = np.roll(canal, 17, axis=0) > 0.5
    assert not (found > 0.5)[apart & (rough < 0.05)].any()


def test_an_image_and_its_mirror_image_give_mirrored_results() -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 2, 3, padding=1)
    volume = torch.randn(1, 12, 10, 8)
    with torch.no_grad():
        for axes in ((0,), (0, 1, 2)):
            found = mirror_mean(network, volume, 8, axes)
            for axis in axes:
                other = mirror_mean(network, volume.flip(axis + 1), 8, axes).flip(axis + 1)
                assert torch.allclose(found, other, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.integers(97, 150), st.integers(4, 60), st.sampled_from([24, 48]), st.floats(0.0, 0.7))
def test_a_large_volume_tells_how_much_of_it_has_been_seen(
    length: int, width: int, patch: int, overlap: float
) -> None:
    told: list[str] = []
    log, listening = logging.getLogger("hydrops.model.whole"), logging.Handler()
    listening.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(listening)
    log.setLevel(logging.INFO)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("hydrops.model.whole.TELL_AFTER_S", -1.0)
        mirror_mean(lambda batch: batch, torch.zeros(1, length, width, 8), patch, (), overlap)
    log.setLevel(logging.NOTSET)
    log.removeHandler(listening)
    pieces = len(told)
    assert pieces > 1
    assert told == [f"seen {n} of {pieces} pieces" for n in range(1, pieces + 1)]


def test_a_ct_model_cannot_run_a_cohort_of_mri(folder: Path, tmp_path: Path) -> None:
    """A bundle that needs CT is refused by name before anything runs."""
    weights = tmp_path / "weights.pt"
    options = CtOptions.load(CONFIGURATIONS / "autocasnet.yaml")
    assert options.pose
    torch.save(Cascade(options.network, options.pose.network).state_dict(), weights)
    write_ct_bundle(options, load_cases(folder, ["S0"]), weights, tmp_path / "models")
    shipped = yaml.safe_load((REPOSITORY / "config" / "config.yaml").read_text())
    relative = ("participants", "protocol", "phantom")
    configuration = {**shipped, **{key: str(REPOSITORY / shipped[key]) for key in relative}}
    configuration |= {"models": ["autocasnet"], "models_dir": str(tmp_path / "models")}
    with pytest.raises(HydropsError, match="needs CT, which the protocol does not give"):
        resolve(configuration)


def test_a_plane_that_has_learned_nothing_repeats_the_one_before(options: CtOptions) -> None:
    if options.pose is None:
        pytest.skip("no cascade")
    torch.manual_seed(1)
    cascade = Cascade(options.network, options.pose.network).eval()
    with torch.no_grad():
        found = cascade(torch.randn(1, 16, 16, 16))
        kept = largest_component(found["coronal"]) > 0
        assert kept.any()
        for plane in ("sagittal", "axial"):
            same = found["coronal"].clamp(1e-4, 1 - 1e-4)
            assert torch.allclose(found[plane][kept], same[kept], atol=1e-5)
        cascade.planes["axial"].weight.fill_(1.0)
        assert not torch.allclose(cascade(torch.randn(1, 16, 16, 16))["axial"], same, atol=0.1)


def test_a_plane_is_given_the_largest_piece_with_its_partial_volume() -> None:
    probability = torch.full((16, 16, 16), 0.3)
    probability[2:8, 2:8, 2:8] = 0.9
    probability[12:14, 12:14, 12:14] = 0.9
    given_on = handed_on(probability)[0]
    assert torch.equal(given_on[1:9, 1:9, 1:9], probability[1:9, 1:9, 1:9])
    assert given_on.sum() == pytest.approx(float(probability[1:9, 1:9, 1:9].sum()))


def test_networks_that_find_nothing_at_all_are_not_a_result(folder: Path, tmp_path: Path) -> None:
    values = yaml.safe_load((CONFIGURATIONS / "joint_unet3d_ct.yaml").read_text())
    values |= {"folds": 2, "network": values["network"] | {"channels": [4, 8]}}
    configuration, weights = tmp_path / "model.yaml", tmp_path / "weights.pt"
    configuration.write_text(yaml.safe_dump(values))
    network = DualHeadUNet(CtOptions.load(configuration).network)
    network.segmentation.weight.data.zero_()
    network.segmentation.bias.data = torch.tensor([9.0, -9.0])
    torch.save(network.state_dict(), weights)
    write_taught(weights, {})
    with pytest.raises(HydropsError, match=r"nothing was found in any case \(the model finds no"):
        evaluate_parts(configuration, folder, [weights] * 2, tmp_path / "pictures")


def test_a_network_is_not_tested_on_specimens_that_it_was_taught(
    options: CtOptions, folder: Path, tmp_path: Path
) -> None:
    """Where a specimen has come since the training, folds are dealt anew."""
    cases = load_cases(folder, specimens_in(folder))
    weights = tmp_path / "weights.pt"
    torch.save({}, weights)
    tested = draw_folds([case.name for case in cases], 2, options.seed)[0]
    write_taught(weights, {tested[0]: "1a"})
    with pytest.raises(HydropsError, match=f"learned from {tested[0]}, which it would be tested"):
        ct_package.tested_fold(options, cases, weights, 0)


def test_specimens_may_be_called_by_numbers_or_like_no_value(tmp_path: Path) -> None:
    for seed, name in enumerate(("001", "002", "NA")):
        write_specimen(tmp_path, name, seed)
    assert specimens_in(tmp_path) == ["001", "002", "NA"]
    assert [case.name for case in load_cases(tmp_path, ["002", "NA"])] == ["002", "NA"]


def test_a_fold_that_a_model_does_not_have_is_told(folder: Path) -> None:
    with pytest.raises(HydropsError, match="there is no fold 2; they are 0 to 1"):
        cases_of_part(folder, 2, 1, "2")


@pytest.mark.parametrize(
    ("words", "told"),
    [("kind: [", "not YAML"), ("- joint", "holds no keys"), ("folds: 7", "'phases' is a required")],
)
def test_a_configuration_that_cannot_be_read_is_told(tmp_path: Path, words: str, told: str) -> None:
    (tmp_path / "mine.yaml").write_text(words)
    config = {"model": "mine", "training": {"configurations": str(tmp_path)}}
    with pytest.raises(HydropsError, match=f"(?s)mine.yaml: .*{told}"):
        find_trainings(config)


@pytest.mark.parametrize(
    ("model", "change", "told"),
    [
        ("joint_unet3d_ct", {"phases": {"learning_rate": "1e-3"}}, "it is text: write 0.001"),
        ("joint_unet3d_ct", {"phases": {"steps": 0}}, "steps: 0 is less than"),
        ("joint_unet3d_ct", {"version": 2.0}, "version: 2.0 is not of type 'string'"),
        ("joint_unet3d_ct", {"kind": "joints"}, "kind: 'joints' is not one of"),
        ("joint_unet3d_ct", {"folds": True}, "folds: True is not of type 'integer'"),
        ("joint_unet3d_ct", {"folds": 1}, "folds: 1 is less than"),
        ("joint_unet3d_ct", {"augmentation": {"mirror": "no"}}, "mirror: 'no' is not of type"),
        ("joint_unet3d_ct", {"network": {"inputs": 2}}, "inputs: 1 was expected"),
        ("joint_unet3d_ct", {"name": "another"}, "name: another, but the file is joint_unet3d_ct"),
        ("autocasnet", {"spacing_mm": -0.4}, "spacing_mm: -0.4 is less than"),
        ("lesion_unet3d", {"data": 5}, "data: 5 is not of type"),
        ("paired_unet3d", {"calibration_heads": "80"}, "calibration_heads: '80' is not of type"),
        ("paired_unet3d", {"missing_second_image": 2}, "missing_second_image: 2 is greater"),
        ("paired_unet3d", {"patch": [48, 48]}, "patch: \\[48, 48\\] is too short"),
        ("paired_unet3d", {"network": {"channels": []}}, "channels: \\[\\] "),
        ("paired_unet3d", {"folds": 3}, "folds: is no key of this kind"),
        ("paired_unet3d", {"phases": {"stepz": 3}}, "'stepz' was unexpected"),
        ("joint_unet3d_ct", {"phantoms": 3}, "phantoms: is no key of this kind"),
        ("lesion_unet3d", {"network": {"chanels": [8, 16]}}, "'chanels' was unexpected"),
    ],
)
def test_a_wrong_value_is_told_before_anything_runs(
    model: str, change: dict[str, object], told: str, tmp_path: Path
) -> None:
    values = yaml.safe_load((CONFIGURATIONS / f"{model}.yaml").read_text())
    (tmp_path / f"{model}.yaml").write_text(yaml.safe_dump(merged(values, change)))
    config = {"model": model, "training": {"configurations": str(tmp_path)}}
    with pytest.raises(HydropsError, match=f"(?s){model}.yaml: .*{told}"):
        find_trainings(config)


@pytest.mark.parametrize("model", ["paired_unet3d", "joint_unet3d_ct", "lesion_unet3d"])
@pytest.mark.parametrize("key", ["seed", "batch", "validate_every", "patch", "phases"])
def test_a_key_that_is_left_out_is_told_before_anything_runs(
    model: str, key: str, tmp_path: Path
) -> None:
    values = yaml.safe_load((CONFIGURATIONS / f"{model}.yaml").read_text())
    del values[key]
    (tmp_path / f"{model}.yaml").write_text(yaml.safe_dump(values))
    config = {"model": model, "training": {"configurations": str(tmp_path)}}
    with pytest.raises(HydropsError, match=f"'{key}' is a required property"):
        find_trainings(config)


def test_every_configuration_that_is_kept_is_as_it_must_be() -> None:
    for path in CONFIGURATIONS.glob("*.yaml"):
        config = {"model": path.stem, "training": {"configurations": str(CONFIGURATIONS)}}
        (training,) = find_trainings(config)
        images = training.images(REPOSITORY)
        assert images == (None if training.kind == "lesion" else REPOSITORY)
        if training.on_ct:
            with pytest.raises(HydropsError, match="nowhere: there is no such folder to learn"):
                training.images(Path("nowhere"))
        commented = path.read_text() + "# a comment changes nothing that is trained"
        assert json.loads(training.options) == yaml.safe_load(commented)


def test_a_patch_is_a_multiple_of_what_the_levels_make_one(tmp_path: Path) -> None:
    for model, patch, load in (
        ("joint_unet3d_ct", 15, CtOptions.load),
        ("paired_unet3d", [47, 48, 24], TrainOptions.load),
    ):
        values = yaml.safe_load((CONFIGURATIONS / f"{model}.yaml").read_text())
        path = tmp_path / f"{model}.yaml"
        path.write_text(yaml.safe_dump(values | {"patch": patch}))
        with pytest.raises(HydropsError, match="is no multiple of 8"):
            load(path)
    path.write_text(yaml.safe_dump(values | {"patch": [480, 48, 24]}))
    with pytest.raises(HydropsError, match="more than a crop has voxels"):
        TrainOptions.load(path)


def test_a_network_has_no_more_levels_than_a_grid_can_be_halved_for(tmp_path: Path) -> None:
    values = yaml.safe_load((CONFIGURATIONS / "joint_unet3d_ct.yaml").read_text())
    values["network"]["channels"] = [8, 8, 8, 8, 8]
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(HydropsError, match="give it fewer levels"):
        CtOptions.load(path)


def test_what_a_model_refused_is_told_beside_what_it_found() -> None:
    cases = pd.DataFrame(
        {
            "model": ["a", "a", "b", "b"], "variant": ["joint", "joint", "joint", ""],
            "specimen": ["S1", "S2", "S1", "S2"], "fold": [0, 1, 0, 1], "part": "test",
            "dice": [0.9, 0.5, 0.9, np.nan], "reason": [None, None, None, "no inner ear"],
        }
    )  # fmt: skip
    table = count_tested(cases).set_index("model")
    assert table.loc["a"].tolist() == [2, 2, "none"]
    assert table.loc["b"].tolist() == [2, 1, "S2: no inner ear"]


def test_the_scale_of_an_image_hangs_on_all_of_it() -> None:
    """Matrix 448: a step through its voxels that came back to the first slice each time."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((448, 448, 128), np.float32)
    image[..., 0] = 0.001 * image[..., 0] - 50.0
    scaled = standardise(torch.from_numpy(image)).numpy()[..., 1:]
    assert scaled.mean() == pytest.approx(0.0, abs=0.05)
    assert scaled.std() == pytest.approx(1.0, abs=0.1)


@settings(max_examples=20)
@given(st.integers(0, 2**16))
def test_the_largest_piece_is_found_where_it_lies(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probability = ndimage.gaussian_filter(rng.random((12, 13, 14)), 1.0)
    probability = ((probability - probability.min()) / np.ptp(probability)).astype(np.float32)
    pieces, count = ndimage.label(probability > 0.5, np.ones((3, 3, 3)))
    sizes = [int((pieces == number).sum()) for number in range(1, count + 1)]
    kept = largest_component(torch.from_numpy(probability)).numpy()
    assert (kept > 0).sum() == max(sizes)
    assert np.array_equal(kept[kept > 0], probability[kept > 0])
    assert not largest_component(torch.zeros(4, 4, 4)).any()
