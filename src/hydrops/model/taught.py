"""Whom a network has learned from, told beside its weights, so that it is tested on none of them.

What lies in the folder of a data set may change after a training: which cases a network never saw
is what its training says, not what the folder would give today.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hydrops.errors import HydropsError
from hydrops.files import write_text_atomically

#: Names of the files beside a file of weights.
TAUGHT, STEPS = "taught.json", "steps.json"


def digest_of(*arrays: npt.NDArray[np.generic]) -> str:
    """SHA-256 (16 digits) of what is learned from: what arrays hold, their shapes and types."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype.str} {array.shape} ".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


def write_taught(weights: Path, taught: Mapping[str, str]) -> None:
    """Leave whom weights are learned from beside them: names and digests of specimens or cases."""
    text = json.dumps(dict(sorted(taught.items())), indent=1) + "\n"
    write_text_atomically(weights.with_name(TAUGHT), text)


def write_steps(weights: Path, steps: Sequence[int]) -> None:
    """Leave beside weights for how many steps each phase was trained; one may have ended early."""
    write_text_atomically(weights.with_name(STEPS), json.dumps(list(steps)) + "\n")


def steps_of(weights: Path, planned: Sequence[int]) -> list[int]:
    """For how many steps each phase was trained; as planned, where an earlier version trained."""
    path = weights.with_name(STEPS)
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else list(planned)


def taught_by(weights: Path) -> dict[str, str]:
    """Digests of the specimens or cases that weights were learned from, by their names.

    Empty ones where an earlier training has left names alone.

    Raises
    ------
    HydropsError
        If that is not told beside them.
    """
    path = weights.with_name(TAUGHT)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return dict(told) if isinstance(told, dict) else dict.fromkeys(told, "")
    except (OSError, TypeError, json.JSONDecodeError) as error:
        raise HydropsError(
            f"{path}: does not tell whom {weights.name} was learned from; remove the folder and "
            "train again"
        ) from error


def refuse_taught(weights: Path, tested: Mapping[str, str]) -> None:
    """Refuse a test on cases that the tested network has learned from.

    Parameters
    ----------
    tested
        Digests of the cases by their names: one may have had another name when it was learned from.

    Raises
    ------
    HydropsError
        Naming them; the data set has changed since the training.
    """
    taught = taught_by(weights)
    before = {digest: name for name, digest in taught.items() if digest}
    seen = [
        name if name in taught else f"{name} (then {before[digest]})"
        for name, digest in sorted(tested.items())
        if name in taught or digest in before
    ]
    if seen:
        raise HydropsError(
            f"{weights}: learned from {', '.join(seen)}, which it would be tested on; the data set "
            "was another when it was trained: remove the folder and train again"
        )
