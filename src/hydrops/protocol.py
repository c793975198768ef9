"""Protocols: what makes a series the MRC, the PPI or the PEI of an examination."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydrops.errors import HydropsError
from hydrops.validate import check, load_yaml, refuse_reversed

Range = tuple[float, float]

#: Roles that a way of making HYDROPS brings to the MRC.
MOVING_ROLES = {
    "PPI-PEI": ("PPI", "PEI"),
    "HYDROPS": ("HYDROPS",),
    "MRC-PPI": ("PPI",),
    "none": (),
}


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
    return protocol_from(load_yaml(path, "protocol"), str(path))


def protocol_from(values: Mapping[str, Any], where: str = "protocol") -> Protocol:
    """A protocol from plain data.

    Parameters
    ----------
    where
        What a message calls the data.

    Raises
    ------
    HydropsError
        If the data break the schema, lack a role that HYDROPS is to be made of, or have a range
        whose ends are the wrong way round.
    """
    check(values, "protocol", where)
    lacking = [r for r in MOVING_ROLES[values["combination"]] if r not in values["roles"]]
    if lacking:
        raise HydropsError(
            f"{where}: combination {values['combination']} needs the role {lacking[0]}, which is "
            "not among its roles"
        )
    for role, rule in values["roles"].items():
        for what, limits in rule.items():
            if isinstance(limits, list):
                refuse_reversed(limits, f"{where}: {what} of {role}")
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
