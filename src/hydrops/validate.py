"""Configuration files against their JSON schemas, with messages for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from hydrops.errors import HydropsError
from hydrops.files import read_text

#: Words for nothing, of YAML and of Python.
NOTHING = ("null", "None", "~")
SCHEMAS = Path(__file__).parents[2] / "workflow" / "schemas"


def load_yaml(path: Path, schema: str) -> dict[str, Any]:
    """Read a YAML file and check it.

    Parameters
    ----------
    schema
        Name of a schema in ``workflow/schemas``, e.g. ``config``.

    Raises
    ------
    HydropsError
        As `read_yaml`, or if the file breaks the schema; every fault is named.
    """
    values = read_yaml(path)
    check(values, schema, str(path))
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys and values.

    Raises
    ------
    HydropsError
        If it is missing, is not UTF-8 or not YAML, or holds something else.
    """
    try:
        values = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise HydropsError(f"{path}: not YAML: {error}") from error
    if not isinstance(values, dict):
        raise HydropsError(f"{path}: holds no keys and values")
    return values


@cache
def load_schema(name: str) -> dict[str, Any]:
    """A schema of ``workflow/schemas``."""
    text = (SCHEMAS / f"{name}.schema.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def refuse_reversed(limits: Sequence[float], what: str) -> None:
    """Refuse a range whose ends are the wrong way round, named as a person would name it."""
    if limits[0] > limits[1]:
        raise HydropsError(
            f"{what} is {limits[0]:g} to {limits[1]:g}, which nothing fits; the lower end comes "
            "first"
        )


def check(values: Any, schema: str, where: str) -> None:
    """Check plain data against a schema of ``workflow/schemas``.

    Raises
    ------
    HydropsError
        Naming every fault, if they break it.
    """
    validator = jsonschema.Draft202012Validator(load_schema(schema))
    faults = sorted(validator.iter_errors(values), key=lambda fault: list(map(str, fault.path)))
    if faults:
        lines = [f"  {'.'.join(map(str, f.path)) or 'top level'}: {_told(f)}" for f in faults]
        raise HydropsError("\n".join([f"{where}: does not fit its schema:", *lines]))


def from_text(values: Any, schema: str) -> Any:
    """Plain data whose text is a number or nothing, wherever a schema wants one and no text.

    Snakemake's command line gives what lies within braces as text, and nothing as the word for it.
    """
    return _from_text(values, load_schema(schema))


def _from_text(value: Any, schema: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        inner = schema.get("properties", {})
        return {key: _from_text(part, inner.get(key, {})) for key, part in value.items()}
    if isinstance(value, list):
        return [_from_text(part, schema.get("items", {})) for part in value]
    if not isinstance(value, str):
        return value
    wanted = schema.get("type", "string")
    if "null" in wanted and value in NOTHING:
        return None
    if wanted not in ("number", "integer"):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    if not isfinite(number):
        return value
    return int(number) if number.is_integer() else number


def _told(fault: jsonschema.ValidationError) -> str:
    """A fault in words, and how a number is written that YAML has taken for text."""
    if fault.validator == "not":
        return "is no key of this kind"
    if fault.validator == "type" and isinstance(fault.instance, str):
        try:
            return f"{fault.message}; it is text: write {float(fault.instance)!r}"
        except ValueError:
            pass
    return str(fault.message)
