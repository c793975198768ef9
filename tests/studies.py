"""A study of two participants that are not there, as a configuration names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from places import REPOSITORY

GOOD = "participant_id\tsource\n01\tscans/01\n02\tscans/02\n"


def table_of(folder: Path, text: str) -> Path:
    path = folder / "participants.tsv"
    path.write_text(text, encoding="utf-8")
    return path


def study_in(folder: Path, **changes: Any) -> dict[str, Any]:
    table_of(folder, GOOD)
    shipped = yaml.safe_load((REPOSITORY / "config" / "config.yaml").read_text())
    return {
        **shipped,
        "participants": str(folder / "participants.tsv"),
        "protocol": str(REPOSITORY / "config" / "protocols" / "hydrops.yaml"),
        "models_dir": str(REPOSITORY / "models"),
        "results": str(folder / "results"),
        "phantom": None,
        "reader_table": None,
        **changes,
    }
