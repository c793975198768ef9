"""What lies in the folder of a scan, and whether it has changed; quick to load."""

from __future__ import annotations

import os
from pathlib import Path

from hydrops.records import digest


def look_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """What lies below a folder, also by links, each folder once; hidden things are left out.

    Returns
    -------
    All files, and the files and folders that may not be read.
    """
    found: list[Path] = []
    closed: list[Path] = []
    seen: set[str] = set()
    walk = os.walk(
        folder, followlinks=True, onerror=lambda error: closed.append(Path(error.filename))
    )
    for root, folders, names in walk:
        where = os.path.realpath(root)
        folders[:] = [name for name in folders if where not in seen and not name.startswith(".")]
        if where not in seen:
            found += [Path(root) / name for name in names if not name.startswith(".")]
        seen.add(where)
    return found, closed + [path for path in found if _is_closed(path)]


def _is_closed(path: Path) -> bool:
    """Whether a file is there and may not be read; a link to nothing is not there."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, PermissionError)
    return not os.access(path, os.R_OK)


def source_state(source: Path) -> str:
    """Where a session's files lie, and how: a digest that changes when one is added or replaced.

    A link whose file was not fetched counts as a file that is not there.
    """
    files, closed = look_below(source)
    states = [_as_text(source), *(f"closed {_as_text(path)}" for path in sorted(closed))]
    for path in sorted(set(files) - set(closed)):
        if path.exists():
            found, name = path.stat(), _as_text(path.relative_to(source))
            states.append(f"{name} {found.st_size} {found.st_mtime_ns}")
    return digest(*states)


def _as_text(path: Path) -> str:
    """A path as text that can be encoded, also where its name is not UTF-8."""
    return os.fsencode(path).decode("latin-1")
