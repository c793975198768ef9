"""What an ablation changes, one thing at a time; nothing here imports torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydrops.errors import HydropsError
from hydrops.model.tasks import SCHEMA, Training
from hydrops.validate import check, load_yaml

#: Name of the model as it is.
UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Grid:
    """What is changed, as the grid's file gives it.

    Parameters
    ----------
    folds
        Folds of the model's cross-validation that are trained and tested.
    steps
        Share of the model's steps that each is trained for; how an ear lies, which a cascade must
        know before its planes can learn, is learned in full.
    changes
        By name, what it is in words (`what`) and the keys that it sets (`set`) in the model's
        configuration; keys given for a list change each of its entries.
    """

    folds: tuple[int, ...]
    steps: float
    changes: dict[str, dict[str, Any]]

    @staticmethod
    def load(path: Path) -> Grid:
        """Read a grid; the model as it is comes first.

        Raises
        ------
        HydropsError
            If the file cannot be read or breaks its schema.
        """
        if not path.is_file():
            raise HydropsError(f"{path}: no ablation of that model is configured")
        values = load_yaml(path, "ablation")
        changes = {UNCHANGED: {"what": "the model as it is", "set": {}}, **values["changes"]}
        return Grid(tuple(values["folds"]), float(values["steps"]), changes)

    def check_for(self, training: Training) -> None:
        """Refuse, before anything is trained, what does not fit the model.

        Raises
        ------
        HydropsError
            If a fold is none of its cross-validation, or a change sets what is no key of its file.
        """
        beyond = [fold for fold in self.folds if fold >= training.folds]
        if beyond:
            raise HydropsError(
                f"{training.ablation}: folds: there is no fold {beyond[0]}; {training.name} has "
                f"{training.folds}, from 0"
            )
        plain = json.loads(training.options)
        for name, change in self.changes.items():
            check(merged(plain, change["set"]), SCHEMA, f"{training.ablation}: changes: {name}")


def merged(values: Any, changes: Any) -> Any:
    """Values in which some keys are set, at any depth; for a list, in each of its entries."""
    if isinstance(values, list) and isinstance(changes, Mapping):
        return [merged(entry, changes) for entry in values]
    if isinstance(values, Mapping) and isinstance(changes, Mapping):
        return {**values, **{key: merged(values.get(key), new) for key, new in changes.items()}}
    return changes
