"""The cohort on a real slurmctld and slurmd.

Run by `make test-slurm`, as root on a machine that can be thrown away.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pandas as pd
import pytest
from cluster import command
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
