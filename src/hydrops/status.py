"""Where a study stands, from its status records alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from hydrops.chunks import CHUNK_STAGES, SHARED_STAGES
from hydrops.config import Study, is_full
from hydrops.errors import HydropsError
from hydrops.paths import Paths, Unit
from hydrops.reasons import what_failed, why_not_done
from hydrops.records import read_record

#: Those that a session goes through, in their order.
STAGES = (*SHARED_STAGES, *CHUNK_STAGES)


@dataclass(frozen=True)
class UnitStatus:
    """The last stage that a session has a record of, and why it was excluded, if it was."""

    unit: Unit
    stage: str
    excluded: str
    excluded_sides: dict[str, str]

    @property
    def place(self) -> int:
        """Of the last stage among `STAGES`; -1 before the first."""
        return STAGES.index(self.stage) if self.stage in STAGES else -1


def unit_status(paths: Paths, unit: Unit, model: str) -> UnitStatus:
    """How far one session has come with one model."""
    stages: list[tuple[str, str | None]] = [(stage, None) for stage in SHARED_STAGES]
    stages += [(stage, model) for stage in CHUNK_STAGES]
    reached, excluded, sides = "waiting", "", {}
    for stage, owner in stages:
        path = paths.record(stage, unit, owner)
        if not path.is_file():
            break
        try:
            record = read_record(path)
        except HydropsError:
            # Cut off; the next run takes it away and does the stage again.
            break
        reached = stage
        sides = {side: entry["reason"] for side, entry in record.excluded_sides.items()}
        if record.outcome == "excluded":
            excluded = f"{record.stage}: {record.reason}"
            break
    return UnitStatus(unit, reached, excluded, sides)


def status_lines(study: Study) -> list[str]:
    """Counts by stage, and the exclusions with their reasons, for every model."""
    lines = []
    for model in study.bundles:
        found = [unit_status(study.paths, unit, model) for unit in study.units]
        counts = Counter("excluded" if s.excluded else s.stage for s in found)
        order = ("waiting", *STAGES, "excluded")
        summary = ", ".join(f"{counts[name]} {_DONE[name]}" for name in order if counts[name])
        lines.append(f"{model}: {len(found)} sessions: {summary}")
        lines += shortened([line for status in found for line in _exclusion_lines(status)])
    return lines


def _exclusion_lines(status: UnitStatus) -> list[str]:
    if status.excluded:
        return [f"  excluded {status.unit.name}: {status.excluded}"]
    return [
        f"  excluded {status.unit.name}, {side} ear: {reason}"
        for side, reason in sorted(status.excluded_sides.items())
    ]


#: Lines listed of the sessions that a run excluded, or did not finish; status.html has the rest.
LISTED = 40

#: For who finds Snakemake's lock on the folder.
LOCK_EXPLAINED = (
    "a run holds this folder, or was killed in it. If none is under way: `snakemake --unlock` and "
    "start again; what was finished is kept. Jobs of the killed run go on, and new ones wait for "
    "them (`squeue --me`; `scancel` ends them)."
)

_DONE = {
    "waiting": "waiting",
    "ingest": "ingested",
    "register": "registered",
    "locate": "located",
    "segment": "segmented",
    "measure": "measured",
    "draw": "complete",
    "excluded": "excluded",
}


def unfinished_lines(study: Study) -> list[str]:
    """Each session that is neither complete nor excluded, and the stage that it waits for."""
    lines = [
        line
        for model in study.bundles
        for line in unfinished(model, [unit_status(study.paths, u, model) for u in study.units])
    ]
    return shortened(lines)


def unfinished(model: str, found: Sequence[UnitStatus]) -> list[str]:
    """The same for one model, from statuses that were read already."""
    return [
        f"  missing {status.unit.name}: {_next_stage(status)} is not done ({model})"
        for status in found
        if _is_missing(status)
    ]


def missing_lines(study: Study, slurm_logs: Path) -> list[str]:
    """Each session that a run did not finish, and why, as far as the logs tell."""
    # The sessions of a chunk share a log, which is read, and SLURM asked about its job, once.
    why = cache(partial(why_not_done, slurm_logs=slurm_logs))
    lines = []
    for model in study.bundles:
        missing = {
            status.unit: status
            for status in (unit_status(study.paths, unit, model) for unit in study.units)
            if _is_missing(status)
        }
        found = list(missing.values())
        # A reason takes a look at logs, so only those that are shown get one.
        for line, status in zip(unfinished(model, found[:LISTED]), found):
            reason = _reason(study, model, status, missing, why)
            lines.append(f"{line}: {reason or 'its job was not begun'}")
        lines += unfinished(model, found[LISTED:])
    return shortened(lines)


def _reason(
    study: Study,
    model: str,
    status: UnitStatus,
    missing: Mapping[Unit, UnitStatus],
    why: Callable[[Path], str],
) -> str:
    """Why a session's next stage is not done: its own job, or others that its chunk waits for."""
    stage = _next_stage(status)
    shared = stage in SHARED_STAGES
    jobs = study.batches if shared else study.chunks
    job, members = next(item for item in jobs.items() if status.unit in item[1])
    behind = [u.name for u in members if u in missing and missing[u].place < status.place]
    if behind:
        return f"its chunk waits for {', '.join(shortened(behind))}"
    log = study.paths.log(stage, job if shared else f"{model}/{job}")
    reason = what_failed(log, status.unit) or why(log)
    if not reason and study.phantoms and stage == STAGES[0]:
        return why(study.paths.log("phantom", f"sub-{status.unit.participant}"))
    return reason


