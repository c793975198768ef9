"""Texts that can be read, and files that are there whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all; its folder is made."""
    with placed(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
