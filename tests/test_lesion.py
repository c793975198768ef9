"""A lesion of any shape: cases refused, simulation, a small training, both parts reported."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from bundles import network_of
from hydrops.errors import HydropsError
from hydrops.images import save_image
from hydrops.model.augment import prepare_case
from hydrops.model.bundle import Bundle
from hydrops.model.cases import Case, load_pairs, set_aside, split_cases
from hydrops.model.course import Phase
from hydrops.model.crossval import compare_parts, summarise_folds
from hydrops.model.fold_training import load_options, train_part
from hydrops.model.folds import evaluate_parts, package_folds
from hydrops.model.lesion import (
    LesionOptions,
    LesionTask,
    draw_middle,
    lesion_network,
    train_lesion,
)
from hydrops.model.lesion_package import (
    evaluate_lesion_folds,
    load_lesion_bundle,
    write_lesion_bundle,
)
from hydrops.model.lesions import draw_cases
from hydrops.model.tasks import find_trainings
from hydrops.model.taught import refuse_taught, taught_by, write_taught
from hydrops.single import segment_files
from places import REPOSITORY

CONFIGURATIONS = REPOSITORY / "config" / "models"
PARTS = ("train", "test")


def small() -> LesionOptions:
    options = LesionOptions.load(CONFIGURATIONS / "lesion_unet3d.yaml")
    network = dataclasses.replace(options.network, channels=(8, 16, 32), residual_units=0)
    return dataclasses.replace(
        options,
        simulated=4,
        folds=2,
        spacing_mm=2.0,
        patch=24,
        validation=0,
        validate_every=40,
        phases=(Phase(40, 0.01, 1.0, 1.0),),
        network=network,
    )


def write_configuration(folder: Path, **changes: object) -> Path:
    values = yaml.safe_load((CONFIGURATIONS / "lesion_unet3d.yaml").read_text())
    options = small()
    values |= {
        key: getattr(options, key)
        for key in ("simulated", "folds", "spacing_mm", "patch", "validation")
    }
    values |= {"phases": [dataclasses.asdict(phase) for phase in options.phases]}
    values["network"] |= {"channels": [8, 16, 32], "residual_units": 0}
    path = folder / "lesion_unet3d.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return draw_cases(4, 5)


def write_pairs(folder: Path, cases: list[Case]) -> Path:
    for case in cases:
        save_image(folder / f"{case.name}_image.nii.gz", case.image, case.affine)
        save_image(folder / f"{case.name}_label.nii.gz", case.label.astype(np.uint8), case.affine)
    return folder


def test_simulated_lesions_are_bright_irregular_and_whole(cases: list[Case]) -> None:
    spacings = {tuple(np.linalg.norm(case.affine[:3, :3], axis=0).round(2)) for case in cases}
    assert len(spacings) == len(cases)
    for case in cases:
        assert case.image[case.label].mean() > 1.5 * case.image[~case.label].mean()
        volume = case.label.sum() * abs(np.linalg.det(case.affine[:3, :3]))
        assert 300 < volume < 15000
        box = np.ptp(np.argwhere(case.label), axis=0) + 1
        assert case.label.sum() < 0.52 * box.prod()  # a ball fills 0.52 of its box
    again = draw_cases(4, 5)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(cases, again))


def test_pairs_come_back_as_they_were_written(tmp_path: Path, cases: list[Case]) -> None:
    read = load_pairs(write_pairs(tmp_path, cases))
    assert [case.name for case in read] == [case.name for case in cases]
    for there, here in zip(read, cases):
        assert np.array_equal(there.label, here.label)
        assert np.allclose(there.affine, here.affine, atol=1e-4)


def test_a_pair_may_be_uncompressed_but_not_there_in_both_ways(
    tmp_path: Path, cases: list[Case]
) -> None:
    write_pairs(tmp_path, cases[:3])
    packed = tmp_path / f"{cases[1].name}_image.nii.gz"
    plain = packed.with_suffix("")
    nib.save(nib.load(packed), plain)
    with pytest.raises(HydropsError, match=rf"{packed.name}: is there as {plain.name} too"):
        load_pairs(tmp_path)
    packed.unlink()
    read = load_pairs(tmp_path)
    assert [case.name for case in read] == [case.name for case in cases[:3]]
    assert np.array_equal(read[1].image, cases[1].image)


def noisy(case: Case) -> Case:
    noise = np.random.default_rng(1).normal(0.0, 50.0, case.image.shape)
    return dataclasses.replace(case, image=np.abs(case.image + noise).astype(np.float32))


def in_other_units(case: Case) -> Case:
    moved = np.roll(case.label, 1, axis=0)
    return dataclasses.replace(case, image=0.5 * case.image + 1.0, label=moved)


def cut(case: Case) -> Case:
    """Without the slices at both ends."""
    affine = case.affine.copy()
    affine[:3, 3] += affine[:3, 2]
    return dataclasses.replace(
        case, image=case.image[..., 1:-1], label=case.label[..., 1:-1], affine=affine
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (noisy, "have the same label"),
        (in_other_units, "are one image"),
        (cut, "have the same label"),
    ],
)
def test_a_copy_that_has_changed_is_known(
    tmp_path: Path, cases: list[Case], change: Callable[[Case], Case], message: str
) -> None:
    copy = dataclasses.replace(change(cases[0]), name="other")
    write_pairs(tmp_path, [*cases[:2], copy])
    with pytest.raises(HydropsError, match=f"other and {cases[0].name} {message}"):
        load_pairs(tmp_path)


def test_two_images_of_a_person_may_share_a_label(tmp_path: Path, cases: list[Case]) -> None:
    write_pairs(tmp_path, [cases[0], dataclasses.replace(noisy(cases[0]), name="other")])
    (tmp_path / "persons.tsv").write_text(f"name\tperson\n{cases[0].name}\tA\nother\tA\n")
    assert len(load_pairs(tmp_path)) == 2


def damage(folder: Path, how: str) -> None:
    image, label = (folder / f"simulated000_{kind}.nii.gz" for kind in ("image", "label"))
    read = nib.load(label)
    data = np.asarray(read.dataobj)
    if how == "grid":
        save_image(label, data[:-1], read.affine)
    elif how == "moved":
        moved = read.affine.copy()
        moved[:3, 3] += 1.0
        save_image(label, data, moved)
    elif how == "image as label":
        label.write_bytes(image.read_bytes())
    elif how == "label as image":
        image.write_bytes(label.read_bytes())
    elif how in ("empty", "full"):
        save_image(label, np.full_like(data, how == "full"), read.affine)
    elif how == "no image":
        image.unlink()
    elif how == "no label":
        label.unlink()
    elif how == "twice":
        for path in (image, label):
            (folder / path.name.replace("simulated000", "other")).write_bytes(path.read_bytes())
    else:
        values = np.asarray(nib.load(image).dataobj).copy()
        values[0, 0, 0] = np.nan
        save_image(image, values, read.affine)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("grid", "differ in grid"),
        ("moved", "differ in grid"),
        ("image as label", "is this the image"),
        ("label as image", "is this the label"),
        ("empty", "must hold 0 and 1, and this is 0 everywhere"),
        ("full", "must hold 0 and 1, and this is 1 everywhere"),
        ("no image", "the image is missing"),
        ("no label", "the label is missing"),
        ("twice", "trained on and tested"),
        ("nan", "not numbers"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(
    tmp_path: Path, cases: list[Case], how: str, message: str
) -> None:
    damage(write_pairs(tmp_path, cases[:2]), how)
    with pytest.raises(HydropsError, match=message):
        load_pairs(tmp_path)


def test_an_empty_folder_and_a_single_case_are_refused(tmp_path: Path, cases: list[Case]) -> None:
    with pytest.raises(HydropsError, match="holds no pairs"):
        load_pairs(tmp_path)
    with pytest.raises(HydropsError, match="at least two"):
        train_lesion(small(), cases[:1], tmp_path / "run")
    configuration = write_configuration(tmp_path, data=str(write_pairs(tmp_path, cases[:1])))
    with pytest.raises(HydropsError, match="cannot be dealt"):
        train_part(configuration, tmp_path, "0", tmp_path / "run", "cpu", 1)
    assert not (tmp_path / "run").exists()


def test_a_case_is_in_one_part_only(cases: list[Case]) -> None:
    seen = []
    for fold in ("0", "1"):
        train, test = ([case.name for case in part] for part in split_cases(cases, 2, 3, fold))
        assert not set(train) & set(test)
        assert sorted(train + test) == [case.name for case in cases]
        seen += test
    assert sorted(seen) == [case.name for case in cases]
    assert len(split_cases(cases, 2, 3, "all")[0]) == len(cases)
    with pytest.raises(HydropsError, match="in both parts"):
        split_cases([*cases, cases[0]], 2, 3, "0")


def of_two(cases: list[Case]) -> list[Case]:
    """Two cases each of two persons."""
    return [dataclasses.replace(case, person="AB"[n % 2]) for n, case in enumerate(cases)]


def test_all_cases_of_a_person_are_in_one_part(tmp_path: Path, cases: list[Case]) -> None:
    write_pairs(tmp_path, cases)
    table = pd.DataFrame({"name": [c.name for c in cases], "person": ["A", "B", "A", "B"]})
    table.to_csv(tmp_path / "persons.tsv", sep="\t", index=False)
    read = load_pairs(tmp_path)
    assert [case.person for case in read] == ["A", "B", "A", "B"]
    for fold in ("0", "1"):
        taught, tested = split_cases(read, 2, 3, fold)
        assert {case.person for case in taught} ^ {case.person for case in tested} == {"A", "B"}
    learned, watching = set_aside(read, 1, 3)
    assert {case.person for case in learned} ^ {case.person for case in watching} == {"A", "B"}
    with pytest.raises(HydropsError, match="cannot be dealt"):
        split_cases(read, 3, 3, "0")
    pd.concat([table, table[:1]]).to_csv(tmp_path / "persons.tsv", sep="\t", index=False)
    with pytest.raises(HydropsError, match=rf"more than once whose these are: {cases[0].name}"):
        load_pairs(tmp_path)
    table[:3].to_csv(tmp_path / "persons.tsv", sep="\t", index=False)
    with pytest.raises(HydropsError, match=rf"persons\.tsv: .*whose these are: {cases[3].name}"):
        load_pairs(tmp_path)
    table.rename(columns={"person": "who"}).to_csv(tmp_path / "persons.tsv", sep="\t")
    with pytest.raises(HydropsError, match="needs the columns name and person"):
        load_pairs(tmp_path)


def test_persons_set_aside_watch_a_training_and_are_not_learned_from(
    tmp_path: Path, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dataclasses.replace(
        small(), validation=1, validate_every=2, phases=(Phase(4, 0.01, 1.0, 1.0),)
    )
    tasks: list[LesionTask] = []

    class Noted(LesionTask):
        def __init__(self, *told: Any) -> None:
            super().__init__(*told)
            tasks.append(self)

    monkeypatch.setattr("hydrops.model.lesion.LesionTask", Noted)
    train_lesion(options, cases, tmp_path / "run", threads=1)
    history = pd.read_csv(tmp_path / "run" / "history.tsv", sep="\t")
    assert history["dice"].between(0.0, 1.0).all()
    assert set(taught_by(tmp_path / "run" / "weights.pt")) == {case.name for case in cases}
    learned, watching = set_aside(cases, 1, options.seed)
    assert sorted(c.name for c in (*learned, *watching)) == [c.name for c in cases]
    assert len(watching) == 1
    (noted,) = tasks
    assert [c.case.name for c in noted.cases] == [c.name for c in learned]
    assert [c.case.name for c in noted.watching] == [c.name for c in watching]
    task = LesionTask(options, [prepare_case(c, 2.0) for c in learned])
    assert task.validate(task.network, options.phases[0]) == {}
    with pytest.raises(HydropsError, match="2 of 2 cannot be set aside"):
        set_aside(of_two(cases), 2, 3)
    with pytest.raises(HydropsError, match="-1 of 4 cannot be set aside"):
        set_aside(cases, -1, 3)


def test_what_watched_counts_neither_as_learned_from_nor_as_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dataclasses.replace(small(), simulated=6, validation=1)
    weights = [tmp_path / fold / "weights.pt" for fold in ("0", "1")]
    parts = {fold: split_cases(options.cases(), 2, options.seed, fold) for fold in ("0", "1")}
    for path in weights:
        path.parent.mkdir()
        torch.save(lesion_network(options.network).state_dict(), path)
        write_taught(path, {c.name: c.digest for c in parts[path.parent.name][0]})
    monkeypatch.setattr(
        "hydrops.model.lesion_package.evaluate_cases",
        lambda _name, _model, cases, fold, part: pd.DataFrame(
            {"fold": fold, "part": part, "specimen": [case.name for case in cases]}
        ),
    )
    tried = evaluate_lesion_folds(options, weights)
    for fold, (taught, tested) in parts.items():
        of_fold = tried[tried["fold"] == int(fold)].groupby("part")["specimen"].agg(set)
        learned, watching = set_aside(taught, 1, options.seed)
        assert of_fold["test"] == {case.name for case in tested}
        assert of_fold["train"] == {case.name for case in learned}
        assert len(watching) == 1


def test_a_case_that_was_learned_from_under_another_name_is_not_tested(
    tmp_path: Path, cases: list[Case]
) -> None:
    options = dataclasses.replace(small(), data=str(write_pairs(tmp_path, cases)))
    weights = tmp_path / "0" / "weights.pt"
    weights.parent.mkdir()
    torch.save(lesion_network(options.network).state_dict(), weights)
    tested = split_cases(options.cases(), 2, options.seed, "0")[1][0]
    write_taught(weights, {"before": tested.digest})
    assert set(taught_by(weights)) == {"before"}
    with pytest.raises(HydropsError, match=rf"from {tested.name} \(then before\), which"):
        evaluate_lesion_folds(options, [weights])


def test_names_that_an_earlier_training_left_are_understood(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    (tmp_path / "taught.json").write_text('["F01", "F02"]')
    assert set(taught_by(weights)) == {"F01", "F02"}
    refuse_taught(weights, {"F03": "1a"})
    with pytest.raises(HydropsError, match="learned from F02, which"):
        refuse_taught(weights, {"F02": "1a", "F03": "1a"})


def test_what_watches_is_judged_by_its_own_label(cases: list[Case]) -> None:
    """What takes the bright for lesion agrees better with a label than with one that has moved."""

    class Bright(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.full_like(image, 1.5), image], dim=1)

    case = cases[0]
    other = dataclasses.replace(case, label=np.roll(case.label, 12, axis=0))
    dice = {}
    for name, watched in (("its own", case), ("another", other)):
        task = LesionTask(small(), [], [prepare_case(watched, 2.0)])
        dice[name] = task.validate(Bright(), small().phases[0])["dice"]
    assert dice["its own"] > 3.0 * dice["another"] > 0.0


def test_most_patches_lie_on_the_lesion_and_some_do_not(cases: list[Case]) -> None:
    rng = np.random.default_rng(0)
    case = cases[0]
    inside = []
    for _ in range(200):
        point = np.linalg.inv(case.affine) @ [*draw_middle(case, rng), 1.0]
        inside.append(case.label[tuple(np.round(point[:3]).astype(int))])
    assert 0.6 < np.mean(inside) < 0.85


def test_a_step_reaches_every_weight(cases: list[Case]) -> None:
    options = small()
    task = LesionTask(options, [prepare_case(case, options.spacing_mm) for case in cases[:2]])
    phase = options.phases[0]
    drawn = task.samples(phase, 0, 2)
    assert drawn[0][0].shape == drawn[0][1].shape == (1, 24, 24, 24)
    assert torch.equal(drawn[1][0], drawn[1][0])
    batch = [torch.stack(part) for part in zip(*(drawn[i] for i in range(2)))]
    loss, parts = task.loss(task.network, batch, phase)
    loss.backward()
    assert all(p.grad is not None for p in task.network.parameters())
    assert set(parts) == {"entropy", "dice"}


def test_folds_are_trained_tested_on_both_parts_and_packaged(tmp_path: Path) -> None:
    """The whole workflow's work, by the functions that its scripts call."""
    configuration = write_configuration(tmp_path)
    weights = [
        train_part(configuration, tmp_path, part, tmp_path / part, "cpu", 1)
        for part in ("0", "1", "all")
    ]
    tables = evaluate_parts(configuration, tmp_path, weights[:2], tmp_path / "pictures")
    counts = tables["cases"].groupby("part").size()
    assert counts.to_dict() == {"test": 4, "train": 4}
    assert tables["cases"].groupby(["fold", "part"])["specimen"].nunique().tolist() == [2] * 4
    assert tables["cases"].loc[tables["cases"]["part"] == "train", "dice"].mean() > 0.5
    summary = tables["summary"].set_index(["part", "measure"])
    for part, published in zip(PARTS, ("0.9975", "0.6062")):
        assert summary.loc[(part, "dice"), "published"] == published
    (row,) = tables["comparison"].to_dict("records")
    assert row["gap"] == pytest.approx(row["train"] - row["test"])
    pictures = sorted((tmp_path / "pictures").glob("*.png"))
    assert [path.stem for path in pictures] == ["boxes", "overlays"]
    bundle = package_folds(
        configuration, tmp_path, weights[2], tmp_path / "models", tables, pictures, ""
    )
    card = (bundle.folder / "docs" / "README.md").read_text()
    for words in (bundle.sha256, "Simulation", "overfitting", "train", "test", "0.6062"):
        assert words in card
    case = draw_cases(1, 77)[0]
    turned = np.ascontiguousarray(case.image.transpose(2, 0, 1)[:, ::-1])
    size = case.image.shape[0]
    affine = case.affine[:, [2, 0, 1, 3]] @ np.array(
        [[1, 0, 0, 0], [0, -1, 0, size - 1], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    for name, image, grid in (("plain", case.image, case.affine), ("turned", turned, affine)):
        save_image(tmp_path / f"{name}.nii.gz", image, grid)
    found = {}
    for name in ("plain", "turned"):
        written = segment_files([tmp_path / f"{name}.nii.gz"], bundle, tmp_path / "out")
        assert [path.name for path in written] == [f"{name}_dseg.nii.gz", f"{name}_measures.json"]
        label = nib.load(written[0])
        assert np.allclose(label.affine, affine if name == "turned" else case.affine, atol=1e-4)
        found[name] = np.asarray(label.dataobj)
    assert (found["turned"][:, ::-1].transpose(1, 2, 0) != found["plain"]).mean() < 1e-3


class Nothing(torch.nn.Module):
    """A network that finds no lesion anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.ones_like(image), -torch.ones_like(image)], dim=1)


def a_bundle(folder: Path) -> Bundle:
    options = small()
    torch.manual_seed(0)
    torch.save(lesion_network(options.network).state_dict(), folder / "weights.pt")
    return write_lesion_bundle(options, folder / "weights.pt", folder / "models")


def test_an_image_without_a_lesion_has_an_empty_label_and_a_dice_of_zero(
    tmp_path: Path, cases: list[Case]
) -> None:
    from hydrops.model.crossval import evaluate_cases

    model = load_lesion_bundle(a_bundle(tmp_path), torch.device("cpu"))
    model = dataclasses.replace(model, network=Nothing())
    rows = pd.concat([evaluate_cases("m", model, cases[:2], 0, part) for part in PARTS])
    assert rows["dice"].tolist() == [0.0] * 4
    assert len(summarise_folds(rows)["part"].unique()) == 2


def test_the_bundles_network_is_built_by_monai(tmp_path: Path) -> None:
    bundle = a_bundle(tmp_path)
    known = load_lesion_bundle(bundle, torch.device("cpu"))
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network_of(bundle.folder)(image), known.network(image))
    assert json.loads((bundle.folder / "configs" / "metadata.json").read_text())["roles"] == ["T2"]


@pytest.mark.parametrize(("test", "flag"), [(0.6, "yes"), (0.95, "no")])
def test_a_fall_from_training_to_test_is_flagged(test: float, flag: str) -> None:
    rows = [
        {"model": "m", "part": part, "variant": "unet3d", "dice": dice}
        for part, dice in (("train", 0.99), ("test", test)) for _ in range(5)
    ]  # fmt: skip
    (row,) = compare_parts(pd.DataFrame(rows)).to_dict("records")
    assert row["overfitting"] == flag
    assert (row["train"], row["test"]) == pytest.approx((0.99, test))


def test_it_is_trained_in_folds_and_is_not_of_ct() -> None:
    training = {"model": "lesion_unet3d", "configurations": str(CONFIGURATIONS)}
    (found,) = find_trainings({"training": training})
    assert found.in_folds
    assert not found.on_ct
    assert isinstance(load_options(found.path), LesionOptions)


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(HydropsError, match="stepps"):
        LesionOptions.load(write_configuration(tmp_path, stepps=3))
