"""Fixtures that every stage's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings

from places import REPOSITORY

# Shrinking an example that takes a second would take minutes; the failing one is shown as found.
hypothesis_settings.register_profile(
    "quick", phases=(Phase.explicit, Phase.reuse, Phase.generate), deadline=None, derandomize=True
)
hypothesis_settings.load_profile("quick")

#: Files whose tests take longest: begun first, they leave no worker without work at the end.
LONGEST = (
    "test_run.py",
    "test_register_locate.py",
    "test_ct.py",
    "test_single.py",
    "test_segment.py",
    "test_model.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files by how long they take; within a file nothing changes."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data, beside the repository; tests that need it skip where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data not found beside the repository ({folder.name} is missing)")
    return folder
