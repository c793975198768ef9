"""Reading the file of a training into its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from hydrops.errors import HydropsError
from hydrops.model.augment import Augmentation
from hydrops.model.course import Phase
from hydrops.model.network import NetworkOptions

Options = TypeVar("Options")


def read_options(path: Path, make: Callable[..., Options]) -> Options:
    """What `make` makes of a configuration's keys, nested ones read into their own classes.

    Raises
    ------
    HydropsError
        If a key is missing or unknown.
    """
    return make_options(yaml.safe_load(path.read_text(encoding="utf-8")), path, make)


def make_options(given: Mapping[str, Any], path: Path, make: Callable[..., Options]) -> Options:
    """As `read_options`, of keys that are read already; `path` is where a mistake lies."""
    values = dict(given)
    try:
        values["network"] = NetworkOptions.from_dict(values["network"])
        values["augmentation"] = Augmentation(**values["augmentation"])
        values["phases"] = tuple(Phase(**phase) for phase in values["phases"])
        return make(**values)
    except (TypeError, KeyError) as error:
        raise HydropsError(f"{path}: not a training configuration ({error})") from error
