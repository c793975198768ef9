"""What every script of the workflow does around its call of the library."""

from __future__ import annotations

import logging
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hydrops.errors import HydropsError
from hydrops.slurm import wait_for_end

#: What the log says last: seconds, of those that its processors worked, and most memory.
DONE = "done in %.1f s, %.1f s of CPU, at most %.0f MiB"
#: Bytes of a unit in which the system tells memory.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
#: Before the number of the job in the log of a job that runs under SLURM.
SLURM_JOB = "SLURM job "


def slurm_job(log: str) -> str:
    """Number of the SLURM job in the text of a log, or nothing."""
    found = re.search(rf" {SLURM_JOB}(\d+)$", log, re.MULTILINE)
    return found[1] if found else ""


def spent(log: str) -> tuple[float, float] | None:
    """CPU seconds and most memory (MiB) of a job, in the text of its log; None if not done."""
    found = re.search(r" done in .* s, ([\d.]+) s of CPU, at most (\d+) MiB$", log, re.MULTILINE)
    return (float(found[1]), float(found[2])) if found else None


@contextmanager
def logged(log: str) -> Iterator[None]:
    """Write the log of a job; a mistake that a person can mend ends it without a traceback."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with _alone(Path(log)), _written(log):
        yield


@contextmanager
def _written(log: str) -> Iterator[None]:
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        handlers=[logging.FileHandler(log, mode="w"), logging.StreamHandler()],
        force=True,
    )
    if "SLURM_JOB_ID" in os.environ:
        logging.info("%s%s", SLURM_JOB, os.environ["SLURM_JOB_ID"])
    before = signal.signal(signal.SIGTERM, _say_and_stop)
    start, before_s = time.monotonic(), _cpu_s()
    try:
        yield
        logging.info(DONE, time.monotonic() - start, _cpu_s() - before_s, _most_mib())
    except HydropsError as error:
        logging.error("%s", error)
        sys.exit(1)
    except Exception:
        logging.exception("the job failed")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _alone(log: Path) -> Iterator[None]:
    """Under SLURM, be the only job that writes this log.

    The jobs of a snakemake that was killed go on, and do this very work. Their number is kept
    beside the log, for Snakemake removes logs.
    """
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    number, claim = os.environ["SLURM_JOB_ID"], log.with_suffix(".running")
    earlier = claim.read_text(encoding="utf-8").strip() if claim.is_file() else ""
    if earlier and earlier != number:
        try:
            wait_for_end(earlier)
        except HydropsError as error:
            sys.exit(f"error: {error}")  # the log is still the other job's
    claim.write_text(number, encoding="utf-8")
    try:
        yield
    finally:
        claim.unlink(missing_ok=True)


def _usage() -> list[resource.struct_rusage]:
    """Of this process, and of its children that have ended."""
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]


def _cpu_s() -> float:
    return sum(usage.ru_utime + usage.ru_stime for usage in _usage())


def _most_mib() -> float:
    """Memory of the largest process."""
    return max(usage.ru_maxrss for usage in _usage()) * RSS_UNIT / 2**20


def prefer_commands_of(folder: Path) -> None:
    """Let this process and its children look for commands in this folder first."""
    os.environ["PATH"] = os.pathsep.join((str(folder.resolve()), os.environ["PATH"]))


def _say_and_stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """A scheduler ends a job by SIGTERM; the log must say so, for SIGKILL follows soon."""
    logging.error("the job was ended from outside: cancelled, preempted, or its time was over")
    sys.exit(128 + number)
