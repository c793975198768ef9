"""Reading the file of a training into its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from hydrops.errors import HydropsError
from hydrops.model.augment import Augmentation
from hydrops.model.course import Phase
from hydrops.model.network import NetworkOptions
from hydrops.model.tasks import SCHEMA
from hydrops.validate import check, read_yaml

Options = TypeVar("Options")
#: An image is brought to a grid whose sides are multiples of so many voxels, which the steps of a
#: network's levels must divide (`hydrops.model.whole.working_grid`).
MULTIPLE = 8


def read_options(path: Path, make: Callable[..., Options]) -> Options:
    """What `make` makes of a configuration's keys, nested ones read into their own classes.

    Raises
    ------
    HydropsError
        If the file cannot be read, breaks the schema of a training, a key is missing or unknown, or
        the network has more levels than a grid or a patch can be halved for.
    """
    return make_options(read_yaml(path), path, make)


def make_options(given: Mapping[str, Any], path: Path, make: Callable[..., Options]) -> Options:
    """As `read_options`, of keys that are read already; `path` is where a mistake lies.

    Raises
    ------
    HydropsError
        If they break the schema, or are none of a network or a training.
    """
    check(given, SCHEMA, str(path))
    values = dict(given)
    try:
        values["network"] = NetworkOptions.from_dict(values["network"])
        values["augmentation"] = Augmentation(**values["augmentation"])
        values["phases"] = tuple(Phase(**phase) for phase in values["phases"])
        _check_levels(values["network"], values["patch"], path)
        return make(**values)
    except (TypeError, KeyError) as error:
        raise HydropsError(f"{path}: not a training configuration ({error})") from error


def _check_levels(network: NetworkOptions, patch: int, path: Path) -> None:
    for count in voxels_made_one(network, (patch,) * 3, path):
        if MULTIPLE % count:
            raise HydropsError(
                f"{path}: the network's levels make {count} voxels one, and the sides of grids are "
                f"multiples of {MULTIPLE}; give it fewer levels"
            )


def voxels_made_one(network: NetworkOptions, patch: Sequence[int], path: Path) -> list[int]:
    """How many voxels along each axis are one on a network's lowest level.

    Raises
    ------
    HydropsError
        If a patch is no multiple of them, or steps are not one for each level after the first.
    """
    steps = network.strides or ((2, 2, 2),) * (len(network.channels) - 1)
    if len(steps) != len(network.channels) - 1:
        raise HydropsError(
            f"{path}: network: {len(network.channels)} levels of channels have "
            f"{len(network.channels) - 1} strides between them, not {len(steps)}"
        )
    counts = [prod(along) * fold for along, fold in zip(zip(*steps), network.fold)]
    for edge, count in zip(patch, counts):
        if edge % count:
            raise HydropsError(
                f"{path}: patch: {edge} is no multiple of {count}, the voxels that the network's "
                "levels make one"
            )
    return counts
