"""The cohort on a real slurmctld and slurmd: it finishes, and what may befall it costs nothing.

Run by `make test-slurm`, as root on a machine that can be thrown away.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from cluster import cluster, command
from project import Project

pytestmark = pytest.mark.usefixtures("accounted")

PROFILE = (
    "--profile", "workflow/profiles/slurm", "--jobs", "8", "--latency-wait", "10",
    "--slurm-init-seconds-before-status-checks", "1",
)  # fmt: skip
SITE = ("--default-resources", "slurm_account=mri", "slurm_partition=cpu", "mem_mb=2000",
        "runtime=30")  # fmt: skip


def start(project: Project, *arguments: str) -> subprocess.Popen[str]:
    """Snakemake under way in the project, in a group of processes of its own."""
    environment = {**os.environ, "PYTHONPATH": str(project.path("src")), "NO_COLOR": "1"}
    # Under a scheduler of its own, no job may think that it runs inside one.
    environment = {k: v for k, v in environment.items() if not k.startswith("SLURM_")}
    with project.path("said.txt").open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *PROFILE, *(arguments or SITE)],
            cwd=project.folder,
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def finish(project: Project, running: subprocess.Popen[str], seconds: int = 600) -> str:
    """Wait for the end of a run, which must be a good one, and return what it said."""
    code = running.wait(seconds)
    said = project.path("said.txt").read_text()
    assert code == 0, said[-6000:]
    return said


def wait_for_job(rule: str, state: str = "RUNNING", seconds: int = 240) -> str:
    """Identifier of a job of a rule once it is in a state."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for line in command("squeue", "-h", "-o", "%i|%T|%k").splitlines():
            job, found, comment = line.split("|", 2)
            if found == state and rule in comment:
                return job
        time.sleep(0.5)
    raise AssertionError(f"no {rule} was ever {state}")


def records(project: Project) -> dict[Path, int]:
    """Time of modification of every status record."""
    return {p: p.stat().st_mtime_ns for p in project.path("results").rglob("record.json")}


def check_cohort(project: Project) -> None:
    """Both usable participants measured, the broken one excluded, nothing half-written."""
    (ears,) = project.path("results/cohort").glob("*/ears.tsv")
    assert set(pd.read_csv(ears, sep="\t", dtype=str).participant_id) == {"01", "06"}
    (excluded,) = project.path("results/cohort").glob("*/exclusions.tsv")
    assert list(pd.read_csv(excluded, sep="\t", dtype=str).participant_id) == ["09"]
    left = [
        p for p in project.path("results").rglob("*") if ".part" in p.name or p.suffix == ".tmp"
    ]
    assert not left


@pytest.fixture(autouse=True)
def empty_queue() -> None:
    """No job of an earlier test is left."""
    command("scancel", "--user=root")
    end = time.monotonic() + 60
    while command("squeue", "-h") and time.monotonic() < end:
        time.sleep(0.5)


def test_the_cohort_is_run_by_the_cluster(project: Project) -> None:
    said = finish(project, start(project))
    check_cohort(project)
    assert "report:" in said
    accounted = command("sacct", "-X", "-n", "-P", "-o", "State,Account,Partition")
    assert "COMPLETED|mri|cpu" in accounted
    assert project.planned() == {}


def test_a_cancelled_job_is_submitted_again(project: Project) -> None:
    running = start(project)
    command("scancel", wait_for_job("segment_ears"))
    finish(project, running)
    check_cohort(project)


def test_after_sigkill_only_what_was_cut_off_is_done_again(project: Project) -> None:
    running = start(project)
    wait_for_job("segment_ears")
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    command("scancel", "--user=root")
    while command("squeue", "-h"):
        time.sleep(0.5)
    before = records(project)
    assert before
    subprocess.run(
        [sys.executable, "-m", "snakemake", "--unlock", "--cores", "1"],
        cwd=project.folder,
        env={**os.environ, "PYTHONPATH": str(project.path("src"))},
        check=True,
        capture_output=True,
    )
    finish(project, start(project))
    check_cohort(project)
    after = records(project)
    assert {p: after[p] for p in before} == before


def test_a_node_that_dies_in_a_chunk_costs_the_chunk_alone(project: Project) -> None:
    running = start(project)
    job = wait_for_job("segment_ears")
    node = command("squeue", "-h", "-j", job, "-o", "%N").strip()
    before = records(project)
    cluster("kill-node", node)
    try:
        time.sleep(20)
    finally:
        cluster("start-node", node)
    finish(project, running)
    check_cohort(project)
    after = records(project)
    assert {p: after[p] for p in before} == before


def test_a_controller_that_is_restarted_is_not_noticed(project: Project) -> None:
    running = start(project)
    wait_for_job("ingest_session")
    cluster("restart-controller")
    finish(project, running)
    check_cohort(project)


def test_a_job_that_needs_more_memory_gets_it(project: Project) -> None:
    """The chunk's first try is allowed far too little and is killed for it."""
    path = project.path("workflow/rules/segment.smk")
    text = path.read_text()
    assert "mem_mb=lambda wc, attempt: 3000 * attempt" in text
    path.write_text(text.replace("3000 * attempt", "150 if attempt == 1 else 3000"))
    finish(project, start(project))
    check_cohort(project)
    states = command("sacct", "-X", "-n", "-P", "-o", "State,Comment")
    assert "OUT_OF_ME" in states or "CANCELLED" in states or "FAILED" in states


def test_two_runs_in_one_folder_do_not_meet(project: Project) -> None:
    running = start(project)
    wait_for_job("ingest_session")
    second = project.snakemake("--dry-run")
    third = project.snakemake("--until", "ingest_session")
    assert third.returncode != 0
    assert "lock" in (third.stdout + third.stderr).lower()
    assert second.returncode in (0, 1)
    finish(project, running)
    check_cohort(project)
