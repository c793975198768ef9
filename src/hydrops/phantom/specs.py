"""Who takes part in a cohort of phantoms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hydrops.errors import HydropsError
from hydrops.validate import load_yaml


@dataclass(frozen=True)
class ParticipantSpec:
    """One phantom participant.

    Parameters
    ----------
    severity
        Hydrops of the left and the right ear, 0 (normal) to 1.
    fault
        What is wrong with the examination, as the schema names it; empty if nothing is.
    enhanced
        Write enhanced multi-frame DICOM.
    """

    participant_id: str
    seed: int
    group: str
    severity: tuple[float, float]
    age: int = 50
    sex: str = "n/a"
    affected_side: str = "none"
    pta: tuple[float, float] = (15.0, 15.0)
    fault: str = ""
    enhanced: bool = False


def load_specs(path: Path) -> list[ParticipantSpec]:
    """Read the participants of a cohort of phantoms.

    Raises
    ------
    HydropsError
        If the file does not fit its schema, or a participant appears twice.
    """
    specs = [spec_from(entry) for entry in load_yaml(path, "phantom")["participants"]]
    names = [spec.participant_id for spec in specs]
    if len(set(names)) != len(names):
        raise HydropsError(f"{path}: a participant appears twice")
    return specs


def random_specs(count: int, seed: int) -> list[ParticipantSpec]:
    """Participants of two groups, for benchmarks and evaluations."""
    rng = np.random.default_rng(seed)
    return [
        ParticipantSpec(
            f"{number:04d}",
            seed * 100_000 + number,
            "meniere" if number % 2 else "control",
            tuple(rng.uniform(0.0, 1.0, 2) * (rng.random(2) < 0.75)),  # type: ignore[arg-type]
            enhanced=number % 4 == 0,
        )
        for number in range(1, count + 1)
    ]


def spec_from(values: Mapping[str, Any]) -> ParticipantSpec:
    """A participant from plain data that fits the schema."""
    pairs = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return ParticipantSpec(**pairs)  # type: ignore[arg-type]
