"""The course of a training: when it ends, and which weights it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from hydrops.errors import HydropsError
from hydrops.model import course
from hydrops.model.course import PATIENCE, Phase, run_course
from hydrops.model.taught import steps_of, taught_by


@dataclass(frozen=True)
class Plan:
    phases: tuple[Phase, ...]
    batch: int = 1
    weight_decay: float = 0.0
    validate_every: int = 2


class Slope:
    """A network of one number that only ever grows, and a validation that is told beforehand."""

    def __init__(self, dice: Sequence[float], phases: tuple[Phase, ...]) -> None:
        self.network: torch.nn.Module = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(next(self.network.parameters()))
        self.options, self.dice = Plan(phases), list(dice)
        self.judged: list[float] = []

    def samples(self, _phase: Phase, first: int, last: int) -> torch.utils.data.Dataset[object]:
        return torch.utils.data.TensorDataset(torch.ones(last - first, 1))

    def loss(
        self, network: torch.nn.Module, batch: Sequence[torch.Tensor], _phase: Phase
    ) -> tuple[torch.Tensor, dict[str, float]]:
        return -network(batch[0]).sum(), {}

    def validate(self, network: torch.nn.Module, _phase: Phase) -> dict[str, float]:
        self.judged.append(float(next(network.parameters()).sum()))
        return {"tfs_dice": self.dice.pop(0)} if self.dice else {}


def phases(*steps: int) -> tuple[Phase, ...]:
    return tuple(Phase(count, 0.01, 1.0, 1.0) for count in steps)


def left(task: Slope, folder: Path) -> float:
    weights = torch.load(run_course(task, folder, {}, threads=1), weights_only=True)
    return float(weights["weight"])


def steps(folder: Path) -> list[int]:
    return list(pd.read_csv(folder / "history.tsv", sep="\t")["step"])


def test_a_phase_ends_when_nothing_gets_better_and_its_best_weights_stay(tmp_path: Path) -> None:
    dice = [0.1, 0.2, 0.5] + [0.4] * PATIENCE
    task = Slope(dice, phases(60))
    kept = left(task, tmp_path)
    assert steps(tmp_path)[-1] == 2 * (3 + PATIENCE) < 60
    assert kept == pytest.approx(task.judged[2])
    assert task.judged[2] < task.judged[-1]


def test_every_phase_is_judged_for_itself(tmp_path: Path) -> None:
    """The second phase is scored otherwise: that it starts lower does not end it."""
    dice = [0.9, *([0.8] * PATIENCE), 0.1, 0.2, 0.3]
    task = Slope(dice, phases(60, 6))
    kept = left(task, tmp_path)
    assert steps(tmp_path) == [2, 4, 6, 8, 10, 12, 62, 64, 66]
    assert steps_of(tmp_path / "weights.pt", [60, 6]) == [12, 6]
    assert kept == pytest.approx(task.judged[-1])


@pytest.mark.parametrize("count", [1, 2, 3, 10, 11])
def test_a_phase_may_be_short(tmp_path: Path, count: int) -> None:
    left(Slope([], phases(count)), tmp_path)
    assert steps(tmp_path)[-1] == count


def test_without_a_validation_a_training_runs_to_its_end(tmp_path: Path) -> None:
    task = Slope([], phases(12, 4))
    kept = left(task, tmp_path)
    assert steps(tmp_path) == [2, 4, 6, 8, 10, 12, 14, 16]
    assert kept == pytest.approx(task.judged[-1])


def test_a_loss_that_is_no_number_ends_a_training(tmp_path: Path) -> None:
    class Lost(Slope):
        def loss(
            self, network: torch.nn.Module, batch: Sequence[torch.Tensor], phase: Phase
        ) -> tuple[torch.Tensor, dict[str, float]]:
            loss, parts = super().loss(network, batch, phase)
            return loss * float("nan"), parts

    with pytest.raises(HydropsError, match="step 1: the loss is nan"):
        run_course(Lost([], phases(4)), tmp_path, {}, threads=1)
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize("length", [0, 100, -10])
def test_a_checkpoint_that_was_cut_off_is_told(tmp_path: Path, length: int) -> None:
    left(Slope([], phases(4)), tmp_path)
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:length])
    with pytest.raises(HydropsError, match=r"checkpoint.pt: cannot be read .*; remove it"):
        left(Slope([], phases(4)), tmp_path)


def test_a_full_disk_is_told_and_leaves_no_part_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("unexpected pos 203200 vs 203092")  # as torch says it

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(HydropsError, match="is there room in"):
        run_course(Slope([], phases(4)), tmp_path, {}, threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_two_trainings_do_not_write_into_one_folder(tmp_path: Path) -> None:
    class Second(Slope):
        def validate(self, network: torch.nn.Module, phase: Phase) -> dict[str, float]:
            with pytest.raises(HydropsError, match="another training is writing there"):
                run_course(Slope([], phases(2)), tmp_path, {}, threads=1)
            return super().validate(network, phase)

    left(Second([], phases(2)), tmp_path)


def test_weights_that_a_network_has_under_two_names_are_kept_once(tmp_path: Path) -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(1000, 1, bias=False)
            self.second = self.first

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self.second(values.expand(-1, 1000)).sum()

    task = Slope([0.1, 0.2], phases(4))
    task.network = Twice()
    weights = run_course(task, tmp_path, {}, threads=1)
    assert weights.stat().st_size < 1.8 * 4000


def test_a_training_that_was_killed_remembers_what_was_best(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    class Doomed(Slope):
        def validate(self, network: torch.nn.Module, phase: Phase) -> dict[str, float]:
            if len(self.judged) == 4:
                raise KilledError
            return super().validate(network, phase)

    dice = [0.1, 0.5, 0.4, 0.4]
    doomed = Doomed(dice, phases(30))
    with pytest.raises(KilledError):
        run_course(doomed, tmp_path, {}, threads=1)
    again = Slope([0.4] * (PATIENCE - 2), phases(30))
    assert left(again, tmp_path) == pytest.approx(doomed.judged[1])
    assert steps(tmp_path)[-1] == 2 * (2 + PATIENCE)
    assert steps_of(tmp_path / "weights.pt", [30]) == [2 * (2 + PATIENCE)]


def test_the_steps_of_an_earlier_version_are_those_that_were_planned(tmp_path: Path) -> None:
    assert steps_of(tmp_path / "weights.pt", [60, 6]) == [60, 6]


def test_cross_entropy_and_dice_are_weighed_by_the_phase() -> None:
    both = torch.tensor(1.0), torch.tensor(10.0)
    assert Phase(1, 0.01, 1.0, dice=2.0).overlap(*both) == 21.0
    assert Phase(1, 0.01, 1.0, dice=0.5, entropy=20.0).overlap(*both) == 25.0
    # Checkpoints from before the cross entropy had a weight go on.
    assert "entropy" not in course.lesson(Plan(phases(6)), {}, 6)


class Forgetful(Slope):
    """A network that leaves out features by chance."""

    def __init__(self, phases: tuple[Phase, ...]) -> None:
        super().__init__([], phases)
        torch.manual_seed(3)
        self.network = torch.nn.Sequential(
            torch.nn.Linear(1, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)
        )

    def validate(self, _network: torch.nn.Module, _phase: Phase) -> dict[str, float]:
        return {}


def test_what_is_left_out_by_chance_is_the_same_in_a_training_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = phases(5, 4)
    straight = torch.load(run_course(Forgetful(plan), tmp_path / "a", {}), weights_only=True)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for _ in range(4):
        with monkeypatch.context() as patch:
            patch.setattr(course, "write_history", killed)
            with pytest.raises(KeyboardInterrupt):
                run_course(Forgetful(plan), tmp_path / "b", {})
    resumed = torch.load(run_course(Forgetful(plan), tmp_path / "b", {}), weights_only=True)
    for name, value in straight.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)


def test_a_checkpoint_of_another_training_is_not_gone_on_from(tmp_path: Path) -> None:
    taught = {"F01": "1a", "F02": "2b"}
    run_course(Slope([], phases(6)), tmp_path, taught, threads=1)
    assert set(taught_by(tmp_path / "weights.pt")) == {"F01", "F02"}
    for others in ({"F01": "1a", "F03": "2b"}, {"F01": "1a", "F02": "its label was mended"}):
        with pytest.raises(HydropsError, match=r"checkpoint\.pt: .*\(learned from\).*remove"):
            run_course(Slope([], phases(6)), tmp_path, others, threads=1)
    weighed = (replace(phases(6)[0], entropy=20.0),)
    for plan in (phases(8), weighed):
        with pytest.raises(HydropsError, match=r"\(phases\)"):
            run_course(Slope([], plan), tmp_path, taught, threads=1)
    other = Slope([], phases(6))
    other.options = replace(other.options, weight_decay=0.5)
    with pytest.raises(HydropsError, match=r"\(weight_decay\)"):
        run_course(other, tmp_path, taught, threads=1)


def test_a_training_that_is_over_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After a change of the code its weights are those of the code before."""
    first = left(Slope([], phases(6)), tmp_path)
    assert not caplog.records
    again = left(Slope([], phases(6)), tmp_path)
    assert again == first
    assert f"remove the folder {tmp_path} to train anew" in caplog.text


def test_a_training_may_be_made_longer(tmp_path: Path) -> None:
    left(Slope([], phases(6)), tmp_path)
    left(Slope([], phases(6, 4)), tmp_path)
    assert steps(tmp_path) == [2, 4, 6, 8, 10]
