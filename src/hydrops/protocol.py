"""Protocols: what makes a series the MRC, the PPI or the PEI of an examination."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydrops.validate import check, load_yaml

Range = tuple[float, float]


@dataclass(frozen=True)
class Rule:
    """What a series must be to play a role; ranges in ms, None where it does not matter."""

    tr_ms: Range | None = None
    te_ms: Range | None = None
    ti_ms: Range | None = None
    inversion: bool | None = None
    image_type: str | None = None
    series_number: int | None = None


@dataclass(frozen=True)
class Protocol:
    """Rules by role, and how HYDROPS is made: PPI-PEI, HYDROPS, MRC-PPI or none."""

    combination: str
    roles: Mapping[str, Rule]


def load_protocol(path: Path) -> Protocol:
    """Read a protocol file; raises `HydropsError` naming every fault."""
    return protocol_from(load_yaml(path, "protocol"))


def protocol_from(values: Mapping[str, Any]) -> Protocol:
    """A protocol from plain data that fits its schema."""
    check(values, "protocol", "protocol")
    return Protocol(
        values["combination"], {role: _rule(rule) for role, rule in values["roles"].items()}
    )


def _rule(values: Mapping[str, Any]) -> Rule:
    return Rule(
        **{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}  # type: ignore[arg-type]
    )


def protocol_text(protocol: Protocol) -> str:
    """A protocol as JSON that `protocol_from` reads, a string that Snakemake can compare."""
    roles = {
        role: {key: value for key, value in asdict(rule).items() if value is not None}
        for role, rule in protocol.roles.items()
    }
    return json.dumps({"combination": protocol.combination, "roles": roles}, sort_keys=True)
