"""Texts that can be read, and files that are there whole or not at all."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

from hydrops.errors import HydropsError


def read_text(path: Path) -> str:
    """A text in UTF-8, with or without a mark of that at its beginning.

    Raises
    ------
    HydropsError
        If it cannot be read or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise HydropsError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise HydropsError(f"{path}: not UTF-8 text; save it as UTF-8") from error


def read_tsv_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Number and fields of each line that holds a word, all as many as the header, the first, has.

    Rows and columns at the end without a word, as spreadsheets leave them, are passed over.

    Raises
    ------
    HydropsError
        As of `read_text`; if there is no word at all, or naming a line that is longer than the
        header.
    """
    reader = csv.reader(StringIO(read_text(path), newline=""), delimiter="\t", strict=True)
    try:
        lines = [(reader.line_num, [field.strip() for field in row]) for row in reader]
    except csv.Error as error:
        raise HydropsError(f"{path}: not a tab-separated table ({error})") from error
    told = [(number, fields) for number, fields in lines if any(fields)]
    if not told:
        raise HydropsError(f"{path}: not a tab-separated table (it is empty)")
    width = max(n for n, name in enumerate(told[0][1], start=1) if name)
    for number, fields in told:
        if any(fields[width:]):
            raise HydropsError(
                f"{path}, line {number}: has more fields than the header's {width}; is there a tab "
                "within one of them?"
            )
    return [(number, (fields + [""] * width)[:width]) for number, fields in told]


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """A file of another name beside `path` to write; it becomes `path` where all went well.

    The name is nobody else's and begins with a dot; after an error nothing is left of it, and what
    was at `path` stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as begun:
        temporary = Path(begun.name)
    try:
        yield temporary
        # What is made for one person's eyes alone by default is for all who may see the folder.
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def placed_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of another one, whole, once all went well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        yield scratch
        # As in `placed`.
        scratch.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all; its folder is made."""
    with placed(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def names_told_apart(paths: Sequence[Path]) -> list[str]:
    """Names of files to speak of them by, with their folders' where the names alone are one."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    return [f"{path.absolute().parent.name}/{path.name}" for path in paths]
