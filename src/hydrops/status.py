"""Where a study stands, from its status records alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydrops.chunks import CHUNK_STAGES, SHARED_STAGES
from hydrops.config import Study
from hydrops.paths import Paths, Unit


@dataclass(frozen=True)
class UnitStatus:
    """The last stage that a session has a record of, and why it was excluded, if it was."""

    unit: Unit
    stage: str
    excluded: str
    excluded_sides: dict[str, str]


def unit_status(paths: Paths, unit: Unit, model: str) -> UnitStatus:
    """How far one session has come with one model."""
    stages: list[tuple[str, str | None]] = [(stage, None) for stage in SHARED_STAGES]
    stages += [(stage, model) for stage in CHUNK_STAGES]
    reached, excluded, sides = "waiting", "", {}
    for stage, owner in stages:
        path = paths.record(stage, unit, owner)
        if not path.is_file():
            break
        record = json.loads(path.read_text(encoding="utf-8"))
        reached = stage
        sides = {side: entry["reason"] for side, entry in record["excluded_sides"].items()}
        if record["outcome"] == "excluded":
            excluded = f"{record['stage']}: {record['reason']}"
            break
    return UnitStatus(unit, reached, excluded, sides)


def status_lines(study: Study) -> list[str]:
    """Counts by stage, and the exclusions with their reasons, for every model."""
    lines = []
    for model in study.bundles:
        found = [unit_status(study.paths, unit, model) for unit in study.units]
        counts = Counter("excluded" if s.excluded else s.stage for s in found)
        order = ("waiting", *SHARED_STAGES, *CHUNK_STAGES, "excluded")
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
    stages = (*SHARED_STAGES, *CHUNK_STAGES)
    lines = []
    for status in found:
        if status.excluded or status.stage == stages[-1]:
            continue
        reached = stages.index(status.stage) if status.stage in stages else -1
        lines.append(f"  missing {status.unit.name}: {stages[reached + 1]} is not done ({model})")
    return lines


def shortened(lines: list[str]) -> list[str]:
    """The first of many lines, and how many more there are."""
    if len(lines) > LISTED:
        lines = [*lines[:LISTED], f"  and {len(lines) - LISTED} more"]
    return lines


def closing_words(study: Study) -> str:
    """What a run says last: where the reports are, who is missing and why, where the logs are."""
    lines = [*status_lines(study), *unfinished_lines(study)]
    for model in study.bundles:
        report: Path = study.paths.report(model, "report.html")
        lines.append(f"report: {report}" if report.is_file() else f"no report yet: {report}")
    lines.append(f"logs: {study.paths.root / 'logs'}")
    return "\n".join(lines)
