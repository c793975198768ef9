"""Which models a study's `snakemake train`, `package` and `evaluate` are about."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydrops.errors import HydropsError
from hydrops.validate import load_yaml, read_yaml

#: Schema of a training's file.
SCHEMA = "training"
#: Kinds of models that are trained on labelled CT, fold by fold.
CT_KINDS = ("joint", "cascade")
#: Kinds that are cross-validated on labelled images.
FOLD_KINDS = (*CT_KINDS, "lesion")
#: Kind of the models of MR, and all kinds that there are.
MR_KIND = "paired"
KINDS = (MR_KIND, *FOLD_KINDS)


@dataclass(frozen=True)
class Training:
    """A model's configuration file, its name and its kind; nothing here imports torch.

    Parameters
    ----------
    options
        What the file says, as JSON: a string that Snakemake can compare.
    data
        Folder that it names for its images, or None.
    """

    name: str
    version: str
    path: Path
    kind: str
    folds: int
    options: str
    data: Path | None

    @property
    def notes(self) -> Path:
        """File of what a person adds to the card of this version, if there is one."""
        return self.path.with_name(f"{self.name}-{self.version}.md")

    @property
    def on_ct(self) -> bool:
        """Whether it is trained on labelled CT."""
        return self.kind in CT_KINDS

    @property
    def ablation(self) -> Path:
        """File that says what its ablation changes, if there is one."""
        return self.path.parent.parent / "ablation" / f"{self.name}.yaml"

    def images(self, specimens: Path | None) -> Path | None:
        """Folder of what it learns from, if any; `specimens` is that of real labyrinths.

        Raises
        ------
        HydropsError
            If a model that is cross-validated on what lies there has no such folder.
        """
        folder = self.data if self.kind == "lesion" else specimens
        setting = f"data in {self.path}" if self.kind == "lesion" else "training: specimens"
        if self.on_ct and folder is None:
            raise HydropsError(f"{self.path}: learns from labelled CT; name them in {setting}")
        if self.in_folds and folder is not None and not folder.is_dir():
            without = "" if self.on_ct else ", or null to draw lesions"
            raise HydropsError(
                f"{folder}: there is no such folder to learn from; name it in {setting}{without}"
            )
        return folder

    @property
    def in_folds(self) -> bool:
        """Whether it is cross-validated on labelled images."""
        return self.kind in FOLD_KINDS


def find_trainings(config: Mapping[str, Any]) -> list[Training]:
    """The models that ``--config model=NAME`` names, else the one of ``training: model``.

    ``--config 'model=[NAME, NAME]'`` names several of CT, which are compared on the same folds.

    Raises
    ------
    HydropsError
        If one has no configuration (the message lists those that there are) or one that is not as
        it must be (``training.schema.yaml``, its name its file's), is named twice, is none of CT
        among several, or would learn from a specimen that it is to be evaluated on.
    """
    named = config.get("model") or config["training"]["model"]
    names = [named] if isinstance(named, str) else list(named)
    if len(set(names)) != len(names):
        raise HydropsError(f"--config model: {', '.join(names)}: a model is named twice")
    folder = Path(config["training"]["configurations"])
    trainings = [_find_training(folder, name) for name in names]
    for training in trainings:
        if not training.in_folds:
            _refuse_tested(training.path, config["training"].get("test_specimens", []))
    others = [training.name for training in trainings if not training.on_ct]
    if len(trainings) > 1 and others:
        raise HydropsError(
            f"--config model: {', '.join(others)}: only models of CT are named together; name one "
            "at a time, and compare models of MR by --config 'models=[NAME, NAME]'"
        )
    return trainings


def _refuse_tested(path: Path, test_specimens: Collection[str]) -> None:
    """Refuse a training on specimens that `snakemake evaluate` keeps out, before it starts."""
    values = read_yaml(path)
    keys = ("train_specimens", "validation_specimens")
    learned = [name for key in keys for name in values.get(key) or []]
    both = sorted(set(learned) & set(test_specimens))
    if both:
        raise HydropsError(
            f"{path}: would learn from {', '.join(both)}, which training: test_specimens keeps for "
            "the evaluation; name others in one of the two"
        )


def _find_training(folder: Path, name: str) -> Training:
    path = folder / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise HydropsError(f"{path}: no model of that name is configured; there are: {there}")
    values = load_yaml(path, SCHEMA)
    if values["name"] != name:
        raise HydropsError(
            f"{path}: name: {values['name']}, but the file is {path.name}: it would make another "
            f"model's bundle; name it {name}, or the file {values['name']}.yaml"
        )
    data = values.get("data")
    return Training(
        name,
        values["version"],
        path,
        _kind_in(values),
        values.get("folds", 0),
        json.dumps(values, sort_keys=True),
        None if data is None else Path(data),
    )


def read_kind(path: Path) -> str:
    """Kind of the model that a configuration file is of."""
    return _kind_in(read_yaml(path))


def _kind_in(values: Mapping[str, Any]) -> str:
    return str(values.get("kind", MR_KIND))
