"""The participants of a study: participants.tsv, read and checked before anything runs."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pandas as pd

from hydrops.errors import HydropsError
from hydrops.paths import Unit
from hydrops.validate import load_schema

NUMERIC = ("age", "pta_left", "pta_right")
WORDS = ("group", "sex", "affected_side")
IDENTITY = ("participant_id", "session_id")


def read_participants(path: Path) -> pd.DataFrame:
    """Read a participants.tsv; identifiers are text, ``sub-`` and ``ses-`` may stand before them.

    What is n/a or empty is missing in the table that is returned.

    Raises
    ------
    HydropsError
        Naming the file, the line and the column: a missing or unknown column, an identifier that
        is no BIDS label, a row twice, a value that is no number, no rows at all.
    """
    try:
        table = pd.read_csv(
            path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
        )
    except FileNotFoundError:
        raise HydropsError(
            f"{path}: no such file; make one with: hydrops scan DICOM_DIR > {path}"
        ) from None
    except OSError as error:
        raise HydropsError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise HydropsError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise HydropsError(f"{path}: not a tab-separated table ({error})") from error
    schema = load_schema("participants")
    _check_columns(table, schema["required"], list(schema["properties"]), path)
    table = table.apply(lambda column: column.str.strip())
    if "session_id" not in table:
        table.insert(1, "session_id", "1")
    table = tidy_identity(table)
    _check_rows(table, schema, path)
    twice = table.duplicated(list(IDENTITY))
    if twice.any():
        line = int(twice.to_numpy().argmax())
        unit = units_of(table)[line]
        raise HydropsError(
            f"{path}, line {line + 2}: participant {unit.participant}, session {unit.session} "
            "appears twice"
        )
    for column in NUMERIC:
        if column in table:
            table[column] = pd.to_numeric(table[column].replace({"n/a": None, "": None}))
    for column in WORDS:
        if column in table:
            table[column] = table[column].where(~table[column].isin(["", "n/a"]))
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
    missing = [column for column in required if column not in table]
    if missing:
        raise HydropsError(f"{path}: column {missing[0]} is missing (is it tab-separated?)")
    unknown = [column for column in table if column not in known]
    if unknown:
        raise HydropsError(f"{path}: unknown column {unknown[0]}; known are {', '.join(known)}")
    if table.empty:
        raise HydropsError(f"{path}: lists no participants")


def _check_rows(table: pd.DataFrame, schema: dict[str, object], path: Path) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    for line, row in enumerate(table.to_dict("records"), start=2):
        fault = jsonschema.exceptions.best_match(validator.iter_errors(row))
        if fault is not None:
            column = fault.path[0]
            wanted = schema["properties"][column]["description"]  # type: ignore[index]
            raise HydropsError(
                f"{path}, line {line}, column {column}: {row[column]!r} does not fit ({wanted})"
            )
