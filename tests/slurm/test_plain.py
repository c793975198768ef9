"""The cohort on a cluster without accounting, which asks squeue how its jobs are."""

from __future__ import annotations

import pytest
from cluster import command
from project import Project
from test_slurm import check_cohort, finish, start

pytestmark = pytest.mark.usefixtures("plain")


def test_a_site_without_accounting(project: Project) -> None:
    site = ("--slurm-status-command", "squeue", "--slurm-no-account")
    finish(project, start(project, *site))
    check_cohort(project)


def test_a_gpu_is_given_to_the_job_that_asks() -> None:
    asked = ("srun", "-p", "gpu", "--gres=gpu:1", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert command(*asked).strip() == "0"
    assert command("srun", "sh", "-c", "echo :$CUDA_VISIBLE_DEVICES:").strip() == "::"
