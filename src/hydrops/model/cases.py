"""Labelled images to train on: read with care, refused before training starts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from nibabel.affines import apply_affine

from hydrops.errors import HydropsError
from hydrops.labels import LANDMARKS
from hydrops.model.labelled import read_image_of, read_label
from hydrops.model.simulate import SPECIMEN_LANDMARKS, load_specimens, read_landmark_table
from hydrops.model.taught import digest_of

Affine = npt.NDArray[np.float64]
FloatGrid = npt.NDArray[np.float32]


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
        If a file is missing, a label is not one (not 0 and 1, empty, or its own image), image and
        label differ in grid, a landmark is missing or lies outside the image, or two names hold one
        image. See also `read_persons`.
    """
    persons = read_persons(folder, names)
    cases: list[Case] = []
    for specimen in load_specimens(folder, names):
        path = folder / specimen.name / f"{specimen.name}_ct.nii.gz"
        data = read_image_of(path, specimen.lumen, specimen.affine)
        wanted = [key for key, name in SPECIMEN_LANDMARKS.items() if name in LANDMARKS]
        missing = [k for k in wanted if SPECIMEN_LANDMARKS[k] not in specimen.landmarks]
        if missing:
            raise HydropsError(
                f"{folder / 'landmarks.tsv'}: {specimen.name} lacks {', '.join(missing)}"
            )
        points = np.array([specimen.landmarks[name] for name in LANDMARKS])
        voxels = apply_affine(np.linalg.inv(specimen.affine), points)
        if (voxels < -0.5).any() or (voxels > np.array(data.shape) - 0.5).any():
            raise HydropsError(
                f"{folder / 'landmarks.tsv'}: a landmark of {specimen.name} lies outside its image"
            )
        case = Case(
            specimen.name,
            specimen.side,
            data,
            specimen.lumen,
            specimen.affine,
            points,
            persons.get(specimen.name, ""),
        )
        _refuse_twin(folder, case, cases)
        cases.append(case)
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


def _refuse_twin(folder: Path, case: Case, others: Sequence[Case]) -> None:
    """Refuse an image that is there under another name: it could be in both parts of a fold."""
    for other in others:
        if np.array_equal(other.image, case.image):
            raise HydropsError(
                f"{folder}: {other.name} and {case.name} are one image, so it would be trained on "
                "and tested; keep one"
            )


def load_pairs(folder: Path) -> list[Case]:
    """Read every ``NAME_image.nii.gz`` of a folder with its ``NAME_label.nii.gz``.

    Raises
    ------
    HydropsError
        If there is none, a partner is missing, image or label cannot be used (see
        `hydrops.model.labelled`), or two names hold one image. See also `read_persons`.
    """
    ends = {kind: f"_{kind}.nii.gz" for kind in ("image", "label")}
    names = {
        path.name.removesuffix(end) for end in ends.values() for path in folder.glob(f"*{end}")
    }
    if not names:
        raise HydropsError(f"{folder}: holds no pairs NAME_image.nii.gz and NAME_label.nii.gz")
    persons = read_persons(folder, names)
    cases: list[Case] = []
    for name in sorted(names):
        label, affine = read_label(folder / f"{name}{ends['label']}")
        image = read_image_of(folder / f"{name}{ends['image']}", label, affine)
        case = Case(name, "", image, label, affine, np.zeros((0, 3)), persons.get(name, ""))
        _refuse_twin(folder, case, cases)
        cases.append(case)
    return cases


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
        If the folder or its table is missing.
    """
    return sorted(read_landmark_table(folder)["specimen"].unique().tolist())


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
