"""Faults on a real cluster: what was finished stays, what was cut off is done again, all is said.

Each test starts from a cohort that is done, takes away the results of one stage or more, and lets
something go wrong in the middle of the chunk: one session is done, the next has begun.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cluster import (
    ACCOUNTED,
    begin_chunk,
    check_nothing_half_written,
    cluster,
    command,
    finish,
    forget,
    hold,
    run,
    start,
    wait_until,
    worked,
)
from project import Project

from hydrops.slurm import job_state

pytestmark = pytest.mark.usefixtures("accounted")

NO_RETRY = ("--retries", "0")
MEASURE = (*ACCOUNTED, "--until", "measure_ears")


def check_chunk(project: Project, stage: str = "measure", begun: int = 2) -> None:
    """The first session was done once, the second was begun so often, and all is whole."""
    assert worked(project) == {
        f"{stage} sub-01_ses-1 begun": 1,
        f"{stage} sub-01_ses-1 done": 1,
        f"{stage} sub-06_ses-1 begun": begun,
        f"{stage} sub-06_ses-1 done": 1,
    }
    check_nothing_half_written(project)


def node_of_the_job() -> str:
    return command("squeue", "-h", "-t", "running", "-o", "%N").strip()


def states() -> list[str]:
    """How all jobs so far ended."""
    return command("sacct", "-X", "-n", "-P", "-o", "State").splitlines()


def asked() -> list[str]:
    """How all jobs so far ended, with the memory and the time that they had asked for."""
    return command("sacct", "-X", "-n", "-P", "-o", "State,ReqMem,Timelimit").splitlines()


def test_a_cancelled_job_ends_the_run_and_its_session_is_named(project: Project) -> None:
    """Once as it starts, which is reported in other words, and again in the middle of the chunk."""
    hold(project, "measure")
    running = start(project, *MEASURE, "--retries", "1")
    wait_until(lambda: command("squeue", "-h", "-t", "running"), "the first job")
    command("scancel", "--user=root")
    wait_until(lambda: worked(project)["measure sub-06_ses-1 begun"], "the second session")
    command("scancel", "--user=root")
    said = finish(project, running, 1)
    assert "CANCELLED by 0" in command("sacct", "-X", "-n", "-P", "-o", "State")
    (missing,) = re.findall("missing sub-06_ses-1: measure is not done.*", said)
    assert "cancelled" in missing
    assert "missing sub-01_ses-1: draw is not done" in said
    assert "its chunk waits for sub-06_ses-1" in said
    run(project, *MEASURE)
    check_chunk(project)


def delay_answers(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SLURM that says how jobs are only while the file that is returned is not there."""
    silent, asked = project.path("silent"), project.path("asked")
    for name in ("sacct", "squeue"):
        script = project.path("bin") / name
        script.parent.mkdir(exist_ok=True)
        wait = f"while [ -e {silent} ]; do touch {asked}; sleep 0.2; done"
        script.write_text(f'#!/bin/sh\n{wait}\nexec {shutil.which(name)} "$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{project.path('bin')}:{os.environ['PATH']}")
    return silent


def check_ended(project: Project) -> None:
    """Neither a job of an interrupted run is left, nor its lock; the job did not do its work."""
    wait_until(lambda: not command("squeue", "-h"), "the end of the job")
    assert not worked(project)["measure sub-06_ses-1 done"]
    assert not list(project.path(".snakemake").glob("locks/*"))


def test_an_interrupted_run_takes_its_jobs_with_it_and_leaves_no_lock(project: Project) -> None:
    running = begin_chunk(project, "measure", *MEASURE)
    running.send_signal(signal.SIGINT)
    finish(project, running, 1)
    check_ended(project)


def test_so_does_one_that_is_interrupted_while_it_asks_for_its_jobs(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The executor then knows of no job that it could cancel."""
    with monkeypatch.context() as patch:
        silent = delay_answers(project, patch)
        running = begin_chunk(project, "measure", *MEASURE)
    silent.touch()
    wait_until(project.path("asked").exists, "a question after the jobs")
    running.send_signal(signal.SIGINT)
    said = project.path("said.txt")
    wait_until(lambda: "Terminating processes" in said.read_text(), "the interrupt")
    silent.unlink()
    finish(project, running, 1)
    check_ended(project)


def test_a_preempted_job_is_submitted_again_by_snakemake_alone(project: Project) -> None:
    """SLURM does not requeue it, be it asked to or not: two tries at once would be in the way."""
    running = begin_chunk(project, "measure", *MEASURE)
    (number,) = command("squeue", "-h", "-o", "%i").split()
    assert subprocess.run(["scontrol", "requeue", number], check=False).returncode != 0
    urgent = ("-A", "mri", "-p", "urgent", "-w", node_of_the_job(), "-c", "2", "--mem", "100")
    command("sbatch", *urgent, "-o", "/dev/null", "--wrap", "sleep 1")
    finish(project, running)
    assert "PREEMPTED" in states()
    check_chunk(project)


def test_the_chunk_of_a_lost_node_goes_on_at_another(project: Project) -> None:
    running = begin_chunk(project, "segment", *ACCOUNTED, "--until", "segment_ears")
    node = node_of_the_job()
    (number,) = command("squeue", "-h", "-t", "running", "-o", "%i").split()
    cluster("kill-node", node)
    try:
        finish(project, running)
    finally:
        cluster("start-node", node)
    assert "NODE_FAIL" in states()
    assert job_state(number) == "NODE_FAIL"
    check_chunk(project, "segment")


def test_jobs_outlive_a_controller_that_is_away(project: Project) -> None:
    before = states()
    running = begin_chunk(project, "measure", *MEASURE)
    cluster("stop-controller")
    project.path("go").touch()
    wait_until(lambda: worked(project)["measure sub-06_ses-1 done"], "the end of the chunk")
    subprocess.run(["sleep", "10"], check=True)
    cluster("start-controller")
    finish(project, running)
    assert states()[len(before) :] == ["COMPLETED"]
    check_chunk(project, begun=1)


def test_a_run_that_was_killed_is_gone_on_with_and_two_at_once_are_refused(
    project: Project,
) -> None:
    running = begin_chunk(project, "measure", *MEASURE)
    refused = project.snakemake("--until", "measure_ears")
    assert refused.returncode == 1
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    locked = project.snakemake("--until", "measure_ears")
    assert locked.returncode == 1
    for said in (refused.stderr, locked.stderr):
        assert "a run holds this folder, or was killed in it" in said
        assert "squeue --me" in said
        assert "snakemake --unlock" in said
    assert command("squeue", "-h"), "the job of the killed run is still there, as the text says"
    command("scancel", "--user=root")
    wait_until(lambda: not command("squeue", "-h"), "the end of the job")
    project.run("--unlock")
    run(project, *MEASURE)
    check_chunk(project)


def test_a_job_waits_for_that_of_a_killed_run_which_nobody_cancelled(project: Project) -> None:
    running = begin_chunk(project, "measure", *MEASURE)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    project.run("--unlock")
    again = start(project, *MEASURE)
    wait_until(lambda: len(command("squeue", "-h", "-t", "running").splitlines()) > 1, "both jobs")
    subprocess.run(["sleep", "10"], check=True)
    project.path("go").touch()
    finish(project, again)
    check_chunk(project, begun=1)


def test_more_memory_and_more_time_are_asked_for_where_they_were_too_little(
    project: Project,
) -> None:
    """One session needs three times its memory, another stands still beyond its minute."""
    until = (*ACCOUNTED, "--until", "locate_ears")
    rule = project.path("workflow/rules/locate.smk")
    minutes = 'lambda wc, attempt: 1 if "-06_" in wc.batch and attempt == 1 else 10 * attempt'
    text = rule.read_text()
    for shipped, tried in (("minutes(5, 1)", minutes), ("at_attempt(1000)", "at_attempt(1500)")):
        assert text.count(shipped) == 1
        text = text.replace(shipped, tried)
    rule.write_text(text)
    forget(project, "locate")
    project.path("bloat").write_text("locate sub-01_ses-1 3500")
    project.path("hold").write_text("locate sub-06_ses-1")
    before = len(states())
    said = run(project, *until, "--retries", "1", code=1)
    (missing,) = re.findall("missing .*", said)
    assert "sub-01_ses-1: locate is not done" in missing
    assert "its job needed more memory than it had asked for" in missing
    # SLURM says OUT_OF_MEMORY only where it measures by control groups.
    assert sorted(asked()[before:]) == [
        "COMPLETED|1500M|00:10:00",
        "COMPLETED|3000M|00:20:00",
        "FAILED|1500M|00:10:00",
        "FAILED|3000M|00:20:00",
        "TIMEOUT|1500M|00:01:00",
    ]
    run(project, *until)
    assert asked()[-1] == "COMPLETED|4500M|00:30:00"
    done = {name: count for name, count in worked(project).items() if name.endswith("done")}
    assert done == {"locate sub-01_ses-1 done": 1, "locate sub-06_ses-1 done": 1}
    check_nothing_half_written(project)


def fill_the_disk(ballast: Path) -> None:
    with suppress(OSError), ballast.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1 << 20))


@contextmanager
def small_disk(project: Project) -> Iterator[None]:
    """The results are on a file system of their own, which has no room left."""
    results = project.path("results")
    moved = results.rename(project.path("moved"))
    results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "results", results], check=True)
    try:
        subprocess.run(["cp", "-a", f"{moved}/.", results], check=True)
        yield
    finally:
        subprocess.run(["umount", results], check=True)


def test_a_full_disk_is_said_and_costs_nothing_that_was_done(project: Project) -> None:
    with small_disk(project):
        running = begin_chunk(project, "measure", *MEASURE, *NO_RETRY)
        ballast = project.path("results/ballast")
        fill_the_disk(ballast)
        project.path("go").touch()
        said = finish(project, running, 1)
        assert "missing sub-06_ses-1: measure is not done" in said
        assert "is full" in said
        ballast.unlink()
        run(project, *MEASURE)
        check_chunk(project)


def test_a_read_only_disk_is_refused_before_the_first_job(project: Project) -> None:
    before = states()
    forget(project, "measure", "draw")
    with small_disk(project):
        subprocess.run(["mount", "-o", "remount,ro", project.path("results")], check=True)
        said = run(project, *MEASURE, code=1)
        assert "results: cannot be written" in said
        assert states() == before
        subprocess.run(["mount", "-o", "remount,rw", project.path("results")], check=True)
        run(project, *MEASURE)
    assert worked(project)["measure sub-06_ses-1 done"] == 1
