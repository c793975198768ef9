"""A real cluster on this machine, and a cohort to run on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))
from cluster import (
    ACCOUNTED,
    check_cohort,
    cluster,
    command,
    copy_finished,
    prepare,
    run,
    wait_until,
)
from project import Project


@pytest.fixture(scope="session")
def installed() -> Iterator[None]:
    if os.environ.get("HYDROPS_TEST_SLURM") != "1":
        pytest.skip("installs and starts SLURM on this machine, as root: `make test-slurm`")
    cluster("install")
    yield
    cluster("stop")


@pytest.fixture(scope="session")
def accounted(installed: None) -> None:  # noqa: ARG001
    """The cluster with accounting, before that without."""
    cluster("start", "accounting")


@pytest.fixture(scope="module")
def plain(installed: None) -> None:  # noqa: ARG001
    """The cluster without accounting; no later test asks for the other."""
    cluster("start", "plain")


@pytest.fixture
def quiet(installed: None) -> None:  # noqa: ARG001
    """No job of an earlier test is left."""
    command("scancel", "--user=root")
    wait_until(lambda: not command("squeue", "-h"), "an empty queue")


@pytest.fixture(scope="session")
def finished(accounted: None, tmp_path_factory: pytest.TempPathFactory) -> Project:  # noqa: ARG001
    """A cohort of three that the cluster has done from its DICOM on. Do not change it: copy."""
    project = Project.create(tmp_path_factory.mktemp("finished"))
    project.participants("01", "06", "09")
    project.configure(chunk_size=4)
    project.run("--until", "draw_phantom")
    prepare(project)
    run(project, *ACCOUNTED)
    check_cohort(project)
    return project


@pytest.fixture
def project(finished: Project, quiet: None, tmp_path: Path) -> Project:  # noqa: ARG001
    return copy_finished(finished, tmp_path)
