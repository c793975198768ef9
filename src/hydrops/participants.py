"""The participants of a study: participants.tsv, read and checked before anything runs."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from hydrops.errors import HydropsError
from hydrops.paths import Unit

REQUIRED = ("participant_id", "source")
OPTIONAL = (
    "session_id", "group", "age", "sex", "affected_side", "pta_left", "pta_right",
)  # fmt: skip
NUMERIC = ("age", "pta_left", "pta_right")


def read_participants(path: Path) -> pd.DataFrame:
    """Read a participants.tsv; identifiers are text, ``sub-`` and ``ses-`` may stand before them.

    Raises
    ------
    HydropsError
        Naming the file, the row and the column: a missing or unknown column, an identifier that
        is no BIDS label, a row twice, a value that is no number, no rows at all.
    """
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise HydropsError(
            f"{path}: no such file; make one with: hydrops scan DICOM_DIR > {path}"
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise HydropsError(f"{path}: not a tab-separated table ({error})") from error
    missing = [column for column in REQUIRED if column not in table]
    if missing:
        raise HydropsError(f"{path}: column {missing[0]} is missing (is it tab-separated?)")
    unknown = [column for column in table if column not in REQUIRED + OPTIONAL]
    if unknown:
        known = ", ".join(REQUIRED + OPTIONAL)
        raise HydropsError(f"{path}: unknown column {unknown[0]}; known are {known}")
    if table.empty:
        raise HydropsError(f"{path}: lists no participants")
    if "session_id" not in table:
        table.insert(1, "session_id", "1")
    table["session_id"] = table["session_id"].replace({"": "1", "n/a": "1"})
    for column, prefix in (("participant_id", "sub-"), ("session_id", "ses-")):
        table[column] = table[column].str.strip().str.removeprefix(prefix)
        for row, value in enumerate(table[column], start=2):
            if not re.fullmatch("[A-Za-z0-9]+", value):
                raise HydropsError(
                    f"{path}, line {row}: {column} {value!r} is no label; use letters and digits"
                )
    twice = table.duplicated(["participant_id", "session_id"])
    if twice.any():
        line = int(twice.to_numpy().argmax())
        unit = units_of(table)[line]
        raise HydropsError(
            f"{path}, line {line + 2}: participant {unit.participant}, session {unit.session} "
            "appears twice"
        )
    for column in NUMERIC:
        if column in table:
            table[column] = _numbers(table[column], path)
    return table


def units_of(table: pd.DataFrame) -> list[Unit]:
    """The sessions of a table, in its order."""
    return [Unit(p, s) for p, s in zip(table["participant_id"], table["session_id"])]


def _numbers(column: pd.Series, path: Path) -> pd.Series:
    cleaned = column.str.strip().replace({"n/a": "", "NA": ""})
    numbers = pd.to_numeric(cleaned.where(cleaned != "", None), errors="coerce")
    wrong = numbers.isna() & (cleaned != "")
    if wrong.any():
        line = int(wrong.to_numpy().argmax()) + 2
        value = column[wrong].iloc[0]
        raise HydropsError(f"{path}, line {line}: {column.name} {value!r} is no number")
    return numbers
