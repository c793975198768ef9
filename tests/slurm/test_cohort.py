"""The cohort on a real slurmctld and slurmd.

Run by `make test-slurm`, as root on a machine that can be thrown away.
"""

from __future__ import annotations

import re

import pandas as pd
import pytest
from cluster import ACCOUNTED, command, forget, run
from project import Project

pytestmark = pytest.mark.usefixtures("accounted")


def test_the_cohort_is_run_by_the_cluster(finished: Project) -> None:
    assert "report:" in finished.path("said.txt").read_text()
    accounted = command("sacct", "-X", "-n", "-P", "-o", "State,Account,Partition")
    assert set(accounted.split()) == {"COMPLETED|mri|cpu"}
    assert "gres:gpu" not in command("scontrol", "show", "jobs")
    assert finished.planned() == {}
    seconds = command("sacct", "-X", "-n", "-P", "-o", "CPUTimeRAW").split()
    cost = pd.read_csv(finished.path("results/cost.tsv"), sep="\t").set_index("stage").loc["all"]
    # SLURM counts whole seconds, and the last of its jobs may have been about to end.
    spent = sum(map(int, seconds)) / 3600
    assert cost["reserved_cpu_h"] == pytest.approx(spent, abs=4 * len(seconds) / 3600)
    assert 0 < cost["cpu_h"] < cost["reserved_cpu_h"]
    # An idle cluster may start a job in the second in which it is submitted.
    queued = command("sacct", "-X", "-n", "-P", "-o", "Submit,Start").split()
    ends = pd.DataFrame([line.split("|") for line in queued]).apply(pd.to_datetime)
    waited = (ends[1] - ends[0]).sum().total_seconds() / 3600
    assert cost["wait_h"] == pytest.approx(waited, abs=1e-4)


def test_the_chunk_that_runs_the_model_gets_a_gpu(project: Project) -> None:
    """There is no CUDA behind it: the job says what it misses, and the run ends with 1."""
    project.configure(device="cuda")
    forget(project, "segment", "measure", "draw")
    site = (*ACCOUNTED, "--set-resources", "segment_ears:slurm_partition=gpu")
    said = run(project, *site, "--retries", "0", code=1)
    (number,) = re.findall(r"submitted with SLURM jobid (\d+)", said)
    job = command("scontrol", "show", "job", number)
    assert "Partition=gpu" in job
    assert "gres:gpu:1" in job
    (missing,) = re.findall("missing sub-01_ses-1: segment is not done.*", said)
    assert "cuda" in missing.lower()
