"""Labelled images to train on: read with care, refused before training starts."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hydrops.arrays import Affine, FloatGrid
from hydrops.errors import HydropsError
from hydrops.labels import LANDMARKS
from hydrops.model.labelled import read_image_of, read_label
from hydrops.model.landmark_table import LANDMARK_TABLE, read_landmark_table
from hydrops.model.simulate import load_specimens
from hydrops.model.taught import digest_of
from hydrops.model.twins import refuse_twins


@dataclass(frozen=True)
class Case:
    """One labelled image.

    `side` is empty, and there are no landmarks, where the label is not of an ear.

    Parameters
    ----------
    image
        (x, y, z), any unit.
    label
        (x, y, z), the labyrinth, or whatever is to be found.
    affine
        Voxel to RAS mm, of both.
    landmarks
        (3, 3) RAS mm in the order of `hydrops.labels.LANDMARKS`, or (0, 3).
    person
        Whose it is, where more than one case is of one person; else empty.
    """

    name: str
    side: str
    image: FloatGrid
    label: npt.NDArray[np.bool_]
    affine: Affine
    landmarks: npt.NDArray[np.float64]
    person: str = ""

    @property
    def owner(self) -> str:
        """The person, or the case itself where it is the only one of a person."""
        return self.person or self.name

    @property
    def digest(self) -> str:
        """Of all that is learned from it."""
        return digest_of(self.image, self.label, self.affine, self.landmarks)


def load_cases(folder: Path, names: Sequence[str]) -> list[Case]:
    """Read CT specimens with their labels and landmarks.

    ``<name>/<name>_ct.nii.gz``, ``<name>/<name>_label.nii.gz`` and ``landmarks.tsv``, as in the
    bony-labyrinth dataset (Wimmer et al., Data in Brief 2019;27:104782).

    Raises
    ------
    HydropsError
        If a file is missing, a label is not one (not 0 and 1, empty, its own image, or no size of a
        labyrinth), image and label differ in grid, a landmark is missing or lies outside the image,
        or two names hold one specimen (see `hydrops.model.twins`). See also `read_persons`.
    """
    persons = read_persons(folder, names)
    cases: list[Case] = []
    for specimen in load_specimens(folder, names, LANDMARKS):
        path = folder / specimen.name / f"{specimen.name}_ct.nii.gz"
        data = read_image_of(path, specimen.lumen, specimen.affine)
        case = Case(
            specimen.name,
            specimen.side,
            data,
            specimen.lumen,
            specimen.affine,
            np.array([specimen.landmarks[name] for name in LANDMARKS]),
            persons.get(specimen.name, ""),
        )
        cases.append(case)
    refuse_twins(folder, cases)
    return cases


def read_persons(folder: Path, names: Collection[str]) -> dict[str, str]:
    """Whose each case of a data set is, by the ``persons.tsv`` (name, person) in its folder.

    Empty where there is no such file: each case then is a person's only one.

    Raises
    ------
    HydropsError
        If it is no such table, or tells whose one of the names is not at all or more than once.
    """
    path = folder / "persons.tsv"
    if not path.is_file():
        return {}
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        persons = dict(zip(table["name"], table["person"], strict=True))
    except (ValueError, KeyError) as error:
        raise HydropsError(f"{path}: needs the columns name and person ({error})") from error
    twice = sorted(set(table["name"][table["name"].duplicated()]))
    if twice:
        raise HydropsError(f"{path}: says more than once whose these are: {', '.join(twice)}")
    unknown = sorted(name for name in names if not persons.get(name))
    if unknown:
        raise HydropsError(f"{path}: does not say whose these are: {', '.join(unknown)}")
    return persons


#: How a file of a pair is called: what of, image or label, and compressed or not.
_PAIRED = re.compile(r"(.+)_(image|label)\.nii(?:\.gz)?")


def load_pairs(folder: Path) -> list[Case]:
    """Read every ``NAME_image.nii.gz`` of a folder with its ``NAME_label.nii.gz``.

    Either may be uncompressed, ``.nii``.

    Raises
    ------
    HydropsError
        If there is none, a partner is missing or there twice, image or label cannot be used (see
        `hydrops.model.labelled`), or two names hold one case (see `hydrops.model.twins`). See also
        `read_persons`.
    """
    pairs = _find_pairs(folder)
    if not pairs:
        raise HydropsError(f"{folder}: holds no pairs NAME_image.nii.gz and NAME_label.nii.gz")
    persons = read_persons(folder, pairs)
    cases: list[Case] = []
    for name, pair in sorted(pairs.items()):
        label, affine = read_label(pair.get("label", folder / f"{name}_label.nii.gz"))
        image = read_image_of(pair.get("image", folder / f"{name}_image.nii.gz"), label, affine)
        cases.append(Case(name, "", image, label, affine, np.zeros((0, 3)), persons.get(name, "")))
    refuse_twins(folder, cases)
    return cases


def _find_pairs(folder: Path) -> dict[str, dict[str, Path]]:
    """Files of each name of a folder, by what they are: image or label."""
    pairs: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*")):
        called = _PAIRED.fullmatch(path.name)
        if not called:
            continue
        name, kind = called.groups()
        pair = pairs.setdefault(name, {})
        if kind in pair:
            raise HydropsError(f"{path}: is there as {pair[kind].name} too; keep one of them")
        pair[kind] = path
    return pairs


def split_cases(
    cases: Sequence[Case], count: int, seed: int, part: str
) -> tuple[list[Case], list[Case]]:
    """Cases to train on and to test on: of a fold by its number, or all and none for ``all``.

    All cases of a person are in the same part.

    Raises
    ------
    HydropsError
        If a name is there twice, there is no such fold, or see `draw_folds`.
    """
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise HydropsError(f"named twice, so in both parts: {', '.join(twice)}")
    folds = draw_folds(list(dict.fromkeys(case.owner for case in cases)), count, seed)
    if part != "all" and not 0 <= int(part) < count:
        raise HydropsError(f"there is no fold {part}; they are 0 to {count - 1}")
    tested = () if part == "all" else folds[int(part)]
    return (
        [case for case in cases if case.owner not in tested],
        [case for case in cases if case.owner in tested],
    )


def set_aside(cases: Sequence[Case], persons: int, seed: int) -> tuple[list[Case], list[Case]]:
    """Cases to learn from, and those of so many persons, by lot, that watch the training.

    Raises
    ------
    HydropsError
        If there are not more persons than that, or it is less than none.
    """
    owners = list(dict.fromkeys(case.owner for case in cases))
    if not 0 <= persons < len(owners):
        raise HydropsError(
            f"validation: {persons} of {len(owners)} cannot be set aside; some are to learn from"
        )
    order = np.random.default_rng([seed, 23]).permutation(len(owners))
    aside = {owners[place] for place in order[:persons]}
    return (
        [case for case in cases if case.owner not in aside],
        [case for case in cases if case.owner in aside],
    )


def specimens_in(folder: Path) -> list[str]:
    """Names of all specimens of a folder, from its table of landmarks.

    Raises
    ------
    HydropsError
        If the folder or its table is missing, or the table lacks a specimen that lies in the
        folder, image and label.
    """
    names = set(read_landmark_table(folder)["specimen"])
    untold = sorted(p.name for p in folder.iterdir() if p.name not in names and _is_specimen(p))
    if untold:
        raise HydropsError(
            f"{folder / LANDMARK_TABLE}: has no rows for {', '.join(untold)}; add their landmarks, "
            "or move their folders away"
        )
    return sorted(names)


def _is_specimen(folder: Path) -> bool:
    """Whether it holds the image and the label of a specimen called like it."""
    if not folder.is_dir():
        return False
    held = {path.name.split(".nii")[0] for path in folder.iterdir()}
    return held >= {f"{folder.name}_ct", f"{folder.name}_label"}


def draw_folds(names: Sequence[str], count: int, seed: int) -> list[tuple[str, ...]]:
    """Deal persons or specimens into `count` test sets, by lot; each is in exactly one.

    Raises
    ------
    HydropsError
        If there are fewer of them than folds, or fewer than two folds.
    """
    if count < 2 or len(names) < count:
        raise HydropsError(f"{len(names)} persons or specimens cannot be dealt into {count} folds")
    order = np.random.default_rng(seed).permutation(len(names))
    return [tuple(sorted(names[i] for i in order[fold::count])) for fold in range(count)]


def cases_of_part(folder: Path, count: int, seed: int, part: str) -> list[Case]:
    """Cases to train on: of a fold, by its number, those outside its test set; else ``all``.

    Those of the test set are read as well: what cannot be tested is not trained for.

    Raises
    ------
    HydropsError
        See `load_cases` and `split_cases`.
    """
    taught, _ = split_cases(load_cases(folder, specimens_in(folder)), count, seed, part)
    return taught
