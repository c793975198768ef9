"""A real cluster on this machine, and a cohort to run on it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))
from cluster import cluster
from project import Project


@pytest.fixture(scope="session")
def installed() -> None:
    if os.environ.get("HYDROPS_TEST_SLURM") != "1":
        pytest.skip("needs a machine to install SLURM on: `make test-slurm`")
    cluster("install")


@pytest.fixture(scope="module")
def accounted(installed: None) -> Iterator[None]:  # noqa: ARG001
    """The cluster with accounting."""
    cluster("start", "accounting")
    yield
    cluster("stop")


@pytest.fixture(scope="module")
def plain(installed: None) -> Iterator[None]:  # noqa: ARG001
    """The cluster without accounting."""
    cluster("start", "plain")
    yield
    cluster("stop")


@pytest.fixture(scope="session")
def prepared(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Project:  # noqa: ARG001
    """A cohort whose phantoms are drawn, nothing else done. Do not change it: copy."""
    project = Project.create(tmp_path_factory.mktemp("prepared"))
    project.participants("01", "06", "09")
    project.configure(chunk_size=4)
    project.run("--until", "draw_phantom")
    return project


@pytest.fixture
def project(prepared: Project, tmp_path: Path) -> Project:
    shutil.copytree(prepared.folder, tmp_path, symlinks=True, dirs_exist_ok=True)
    return Project(tmp_path)
