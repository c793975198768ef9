"""The course of a training, whatever is trained: seeded, resumable, watched on disk."""

from __future__ import annotations

import copy
import fcntl
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import numpy as np
import torch

from hydrops.errors import HydropsError
from hydrops.files import placed
from hydrops.model.precision import choose_device
from hydrops.model.taught import write_steps, write_taught

LOG = logging.getLogger(__name__)

#: Checks in a row without a better mean Dice in validation after which a phase ends early.
PATIENCE = 5
#: Keys of options that change nothing of what is trained.
WORDS = ("name", "version", "description", "changes", "calibration_heads", "calibration_seed")


@dataclass(frozen=True)
class Phase:
    """A stretch of a training: so many steps, one cycle of the learning rate up to its peak.

    Parameters
    ----------
    spread
        How far samples are drawn from what is expected, 1 for the widest; what that means is the
        task's.
    dice
        Weight of the Dice loss. It finds small structures fast and leaves volumes biased where
        their borders are uncertain (Bertels et al., Med Image Anal 2021;67:101833).
    entropy
        Weight of the cross entropy, which is small where most voxels are background.
    selected
        Share of samples that show what was selected to be learned first: a curriculum. What that
        is is the task's.
    """

    steps: int
    learning_rate: float
    spread: float
    dice: float
    selected: float = 0.0
    entropy: float = 1.0

    def overlap(self, entropy: torch.Tensor, dice: torch.Tensor) -> torch.Tensor:
        """Cross entropy and Dice loss by their weights."""
        return self.entropy * entropy + self.dice * dice


class Plan(Protocol):
    """What a course needs to know of the options of a task."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Stretches of the training, one after another."""

    @property
    def batch(self) -> int:
        """Samples a step."""

    @property
    def weight_decay(self) -> float:
        """Of AdamW."""

    @property
    def validate_every(self) -> int:
        """Steps between checkpoints."""