def _next_stage(status: UnitStatus) -> str:
    return STAGES[status.place + 1]


def _is_missing(status: UnitStatus) -> bool:
    return not status.excluded and status.stage != STAGES[-1]


def shortened(lines: list[str]) -> list[str]:
    """The first of many lines, and how many more there are."""
    if len(lines) > LISTED:
        lines = [*lines[:LISTED], f"  and {len(lines) - LISTED} more"]
    return lines


def present_words(study: Study) -> str:
    """Where a study stands while a run may be under way, and where its report and logs are."""
    lines = [*status_lines(study), *unfinished_lines(study)]
    lines += [_report_line(study, model) for model in study.bundles]
    lines.append(f"logs: {study.paths.root / 'logs'}")
    return "\n".join(lines)


def closing_words(study: Study, slurm_logs: Path) -> str:
    """What a run says last: who is missing and why, where the reports and the logs are.

    Parameters
    ----------
    slurm_logs
        Folder of the logs that SLURM keeps of jobs that failed; it need not be there.
    """
    lines = [*status_lines(study), *missing_lines(study, slurm_logs)]
    for model in study.bundles:
        logs = [study.paths.log(stage, model) for stage in ("cohort", "report")]
        logs += [study.paths.log("phantom", "reader")] if study.phantoms else []
        reasons = [why_not_done(log, slurm_logs) for log in logs]
        lines.append(": ".join([_report_line(study, model), *filter(None, reasons)]))
    if is_full(study.paths.root):
        lines.append(f"the file system of {study.paths.root} is full")
    lines.append(f"logs: {study.paths.root / 'logs'}")
    return "\n".join(lines)


#: What makes and tests models, as its logs are filed.
MAKING = (
    "train", "package", "evaluate", "compare", "draw_card", "card", "ablate", "tabulate_changes",
)  # fmt: skip
#: Names of logs of such jobs that are about several models.
SEVERAL = ("models", "folds")


def words_about_models(
    study: Study, trained: Sequence[str], made: Sequence[Path], slurm_logs: Path
) -> str:
    """What a run says last that was to make or test models, not to measure a cohort.

    Parameters
    ----------
    trained
        Names of the models that it is about; those of the study are evaluated.
    made
        What such runs leave; what is there is told.
    slurm_logs
        As in `closing_words`.
    """
    logs = study.paths.root / "logs"
    about = {*SEVERAL, *study.bundles, *trained}
    lines = []
    for stage in MAKING:
        for log in sorted((logs / stage).glob("*.log")):
            if _log_of(log.stem, _configured(study)) in about:
                reason = why_not_done(log, slurm_logs)
                lines += [f"  {stage} {log.stem} is not done: {reason}"] if reason else []
    lines = shortened(lines)
    if is_full(study.paths.root):
        lines.append(f"the file system of {study.paths.root} is full")
    lines += [f"there is: {path}" for path in made if path.exists()]
    return "\n".join([*lines, f"logs: {logs}"])


def _configured(study: Study) -> set[str]:
    """Names of all models that can be trained."""
    training = study.config["training"] or {}
    folder = Path(training.get("configurations", os.devnull))
    return {path.stem for path in folder.glob("*.yaml")}


def _log_of(stem: str, models: Collection[str]) -> str:
    """The model that a log is about, or the log's own name; parts follow the model's name.

    The names of models begin like each other: the longest that fits is meant.
    """
    fitting = (name for name in models if f"{stem}_".startswith(f"{name}_"))
    return max(fitting, key=len, default=stem)


def _report_line(study: Study, model: str) -> str:
    report = study.paths.report(model, "report.html")
    return f"report: {report}" if report.is_file() else f"no report yet: {report}"
