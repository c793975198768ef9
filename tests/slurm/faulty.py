"""Faults for the jobs of a test's own project, which has this file as `src/sitecustomize.py`.

Python reads it at the start of each job. Every session that a stage begins and ends is written to
`worked.txt` in the run's folder. A file there named `hold` or `bloat` says, in one line, which
session of which stage is to stand still until there is a file `go`, or to take so many MB.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import hydrops.records
from hydrops.paths import Unit
from hydrops.records import Record, StageResult

run_stage = hydrops.records.run_stage


def note(*words: str) -> None:
    with Path("worked.txt").open("a") as notes:
        notes.write(" ".join(words) + "\n")


def hold(doing: str) -> None:
    """Stand still, once, if told to."""
    order = Path("hold")
    if order.is_file() and order.read_text() == doing:
        order.unlink()
        end = time.monotonic() + 300
        while not Path("go").exists() and time.monotonic() < end:
            time.sleep(0.2)


def bloat(doing: str) -> None:
    """Take more memory than the job asked for, long enough for SLURM to see it."""
    order = Path("bloat")
    if order.is_file() and order.read_text().startswith(f"{doing} "):
        taken = b"x" * (int(order.read_text().split()[-1]) << 20)
        time.sleep(10)
        del taken


def run_watched_stage(
    record_path: Path,
    stage: str,
    unit: Unit,
    upstream: Iterable[Path],
    work: Callable[[Path], StageResult],
    fingerprint: str = "",
) -> Record:
    def watched(folder: Path) -> StageResult:
        doing = f"{stage} {unit.name}"
        note(doing, "begun")
        hold(doing)
        bloat(doing)
        result = work(folder)
        note(doing, "done")
        return result

    return run_stage(record_path, stage, unit, upstream, watched, fingerprint)


def ask_often() -> None:
    """Let the executor ask for its jobs every two seconds; it would ask ever less often."""
    import asyncio

    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    async def sleep(self: RemoteExecutor) -> None:  # noqa: ARG001
        await asyncio.sleep(2)

    RemoteExecutor.sleep = sleep


hydrops.records.run_stage = run_watched_stage
if "workflow/profiles/slurm" in sys.orig_argv:
    ask_often()