class Task(Protocol):
    """What is trained: a network, its samples, its loss and its scores."""

    network: torch.nn.Module

    @property
    def options(self) -> Plan:
        """How it is trained."""

    def samples(self, phase: Phase, first: int, last: int, /) -> torch.utils.data.Dataset[Any]:
        """Samples `first` to `last` of the training, the same whenever they are drawn."""

    def loss(
        self, network: torch.nn.Module, batch: Sequence[torch.Tensor], phase: Phase, /
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch, and its parts to report."""

    def validate(self, network: torch.nn.Module, phase: Phase, /) -> dict[str, float]:
        """Scores on what is not trained on."""


def run_course(
    task: Task,
    folder: Path,
    taught: Mapping[str, str],
    device: str = "cpu",
    threads: int = 2,
    averaged: bool = True,
) -> Path:
    """Train, or go on from the last checkpoint in `folder`, and leave `weights.pt` there.

    Beside them is left whom they were learned from, see `hydrops.model.taught`.

    Where the task validates, a phase ends early once its mean Dice has not risen for `PATIENCE`
    checks, and the weights are those of the last phase's best check.

    Parameters
    ----------
    taught
        Names of the specimens or cases that the task learns from or watches itself by, and a digest
        of each.
    averaged
        Whether the weights are the running mean of the last steps, see `running_mean`, or those of
        the very last one.

    Returns
    -------
    The file of weights.

    Raises
    ------
    HydropsError
        If the checkpoint cannot be read, or is of other options, other cases, or cases that have
        changed; the device cannot be used; another training writes into the folder; or the loss is
        no number any more.
    """
    where = choose_device(device)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    with alone_in(folder):
        return _run(_Course(task, taught, where, folder, averaged), threads)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Be the only training that writes into a folder: one whose run was killed may still go on.

    Raises
    ------
    HydropsError
        If another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HydropsError(
                f"{folder}: another training is writing there, perhaps one whose snakemake was "
                "killed; end it, or wait for it"
            ) from error
        except OSError:
            LOG.warning("%s: its file system has no locks; start no second training there", folder)
        yield


def _run(course: _Course, threads: int) -> Path:
    task, folder = course.task, course.folder
    course.resume()
    phases = task.options.phases
    ends = np.cumsum([phase.steps for phase in phases]).tolist()
    if course.step >= ends[-1]:
        LOG.warning(
            "this training was over: its weights are written once more, as they were. After a "
            "change of the code, remove the folder %s to train anew",
            folder,
        )
    for phase, end in zip(phases, ends):
        if course.step >= end:
            continue
        course.begin(phase, end)
        batch = task.options.batch
        loader = torch.utils.data.DataLoader(
            task.samples(phase, course.step * batch, end * batch),
            batch_size=batch,
            num_workers=max(1, threads - 1),
            prefetch_factor=4,
        )
        for drawn in loader:
            course.learn(drawn, phase)
            if course.step % task.options.validate_every == 0 or course.step == end:
                course.check(phase, end)
            if course.step >= end:
                break
    weights = folder / "weights.pt"
    write_taught(weights, course.taught)
    write_steps(weights, course.steps_done())
    save_state(course.best or course.judged.state_dict(), weights)
    return weights


@torch.no_grad()
def running_mean(
    means: Sequence[torch.Tensor], values: Sequence[torch.Tensor], count: torch.Tensor | int
) -> None:
    """Bring means nearer to values: exponential, decay 0.999, less over the first steps."""
    decay = min(0.999, (1.0 + float(count)) / (10.0 + float(count)))
    for mean, value in zip(means, values):
        if mean.is_floating_point():
            mean.lerp_(value, 1.0 - decay)
        else:
            mean.copy_(value)


class _Course:
    """A training under way: the network, its running mean, the optimiser, and where they stand.

    `saved` are the steps that phases were spared by ending early, by the step of their planned end.
    `best` are the weights of the phase's best check so far, `best_dice` its score, and `stale` how
    many checks there have been since.
    """

    def __init__(
        self,
        task: Task,
        taught: Mapping[str, str],
        where: torch.device,
        folder: Path,
        averaged: bool,
    ) -> None:
        self.task, self.taught, self.where, self.folder = task, taught, where, folder
        self.network = task.network.to(where)
        self.mean = torch.optim.swa_utils.AveragedModel(self.network, multi_avg_fn=running_mean)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), weight_decay=task.options.weight_decay
        )
        self.schedule: torch.optim.lr_scheduler.OneCycleLR | None = None
        self.stopped: dict[str, Any] | None = None
        self.history: list[dict[str, float]] = []
        self.running: list[dict[str, float]] = []
        self.step, self.fresh = 0, True
        self.saved: dict[str, int] = {}
        self.judged = self.mean.module if averaged else self.network
        self.begin_to_judge()

    def begin_to_judge(self) -> None:
        """Forget what was best: a phase is judged for itself."""
        self.best: dict[str, torch.Tensor] | None = None
        self.best_dice, self.stale = -np.inf, 0

    def steps_done(self) -> list[int]:
        """Of each phase."""
        phases = self.task.options.phases
        ends = np.cumsum([phase.steps for phase in phases]).tolist()
        return [phase.steps - self.saved.get(str(end), 0) for phase, end in zip(phases, ends)]

    def resume(self) -> None:
        """Go on from the checkpoint in the folder, if there is one."""
        checkpoint = self.folder / "checkpoint.pt"
        if not checkpoint.is_file():
            return
        state = self._read(checkpoint)
        self._refuse_another(state, checkpoint)
        self.network.load_state_dict(state["network"])
        self.mean.load_state_dict(state["mean"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.history, self.step, self.stopped = state["history"], state["step"], state
        self.saved = dict(state.get("saved", {}))
        self.best, self.best_dice, self.stale = (state[k] for k in ("best", "best_dice", "stale"))
        LOG.info("going on from step %d", self.step)

    def _read(self, checkpoint: Path) -> dict[str, Any]:
        try:
            state = torch.load(checkpoint, map_location=self.where, weights_only=True)
            if isinstance(state, dict) and "lesson" in state:
                return state
            reason = "something else is in it"
        # What a file that was cut off, or is something else, makes of torch.load.
        except (OSError, EOFError, RuntimeError, UnpicklingError, KeyError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else "it is empty"
        raise HydropsError(f"{checkpoint}: cannot be read ({reason}); remove it to train anew")

    def _refuse_another(self, state: dict[str, Any], checkpoint: Path) -> None:
        before = json.loads(state["lesson"])
        now = json.loads(lesson(self.task.options, self.taught, state["step"]))
        apart = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if apart:
            raise HydropsError(
                f"{checkpoint}: of a training that was told otherwise ({', '.join(apart)}); set "
                f"that back to have its weights again, or remove the folder {checkpoint.parent} to "
                "train anew"
            )

    def begin(self, phase: Phase, end: int) -> None:
        """Start the cycle of the learning rate of a phase, or go on with one that was cut off."""
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser,
            phase.learning_rate,
            total_steps=phase.steps,
            # A tenth, but never less than the two steps that a rise is made of; two have none.
            pct_start=max(0.1, 2.0 / phase.steps) if phase.steps > 2 else 0.1,
        )
        if self.stopped is not None and self.step > end - phase.steps:
            # The optimiser after the schedule, whose making sets the rate back to its start.
            self.schedule.load_state_dict(self.stopped["schedule"])
            self.optimiser.load_state_dict(self.stopped["optimiser"])
        else:
            self.begin_to_judge()
        self.stopped, self.fresh = None, True
        self.network.train()

    def learn(self, drawn: Sequence[torch.Tensor], phase: Phase) -> None:
        """One step."""
        assert self.schedule is not None, "a phase has begun"
        if self.fresh:
            # What a network draws by chance is then the same whether it was killed or not.
            torch.manual_seed(self.step)
            self.fresh = False
        batch = [part.to(self.where) for part in drawn]
        loss, parts = self.task.loss(self.network, batch, phase)
        if not torch.isfinite(loss):
            raise HydropsError(
                f"step {self.step + 1}: the loss is {float(loss.detach())}, no number, so nothing "
                "is learned any more; look at images and landmarks, or lower learning_rate"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.schedule.step()
        self.mean.update_parameters(self.network)
        self.running.append({"loss": float(loss.detach()), **parts})
        self.step += 1
        if self.step % 100 == 0:
            shown = _means(self.running[-100:])
            LOG.info(
                "step %d of %d: %s",
                self.step,
                sum(p.steps for p in self.task.options.phases),
                " ".join(f"{name} {value:.3f}" for name, value in shown.items()),
            )

    def check(self, phase: Phase, end: int) -> None:
        """Validate, and write checkpoint and history; a phase that is over is set to its end."""
        assert self.schedule is not None, "a phase has begun"
        self.judged.eval()
        with torch.inference_mode():
            scores = self.task.validate(self.judged, phase)
        self.history.append({"step": self.step, "loss": _means(self.running)["loss"], **scores})
        self.running = []
        if scores:
            LOG.info("validation at step %d: %s", self.step, json.dumps(scores))
        self._judge(scores)
        if self.stale >= PATIENCE and self.step < end:
            LOG.info("no better for %d checks: the phase ends here", self.stale)
            self.saved[str(end)] = end - self.step
            self.step = end
        state = {
            "network": self.network.state_dict(),
            "mean": self.mean.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "history": self.history,
            "step": self.step,
            "saved": self.saved,
            "best": self.best,
            "best_dice": self.best_dice,
            "stale": self.stale,
            "lesson": lesson(self.task.options, self.taught, self.step),
        }
        save_state(state, self.folder / "checkpoint.pt")
        write_history(self.history, self.folder)
        self.network.train()
        self.fresh = True

    def _judge(self, scores: dict[str, float]) -> None:
        dice = [score for name, score in scores.items() if name.endswith("dice")]
        if not dice:
            return
        if np.mean(dice) > self.best_dice:
            # Tensors that a network has under two names stay one.
            self.best = copy.deepcopy(dict(self.judged.state_dict()))
            self.best_dice, self.stale = float(np.mean(dice)), 0
        else:
            self.stale += 1


def lesson(plan: Plan, taught: Mapping[str, str], step: int) -> str:
    """What weights hang on after some steps, as JSON: options, phases begun, whom learned from.

    Phases to come are left out, so that a training may be made longer.
    """
    told = {key: value for key, value in _options(plan).items() if key not in WORDS}
    starts = np.cumsum([0, *(phase.steps for phase in plan.phases)])
    told["phases"] = [_told(p) for p, start in zip(plan.phases, starts) if start < step]
    return json.dumps({**told, "learned from": dict(taught)}, sort_keys=True)


def _told(phase: Phase) -> dict[str, float]:
    """What a phase was told; the usual weight of the cross entropy is left out.

    A checkpoint from before it could be another goes on.
    """
    told = asdict(phase)
    if phase.entropy == Phase.entropy:
        del told["entropy"]
    return told


def _options(plan: Any) -> dict[str, Any]:
    return asdict(plan)


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def write_history(history: Sequence[dict[str, float]], folder: Path) -> None:
    """Write the course of a training as a table and as a picture."""
    import pandas as pd
    from matplotlib.figure import Figure

    table = pd.DataFrame(history)
    table.to_csv(folder / "history.tsv", sep="\t", index=False)
    columns = [column for column in table.columns if column != "step"]
    rows = -(-len(columns) // 3)
    figure = Figure(figsize=(9, 3 * rows), layout="constrained")
    panels = figure.subplots(rows, 3, squeeze=False).ravel()
    for panel, column in zip(panels, columns):
        panel.plot(table.step, table[column], marker=".", color="#0072b2")
        panel.set(title=column, xlabel="step")
        panel.grid(alpha=0.3)
    for panel in panels[len(columns) :]:
        panel.axis("off")
    figure.savefig(folder / "history.png", dpi=100)


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write tensors by name, whole or not at all.

    Raises
    ------
    HydropsError
        If there is no room, or they cannot be written there.
    """
    try:
        with placed(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:
        raise HydropsError(
            f"{path}: cannot be written; is there room in {path.parent}? ({error})"
        ) from error
