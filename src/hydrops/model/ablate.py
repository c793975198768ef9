"""Ablation: a model of labelled CT trained again with one thing changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hydrops.errors import HydropsError
from hydrops.model.ablation import Grid, merged
from hydrops.model.cases import cases_of_part
from hydrops.model.ct import train_ct
from hydrops.model.ct_task import CtOptions
from hydrops.validate import read_yaml


def changed_options(grid: Grid, configuration: Path, change: str) -> CtOptions:
    """A model's options with a change made, and with fewer steps of all networks but the pose's.

    Raises
    ------
    HydropsError
        If the change sets a key that the configuration does not have, or is none of the grid.
    """
    if change not in grid.changes:
        raise HydropsError(f"{change}: no such change; there are: {', '.join(grid.changes)}")
    values = read_yaml(configuration)
    changed = merged(values, grid.changes[change]["set"])
    options = CtOptions.make(changed, configuration)
    phases = tuple(
        replace(phase, steps=max(1, round(grid.steps * phase.steps))) for phase in options.phases
    )
    return replace(options, phases=phases)


def train_change(
    grid: Grid,
    configuration: Path,
    specimens: Path,
    change: str,
    part: str,
    folder: Path,
    device: str,
    threads: int,
) -> Path:
    """Train the changed model on the specimens outside a fold; leaves `weights.pt` in `folder`.

    Raises
    ------
    HydropsError
        If the change or the specimens cannot be used.
    """
    options = changed_options(grid, configuration, change)
    cases = cases_of_part(specimens, options.folds, options.seed, part)
    return train_ct(options, cases, folder, device, threads)
