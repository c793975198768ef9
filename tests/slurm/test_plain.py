"""A cluster without accounting, which asks squeue how its jobs are."""

from __future__ import annotations

import pytest
from cluster import PLAIN, begin_chunk, check_cohort, command, finish, worked
from project import Project

pytestmark = pytest.mark.usefixtures("plain")


def test_a_site_without_accounting(project: Project) -> None:
    """From the measures on; the first job is cancelled on the way."""
    running = begin_chunk(project, "measure", *PLAIN)
    command("scancel", "--user=root")
    finish(project, running)
    check_cohort(project)
    assert worked(project)["measure sub-01_ses-1 begun"] == 1
    assert worked(project)["measure sub-06_ses-1 begun"] == 2


def test_a_gpu_is_given_to_the_job_that_asks() -> None:
    asked = ("srun", "-p", "gpu", "--gres=gpu:1", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert command(*asked).strip() == "0"
    assert command("srun", "sh", "-c", "echo :$CUDA_VISIBLE_DEVICES:").strip() == "::"
