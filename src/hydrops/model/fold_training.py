"""Train a network of a cross-validation, whatever kind of model a configuration is of.

Apart from `hydrops.model.folds`, so that a word changed in a card trains nothing again.
"""

from __future__ import annotations

from pathlib import Path

from hydrops.model.cases import cases_of_part, split_cases
from hydrops.model.ct import train_ct
from hydrops.model.ct_task import CtOptions
from hydrops.model.lesion import LesionOptions, train_lesion
from hydrops.model.tasks import read_kind


def load_options(configuration: Path) -> CtOptions | LesionOptions:
    """The options of a configuration, by its kind.

    Raises
    ------
    HydropsError
        If a key is missing or unknown.
    """
    lesion = read_kind(configuration) == "lesion"
    return LesionOptions.load(configuration) if lesion else CtOptions.load(configuration)


def train_part(
    configuration: Path, specimens: Path, part: str, folder: Path, device: str, threads: int
) -> Path:
    """Train on all cases or on those outside a fold; leaves `weights.pt` in `folder`.

    Parameters
    ----------
    specimens
        Folder of the labelled CT, for the models of CT.
    part
        Number of a fold, or ``all``.

    Raises
    ------
    HydropsError
        If the cases cannot be trained on.
    """
    options = load_options(configuration)
    if isinstance(options, LesionOptions):
        chosen, _ = split_cases(options.cases(), options.folds, options.seed, part)
        return train_lesion(options, chosen, folder, device, threads)
    chosen = cases_of_part(specimens, options.folds, options.seed, part)
    return train_ct(options, chosen, folder, device, threads)
