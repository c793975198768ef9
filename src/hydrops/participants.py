"""The participants of a study: participants.tsv, read and checked before anything runs."""

from __future__ import annotations

import os
from pathlib import Path

import jsonschema
import pandas as pd

from hydrops.errors import HydropsError
from hydrops.files import read_tsv_lines
from hydrops.paths import Unit
from hydrops.validate import load_schema

NUMERIC = ("age", "pta_left", "pta_right")
WORDS = ("group", "sex", "affected_side")
IDENTITY = ("participant_id", "session_id")


def read_participants(path: Path) -> pd.DataFrame:
    """Read a participants.tsv; identifiers are text, ``sub-`` and ``ses-`` may stand before them.

    What is n/a or empty is missing in the table that is returned. Raises as `read_as_text` does.
    """
    table = read_as_text(path)
    for column in NUMERIC:
        if column in table:
            table[column] = pd.to_numeric(table[column].replace({"n/a": None, "": None}))
    for column in WORDS:
        if column in table:
            table[column] = table[column].where(~table[column].isin(["", "n/a"]))
    return table


def read_as_text(path: Path) -> pd.DataFrame:
    """Read a participants.tsv, every value as it stands there, its rows checked.

    Rows and columns at the end without a word, as spreadsheets leave them, are passed over.

    Raises
    ------
    HydropsError
        Naming the file, the line and the column: a missing or unknown column, an identifier that
        is no BIDS label, a row or a source twice, a source within another, a row that is longer
        than the header, a value that is no number, no rows at all.
    """
    if not path.exists():
        raise HydropsError(f"{path}: no such file; make one with: hydrops scan DICOM_DIR > {path}")
    (_, header), *rows = read_tsv_lines(path)
    table = pd.DataFrame([fields for _, fields in rows], columns=header, dtype=str)
    schema = load_schema("participants")
    _check_columns(table, schema["required"], list(schema["properties"]), path)
    if "session_id" not in table:
        table.insert(1, "session_id", "1")
    table = tidy_identity(table)
    numbers = [number for number, _ in rows]
    _check_rows(table, numbers, schema, path)
    twice = table.duplicated(list(IDENTITY))
    if twice.any():
        row = int(twice.to_numpy().argmax())
        unit = units_of(table)[row]
        raise HydropsError(
            f"{path}, line {numbers[row]}: participant {unit.participant}, session {unit.session} "
            "appears twice"
        )
    _check_sources(table["source"], numbers, path)
    return table


def tidy_identity(table: pd.DataFrame) -> pd.DataFrame:
    """Bring identifiers to one form: no ``sub-`` and ``ses-``, session 1 where none is told."""
    table = table.assign(session_id=table["session_id"].replace({"": "1", "n/a": "1"}))
    for column, prefix in zip(IDENTITY, ("sub-", "ses-")):
        table[column] = table[column].str.removeprefix(prefix)
    return table


def units_of(table: pd.DataFrame) -> list[Unit]:
    """The sessions of a table, in its order."""
    return [Unit(p, s) for p, s in zip(table["participant_id"], table["session_id"])]


def _check_columns(table: pd.DataFrame, required: list[str], known: list[str], path: Path) -> None:
    twice = [column for column in table if list(table).count(column) > 1]
    if twice:
        raise HydropsError(f"{path}: column {twice[0]} is there twice")
    missing = [column for column in required if column not in table]
    if missing:
        raise HydropsError(f"{path}: column {missing[0]} is missing (is it tab-separated?)")
    unknown = [column for column in table if column not in known]
    if unknown:
        raise HydropsError(f"{path}: unknown column {unknown[0]}; known are {', '.join(known)}")
    if table.empty:
        raise HydropsError(f"{path}: lists no participants")


def _check_sources(sources: pd.Series, lines: list[int], path: Path) -> None:
    """Refuse a folder that is that of another row, under whatever name, or lies within it."""
    real = [Path(os.path.realpath(source)) for source in sources]
    seen: set[Path] = set()
    rows = set(real)
    for line, source, folder in zip(lines, sources, real):
        fault = "is that of another row, too" if folder in seen else ""
        seen.add(folder)
        if not fault and not rows.isdisjoint(folder.parents):
            fault = "lies within that of another row"
        if fault:
            raise HydropsError(
                f"{path}, line {line}, column source: {source} {fault}; each session has a folder "
                "of its own"
            )


def _check_rows(
    table: pd.DataFrame, lines: list[int], schema: dict[str, object], path: Path
) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    for line, row in zip(lines, table.to_dict("records")):
        fault = jsonschema.exceptions.best_match(validator.iter_errors(row))
        if fault is not None:
            column = fault.path[0]
            wanted = schema["properties"][column]["description"]  # type: ignore[index]
            raise HydropsError(
                f"{path}, line {line}, column {column}: {row[column]!r} does not fit ({wanted})"
            )
