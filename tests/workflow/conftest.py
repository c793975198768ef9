"""One finished cohort for the tests that start from one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh copy of the project, nothing run yet."""
    return Project.create(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished cohort of two phantoms, one of them not usable. Do not change it: copy."""
    project = Project.create(tmp_path_factory.mktemp("finished"))
    project.participants("01", "09")
    project.run()
    return project
