"""Labelled images to train on: read with care, refused before training starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine

from hydrops.errors import HydropsError
from hydrops.labels import LANDMARKS
from hydrops.model.labelled import read_image_of, read_label
from hydrops.model.simulate import SPECIMEN_LANDMARKS, load_specimens, read_landmark_table

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
    """

    name: str
    side: str
    image: FloatGrid
    label: npt.NDArray[np.bool_]
    affine: Affine
    landmarks: npt.NDArray[np.float64]


def load_cases(folder: Path, names: Sequence[str]) -> list[Case]:
    """Read CT specimens with their labels and landmarks.

    ``<name>/<name>_ct.nii.gz``, ``<name>/<name>_label.nii.gz`` and ``landmarks.tsv``, as in the
    bony-labyrinth dataset (Wimmer et al., Data in Brief 2019;27:104782).

    Raises
    ------
    HydropsError
        If a file is missing, a label is not one (not 0 and 1, empty, or its own image), image and
        label differ in grid, or a landmark is missing or lies outside the image.
    """
    cases = []
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
        cases.append(
            Case(specimen.name, specimen.side, data, specimen.lumen, specimen.affine, points)
        )
    return cases


def load_pairs(folder: Path) -> list[Case]:
    """Read every ``NAME_image.nii.gz`` of a folder with its ``NAME_label.nii.gz``.

    Raises
    ------
    HydropsError
        If there is none, a partner is missing, image or label cannot be used (see
        `hydrops.model.labelled`), or two names hold one image, which would then be in both parts.
    """
    ends = {kind: f"_{kind}.nii.gz" for kind in ("image", "label")}
    names = {
        path.name.removesuffix(end) for end in ends.values() for path in folder.glob(f"*{end}")
    }
    if not names:
        raise HydropsError(f"{folder}: holds no pairs NAME_image.nii.gz and NAME_label.nii.gz")
    cases: list[Case] = []
    for name in sorted(names):
        label, affine = read_label(folder / f"{name}{ends['label']}")
        image = read_image_of(folder / f"{name}{ends['image']}", label, affine)
        for other in cases:
            if np.array_equal(other.image, image):
                raise HydropsError(
                    f"{folder}: {other.name} and {name} are one image, so it would be trained on "
                    "and tested; keep one"
                )
        cases.append(Case(name, "", image, label, affine, np.zeros((0, 3))))
    return cases


def split_cases(
    cases: Sequence[Case], count: int, seed: int, part: str
) -> tuple[list[Case], list[Case]]:
    """Cases to train on and to test on: of a fold by its number, or all and none for ``all``.

    Raises
    ------
    HydropsError
        See `draw_folds`.
    """
    tested = tested_names([case.name for case in cases], count, seed, part)
    return (
        [case for case in cases if case.name not in tested],
        [case for case in cases if case.name in tested],
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
    """Deal specimens into `count` test sets, by lot; each specimen is in exactly one.

    Raises
    ------
    HydropsError
        If a name is there twice, or there are fewer specimens than folds or fewer than two folds.
    """
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if list(names).count(name) > 1})
        raise HydropsError(f"specimens named twice, so in both parts: {', '.join(twice)}")
    if count < 2 or len(names) < count:
        raise HydropsError(f"{len(names)} specimens cannot be dealt into {count} folds")
    order = np.random.default_rng(seed).permutation(len(names))
    return [tuple(sorted(names[i] for i in order[fold::count])) for fold in range(count)]


def tested_names(names: Sequence[str], count: int, seed: int, part: str) -> tuple[str, ...]:
    """Test set of a fold by its number; none for ``all``.

    Raises
    ------
    HydropsError
        See `draw_folds`, or if there is no such fold.
    """
    folds = draw_folds(names, count, seed)
    if part == "all":
        return ()
    if not 0 <= int(part) < count:
        raise HydropsError(f"there is no fold {part}; they are 0 to {count - 1}")
    return folds[int(part)]


def cases_of_part(folder: Path, count: int, seed: int, part: str) -> list[Case]:
    """Cases to train on: of a fold, by its number, those outside its test set; else ``all``.

    Raises
    ------
    HydropsError
        See `load_cases` and `draw_folds`.
    """
    names = specimens_in(folder)
    tested = tested_names(names, count, seed, part)
    return load_cases(folder, [name for name in names if name not in tested])
