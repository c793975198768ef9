"""What SLURM says of a job, by its own commands."""

from __future__ import annotations

import logging
import re
import subprocess
import time
from pathlib import Path

from hydrops.errors import HydropsError

LOG = logging.getLogger(__name__)
#: How often a job that must end first is asked for, s.
PATIENCE_S = 5.0
#: For how long SLURM may not answer while a job waits, s.
SILENCE_S = 1800.0
#: Who knows the state of a job, soonest first: the controller forgets a job minutes after its end.
_STATE = (
    (("scontrol", "show", "job", "-o"), r"\bJobState=([A-Z_]+)"),
    (("sacct", "-X", "-n", "-P", "-o", "State", "-j"), r"^([A-Z_]+)"),
)


def job_state(number: str) -> str:
    """State of a job in SLURM's words, as ``NODE_FAIL``; empty if nobody knows it."""
    for command, form in _STATE:
        found = re.search(form, answer(*command, number))
        if found:
            return found[1]
    return ""


def cancel_jobs_of_run(log: Path) -> None:
    """Cancel what is left of a run's jobs, which all have the name that the run's log gives.

    Of an interrupted run the executor cancels the jobs that it knows; while it asks SLURM for their
    states, it knows none (snakemake-interface-executor-plugins 9.4.0, executors/remote.py).

    Parameters
    ----------
    log
        Snakemake's own log; of a run without SLURM it gives no name, and nothing is done.
    """
    name = re.search(r"SLURM run ID: (\S+)", log.read_text(encoding="utf-8", errors="replace"))
    if name and _answer("scancel", f"--name={name[1]}") is None:
        LOG.warning("scancel does not answer, so jobs of this run may go on: see squeue --me")


def wait_for_end(number: str) -> None:
    """Wait while a job is in the queue or running.

    Raises
    ------
    HydropsError
        If SLURM does not say for half an hour whether it is.
    """
    deadline = time.monotonic() + SILENCE_S
    # All jobs are asked for: of one that has ended, some versions know nothing and say it failed.
    while (queue := _answer("squeue", "-h", "-o", "%i")) is None or number in queue.split():
        if queue is not None:
            deadline = time.monotonic() + SILENCE_S
        elif time.monotonic() > deadline:
            raise HydropsError(
                f"SLURM does not say whether job {number}, which did this work, has ended; "
                "start again once squeue answers"
            )
        LOG.warning("waiting for SLURM job %s, which still does this work", number)
        time.sleep(PATIENCE_S)


def answer(*command: str) -> str:
    """What a command prints; nothing where it is missing, fails, or is silent for a minute."""
    return _answer(*command) or ""


def _answer(*command: str) -> str | None:
    """The same, but None where it is missing, fails, or is silent."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
