"""Reading the file of a training into its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from hydrops.errors import HydropsError
from hydrops.model.augment import Augmentation
from hydrops.model.course import Phase
from hydrops.model.network import NetworkOptions
from hydrops.validate import read_yaml

Options = TypeVar("Options")
#: An image is brought to a grid whose sides are multiples of so many voxels, which the steps of a
#: network's levels must divide (`hydrops.model.whole.working_grid`).
MULTIPLE = 8


def read_options(path: Path, make: Callable[..., Options]) -> Options:
    """What `make` makes of a configuration's keys, nested ones read into their own classes.

    Raises
    ------
    HydropsError
        If the file cannot be read, a key is missing or unknown, or the network has more levels than
        a grid can be halved for.
    """
    return make_options(read_yaml(path), path, make)


def make_options(given: Mapping[str, Any], path: Path, make: Callable[..., Options]) -> Options:
    """As `read_options`, of keys that are read already; `path` is where a mistake lies."""
    values = dict(given)
    try:
        values["network"] = NetworkOptions.from_dict(values["network"])
        values["augmentation"] = Augmentation(**values["augmentation"])
        values["phases"] = tuple(Phase(**phase) for phase in values["phases"])
        _check_levels(values["network"], path)
        return make(**values)
    except (TypeError, KeyError) as error:
        raise HydropsError(f"{path}: not a training configuration ({error})") from error


def _check_levels(network: NetworkOptions, path: Path) -> None:
    steps = network.strides or ((2, 2, 2),) * (len(network.channels) - 1)
    for along, fold in zip(zip(*steps), network.fold):
        if MULTIPLE % (prod(along) * fold):
            raise HydropsError(
                f"{path}: the network's levels make {prod(along) * fold} voxels one, and the sides "
                f"of grids are multiples of {MULTIPLE}; give it fewer levels"
            )
