"""The table of landmarks of a folder of specimens: read with care, refused before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from hydrops.errors import HydropsError
from hydrops.labels import SIDES

#: Name of the table in the folder.
LANDMARK_TABLE = "landmarks.tsv"
#: Its columns that place a landmark, and all of them.
COORDINATES = ("x_ras_mm", "y_ras_mm", "z_ras_mm")
LANDMARK_COLUMNS = ("specimen", "side", "landmark", *COORDINATES)
#: Names in it, and the guides that `hydrops.phantom.anatomy.ear_from_label` wants.
SPECIMEN_LANDMARKS = {
    "A": "helicotrema",
    "OW": "oval_window",
    "RW": "round_window",
    "C": "modiolus",
    "V": "vestibule",
}


def read_landmark_table(folder: Path) -> pd.DataFrame:
    """The table of a folder of specimens: specimen, side, landmark and its RAS mm.

    Raises
    ------
    HydropsError
        If it is missing or no table of that kind, a row names no specimen, no side or no landmark
        that is known, a coordinate is not a finite number, a landmark is there twice, or a specimen
        is of both sides.
    """
    path = folder / LANDMARK_TABLE
    written = _read_text(path)
    points = written[list(COORDINATES)].apply(pd.to_numeric, errors="coerce").astype(float)
    faults = [*_unknown_words(written), *_no_numbers(written, points), *_contradictions(written)]
    if faults:
        raise HydropsError(f"{path}: {faults[0]}")
    return written.assign(**{column: points[column] for column in COORDINATES})


def _read_text(path: Path) -> pd.DataFrame:
    """All cells as they are written: a specimen may be called 001 or NA."""
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, na_filter=False)
    except OSError as error:
        raise HydropsError(
            f"{path}: missing; the specimens are those of Wimmer et al. 2019 "
            "(doi:10.1016/j.dib.2019.104782), laid out as README.md says"
        ) from error
    except ValueError as error:
        raise HydropsError(f"{path}: not a table of landmarks ({error})") from error
    lacking = [column for column in LANDMARK_COLUMNS if column not in table]
    if lacking:
        raise HydropsError(f"{path}: column {lacking[0]} is missing")
    return table


def _unknown_words(table: pd.DataFrame) -> Iterator[str]:
    """Rows without a specimen, or with a side or landmark that is none."""
    for specimen, side, landmark in zip(table["specimen"], table["side"], table["landmark"]):
        if not specimen.strip():
            yield f"a row (landmark {landmark!r}) names no specimen; name it or remove the row"
        elif side not in SIDES:
            yield f"the side of {specimen} is {side!r}; write {' or '.join(SIDES)}"
        elif landmark not in SPECIMEN_LANDMARKS:
            known = ", ".join(SPECIMEN_LANDMARKS)
            yield f"{specimen} has a landmark {landmark!r}; those that are known are {known}"


def _no_numbers(written: pd.DataFrame, points: pd.DataFrame) -> Iterator[str]:
    """Coordinates that are empty, infinite or no numbers at all."""
    for row, column in np.argwhere(~np.isfinite(points.to_numpy())):
        cells, axis = written.iloc[row], COORDINATES[column]
        yield (
            f"{axis} of landmark {cells['landmark']} of {cells['specimen']} is {cells[axis]!r}, "
            "not a finite number; write mm with a decimal point"
        )


def _contradictions(table: pd.DataFrame) -> Iterator[str]:
    """Landmarks that are there twice, and specimens of two sides."""
    twice = table[table.duplicated(["specimen", "landmark"])]
    for specimen, landmark in zip(twice["specimen"], twice["landmark"]):
        yield f"landmark {landmark} of {specimen} is there twice; keep one row"
    for specimen, sides in table.groupby("specimen")["side"].unique().items():
        if len(sides) > 1:
            yield f"{specimen} is of both sides; an ear is of one, so correct the column side"
