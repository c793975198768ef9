"""Digests of the code that a stage runs, so that an edit reruns what uses it, and only that."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent


@cache
def stage_digest(*modules: str) -> str:
    """SHA-256 (16 digits) of modules and all of the package that they import, directly or not.

    Parameters
    ----------
    modules
        Dotted names below the package, e.g. ``register`` or ``phantom.cohort``.
    """
    found: set[Path] = set()
    waiting = [_file_of(f"hydrops.{module}") for module in modules]
    while waiting:
        path = waiting.pop()
        if path is None or path in found:
            continue
        found.add(path)
        waiting += [_file_of(name) for name in _imports(path)]
    total = hashlib.sha256()
    for path in sorted(found):
        total.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


@cache
def _imports(path: Path) -> list[str]:
    """Names of the package that a file imports, wherever in it; read once for all stages."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name.startswith("hydrops.")]


def _file_of(name: str) -> Path | None:
    place = ROOT.joinpath(*name.split(".")[1:])
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None
