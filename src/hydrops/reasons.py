"""Why a session is not finished: what its job's log, and SLURM's, said last."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

from hydrops.jobs import slurm_job
from hydrops.paths import Unit
from hydrops.slurm import job_state

#: What SLURM writes when it ends a job, and what it means; the first that is found counts.
_ENDS = (
    ("DUE TO TIME LIMIT", "its job needed more time than it had asked for"),
    ("DUE TO PREEMPTION", "its job was preempted"),
    ("DUE TO NODE FAILURE", "the node of its job failed"),
    ("memory limit|oom.kill", "its job needed more memory than it had asked for"),
    (r"CANCELLED AT", "its job was cancelled"),
)
#: The same for the state of a job that it ended without a line in any log.
_STATES = {
    "TIMEOUT": _ENDS[0][1],
    "PREEMPTED": _ENDS[1][1],
    "NODE_FAIL": _ENDS[2][1],
    "OUT_OF_MEMORY": _ENDS[3][1],
    "CANCELLED": _ENDS[4][1],
}
_CUT_OFF = "its job was cut off without a word: killed, for want of memory, or with its machine"
_LINE = re.compile(r"^\S+ \S+ (INFO|WARNING|ERROR) (.*)$")


def why_not_done(log: Path, slurm_logs: Path) -> str:
    """Why the job that writes this log did not do its work; empty if it was not begun, or did it.

    Parameters
    ----------
    slurm_logs
        Folder of the logs that SLURM keeps of jobs that failed, each named by the job's number.
    """
    if not log.is_file():
        return ""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()
    found = _messages(lines)
    if found and found[-1][2].startswith("done in"):
        return ""
    errors = [message for message in found if message[1] == "ERROR"]
    number = slurm_job(text)
    words = _said_by_slurm(number, slurm_logs) if number else ""
    if not words and errors:
        words = _last_words(lines, errors[-1])
    if not words and number:
        words = _STATES.get(job_state(number), "")
    return f"{words or _CUT_OFF} ({log})"


def what_failed(log: Path, unit: Unit) -> str:
    """What a job's log says of a session whose work failed in it; empty if it says nothing."""
    if not log.is_file():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [message for message in _messages(lines) if message[1] == "ERROR"]
    own = [error for error in errors if error[2].startswith(f"{unit.name}: ")]
    return f"{_last_words(lines, own[-1])} ({log})" if own else ""


def _messages(lines: list[str]) -> list[re.Match[str]]:
    """The lines of a log that begin a message: its level and its words."""
    return [match for match in map(_LINE.match, lines) if match]


def _said_by_slurm(number: str, slurm_logs: Path) -> str:
    """What SLURM wrote when it ended a job; empty if it did not."""
    text = "".join(
        path.read_text(encoding="utf-8", errors="replace")
        for path in slurm_logs.rglob(f"{number}.log")
    )
    said = "\n".join(re.findall(r"^slurmstepd\S*: .*$", text, re.MULTILINE))
    return next((words for sign, words in _ENDS if re.search(sign, said, re.IGNORECASE)), "")


def _last_words(lines: list[str], error: re.Match[str]) -> str:
    """The message of an error; of one with a traceback, its last line."""
    after = takewhile(lambda line: not _LINE.match(line), lines[lines.index(error.string) + 1 :])
    traceback = [line for line in after if line and not line.startswith(" ")]
    return traceback[-1] if traceback else error[2]
