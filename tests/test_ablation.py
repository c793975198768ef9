"""Ablations: every change is one of the model's keys, is made, and is told beside the model."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from hydrops.errors import HydropsError
from hydrops.model.ablate import changed_options, train_change
from hydrops.model.ablation import UNCHANGED, Grid, merged
from hydrops.model.ablation_table import evaluate_changes, tabulate_changes
from hydrops.model.architectures import build_network
from hydrops.model.ct_task import CtOptions
from hydrops.model.network import NetworkOptions
from hydrops.model.tasks import find_trainings
from places import REPOSITORY
from specimens import write_specimen

NAME = "joint_unet3d_ct"
CONFIGURATION = REPOSITORY / "config" / "models" / f"{NAME}.yaml"
GRID = Grid.load(REPOSITORY / "config" / "ablation" / f"{NAME}.yaml")


def flat(values: object, where: str = "") -> dict[str, object]:
    if isinstance(values, dict):
        pairs = [flat(value, f"{where}.{key}") for key, value in values.items()]
        return {key: value for part in pairs for key, value in part.items()}
    return {where: values}


@pytest.mark.parametrize(("name", "least"), [(NAME, 12), ("autocasnet", 2)])
def test_every_change_changes_one_thing(name: str, least: int) -> None:
    configuration = REPOSITORY / "config" / "models" / f"{name}.yaml"
    grid = Grid.load(REPOSITORY / "config" / "ablation" / f"{name}.yaml")
    assert len(grid.changes) > least
    plain = flat(dataclasses.asdict(changed_options(grid, configuration, UNCHANGED)))
    steps = CtOptions.load(configuration).phases[0].steps
    assert plain[".phases"][0]["steps"] == round(grid.steps * steps)
    for change in grid.changes:
        made = flat(dataclasses.asdict(changed_options(grid, configuration, change)))
        different = [key for key in plain if made[key] != plain[key]]
        assert len(different) == (change != UNCHANGED), (change, different)


def test_keys_are_set_at_any_depth_and_in_every_entry_of_a_list() -> None:
    values = {"a": 1, "b": {"c": 2, "d": 3}, "e": [{"f": 4, "g": 5}, {"f": 6, "g": 7}]}
    changes = {"b": {"c": 9}, "e": {"f": 0}}
    assert merged(values, changes) == {
        "a": 1, "b": {"c": 9, "d": 3}, "e": [{"f": 0, "g": 5}, {"f": 0, "g": 7}],
    }  # fmt: skip
    assert values["b"] == {"c": 2, "d": 3}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"stepz": 9}, "stepz"),
        ({"steps": 0}, "steps: "),
        ({"folds": []}, "folds: "),
        ({"changes": {"No Name": {"what": "x", "set": {}}}}, "No Name"),
        ({"changes": {"a": {"what": "x", "sets": {}}}}, "sets"),
        ({"folds": [0, 7]}, "there is no fold 7; joint_unet3d_ct has 7, from 0"),
        ({"changes": {"wide": {"what": "x", "set": {"patchh": 32}}}}, "wide.*\n.*patchh"),
    ],
)
def test_an_ablation_that_does_not_fit_is_refused_before_the_first_training(
    tmp_path: Path, changed: dict[str, object], told: str
) -> None:
    path = tmp_path / "ablation" / f"{NAME}.yaml"
    path.parent.mkdir()
    plain = {"folds": [0], "steps": 0.5, "changes": {"wide": {"what": "wider", "set": {}}}}
    path.write_text(yaml.safe_dump({**plain, **changed}), encoding="utf-8")
    shutil.copytree(CONFIGURATION.parent, tmp_path / "models")
    config = {"training": {"model": NAME, "configurations": str(tmp_path / "models")}}
    (training,) = find_trainings(config)
    with pytest.raises(HydropsError, match=told):
        Grid.load(path).check_for(training)


def test_mistakes_of_a_grid_are_named(tmp_path: Path) -> None:
    with pytest.raises(HydropsError, match="no ablation of that model"):
        Grid.load(tmp_path / "nothing.yaml")
    path = tmp_path / "grid.yaml"
    path.write_text("folds: [0]\nsteps: 0.1\nchanges: {odd: {what: odd, set: {mirorr: 1}}}\n")
    with pytest.raises(HydropsError, match="mirorr"):
        changed_options(Grid.load(path), CONFIGURATION, "odd")
    with pytest.raises(HydropsError, match="no such change; there are: unchanged, odd"):
        changed_options(Grid.load(path), CONFIGURATION, "even")
    path.write_text("folds: [0]\nsteps: 0.1\nchanges: {odd: {set: {}}}\n")
    with pytest.raises(HydropsError, match="'what' is a required property"):
        Grid.load(path)


def test_heads_apart_share_nothing() -> None:
    options = NetworkOptions((4, 8), 0, inputs=1, labels=2, architecture="apart")
    network = build_network(options)
    labels, heat = network(torch.rand(1, 1, 8, 8, 8))
    assert (labels.shape[1], heat.shape[1]) == (2, 3)
    heat.sum().backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None}
    assert reached
    assert all(name.startswith("landmarks.") for name in reached)


def cases_of(dice: dict[str, dict[str, list[float]]]) -> pd.DataFrame:
    """Rows of `hydrops.model.crossval.evaluate_cases` by change, stage and specimen; NaN failed."""
    return pd.DataFrame(
        [
            {
                "model": change, "specimen": f"S{n}", "person": f"P{n}",
                "variant": "" if np.isnan(value) else stage, "dice": value, "landmark_mm": 0.5,
            }
            for change, stages in dice.items()
            for stage, values in stages.items() for n, value in enumerate(values)
        ]
    )  # fmt: skip


def grid_of(dice: dict[str, dict[str, list[float]]]) -> Grid:
    return Grid((0,), 0.1, {name: {"what": name, "set": {}} for name in dice})


def test_differences_are_paired_and_failures_are_counted() -> None:
    dice = {
        UNCHANGED: {"joint": [0.9, 0.8]}, "worse": {"joint": [0.85, 0.7]},
        "failing": {"joint": [0.9, np.nan]},
    }  # fmt: skip
    table = tabulate_changes(cases_of(dice), grid_of(dice)).set_index("change")
    assert table.loc[UNCHANGED, "dice_difference"] == 0.0
    assert table.loc["worse", "dice_difference"] == pytest.approx(-0.075)
    assert table.loc["failing", ["n", "tested"]].tolist() == [1, 2]
    assert table.loc["failing", "dice_difference"] == 0.0
    assert table["hausdorff95_mm"].isna().all()
    assert table[["p", "p_corrected"]].isna().all(axis=None)


def test_every_stage_is_told_beside_the_result_of_the_model_as_it_is() -> None:
    result = np.linspace(0.90, 0.97, 8)
    worse = result - np.linspace(0.001, 0.008, 8)
    dice = {
        UNCHANGED: {"first": worse.tolist(), "last": result.tolist()},
        "other": {"first": (worse - 0.01).tolist(), "last": [np.nan, *result[1:]]},
    }
    table = tabulate_changes(cases_of(dice), grid_of(dice)).set_index(["change", "stage"])
    assert table["n"].tolist() == [8, 8, 8, 7]
    assert table["dice_difference"].tolist() == pytest.approx([-0.0045, 0.0, -0.0145, 0.0])
    # All eight differ one way: by chance in 2 of 2**8 (Wilcoxon, exact), of two tests.
    p = table[["p", "p_corrected"]].to_numpy()
    assert p[[0, 2]] == pytest.approx(np.array([[2 / 2**8, 4 / 2**8]] * 2), abs=1e-4)
    assert np.isnan(p[[1, 3]]).all()


def test_a_table_of_nothing_but_failures_says_so() -> None:
    dice = {UNCHANGED: {"joint": [np.nan, np.nan]}, "other": {"joint": [np.nan, np.nan]}}
    table = tabulate_changes(cases_of(dice), grid_of(dice))
    assert table[["n", "tested"]].to_numpy().tolist() == [[0, 2], [0, 2]]
    assert table["dice"].isna().all()


def test_a_tiny_ablation_from_training_to_table(tmp_path: Path) -> None:
    for number in range(4):
        write_specimen(tmp_path, f"S{number}", number)
    configuration = tmp_path / f"{NAME}.yaml"
    text = CONFIGURATION.read_text()
    for before, after in (
        ("folds: 7", "folds: 2"), ("spacing_mm: 0.4", "spacing_mm: 1"), ("patch: 48", "patch: 16"),
        ("[16, 32, 64, 128]", "[4, 8]"), ("residual_units: 2", "residual_units: 0"),
    ):  # fmt: skip
        assert before in text
        text = text.replace(before, after)
    configuration.write_text(text)
    changes = {name: GRID.changes[name] for name in (UNCHANGED, "heads_apart", "last_weights")}
    grid = Grid((1,), 2 / CtOptions.load(configuration).phases[0].steps, changes)
    weights = {
        change: train_change(
            grid, configuration, tmp_path, change, "1", tmp_path / change, "cpu", 1
        )
        for change in changes
    }
    first, last = (torch.load(weights[n], weights_only=True) for n in (UNCHANGED, "last_weights"))
    assert any(not torch.equal(first[key], last[key]) for key in first)
    table = evaluate_changes(grid, configuration, tmp_path, lambda change, _: weights[change])
    assert table["change"].tolist() == list(changes)
    assert (table["tested"] == 2).all()
