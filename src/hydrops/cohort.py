"""The cohort's tables: every ear measured, every exclusion with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hydrops.files import write_text_atomically
from hydrops.labels import SIDES
from hydrops.measure import EAR_COLUMNS, LANDMARK_COLUMNS
from hydrops.paths import Paths, Unit
from hydrops.records import read_record

INTERVAL_COLUMNS = (
    "participant_id", "session_id", "side", "eh_volume_ratio", "ci_low", "ci_high", "model",
)  # fmt: skip
EXCLUSION_COLUMNS = ("participant_id", "session_id", "side", "stage", "reason")
#: Columns of tests whose numbers are p values.
P_VALUES = frozenset({"p", "p_corrected"})


@dataclass(frozen=True)
class CohortTables:
    """Tidy tables of a cohort, all values text as in the sessions' own tables."""

    ears: pd.DataFrame
    landmarks: pd.DataFrame
    exclusions: pd.DataFrame


def build_tables(units: Sequence[Unit], paths: Paths, model: str) -> CohortTables:
    """Gather the sessions' rows; each ear of each session is either measured or excluded."""
    ears: list[list[str]] = []
    landmarks: list[list[str]] = []
    exclusions: list[list[str]] = []
    for unit in sorted(units, key=lambda u: (u.participant, u.session)):
        record = read_record(paths.record("measure", unit, model))
        identity = [unit.participant, unit.session]
        if record.outcome == "excluded":
            exclusions.append([*identity, "both", record.stage, record.reason])
            continue
        exclusions += [
            [
                *identity,
                side,
                record.excluded_sides[side]["stage"],
                record.excluded_sides[side]["reason"],
            ]
            for side in SIDES
            if side in record.excluded_sides
        ]
        ears += _rows(paths.measures(unit, model))
        landmarks += _rows(paths.measured_landmarks(unit, model))
    return CohortTables(
        pd.DataFrame(ears, columns=list(EAR_COLUMNS)),
        pd.DataFrame(landmarks, columns=list(LANDMARK_COLUMNS)),
        pd.DataFrame(exclusions, columns=list(EXCLUSION_COLUMNS)),
    )


def ratio_intervals(ears: pd.DataFrame) -> pd.DataFrame:
    """Interval of each labyrinth's EH volume ratio, where there is one.

    Parameters
    ----------
    ears
        As `read_table` reads them.
    """
    return ears.dropna(subset=["ci_low"])[list(INTERVAL_COLUMNS)]


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as TSV, whole or not at all; what is missing is n/a."""
    write_text_atomically(path, table.to_csv(sep="\t", index=False, na_rep="n/a"))


def markdown_table(table: pd.DataFrame, digits: int = 4) -> str:
    """A table for a page in Markdown, its numbers rounded; what is missing is left empty.

    A p value that would be rounded to nothing is said to be less than what is left of it.
    """
    shown = table.round(digits).astype(object)
    for name in P_VALUES.intersection(table):
        shown.loc[table[name] < 0.5 * 10**-digits, name] = f"<{10**-digits:.{digits}f}"
    return str(shown.where(shown.notna(), "").to_markdown(index=False))


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that `write_table` wrote; identifiers stay text."""
    texts = dict.fromkeys(("participant_id", "session_id"), str)
    return pd.read_csv(path, sep="\t", dtype=texts, na_values=["n/a"], keep_default_na=False)


def _rows(path: Path) -> list[list[str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines[1:]]
