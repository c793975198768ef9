"""Labelled images to train on: read with care, refused before training starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd

from hydrops.errors import HydropsError
from hydrops.labels import LANDMARKS
from hydrops.model.simulate import SPECIMEN_LANDMARKS, load_specimens

Affine = npt.NDArray[np.float64]
FloatGrid = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """One labelled image.

    Parameters
    ----------
    image
        (x, y, z), any unit.
    label
        (x, y, z), the labyrinth.
    affine
        Voxel to RAS mm, of both.
    landmarks
        (3, 3) RAS mm in the order of `hydrops.labels.LANDMARKS`.
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
        if not path.is_file():
            raise HydropsError(f"{path}: the image of specimen {specimen.name} is missing")
        image = nib.load(path)
        if image.shape != specimen.lumen.shape or not np.allclose(
            image.affine, specimen.affine, atol=1e-3
        ):
            raise HydropsError(
                f"{path}: image and label differ in grid ({image.shape} and "
                f"{specimen.lumen.shape} voxels); resample one onto the other"
            )
        data = np.asarray(image.dataobj, np.float32)
        if len(np.unique(data)) < 10:
            raise HydropsError(f"{path}: has no grey levels; is this the label?")
        wanted = [key for key, name in SPECIMEN_LANDMARKS.items() if name in LANDMARKS]
        missing = [k for k in wanted if SPECIMEN_LANDMARKS[k] not in specimen.landmarks]
        if missing:
            raise HydropsError(
                f"{folder / 'landmarks.tsv'}: {specimen.name} lacks {', '.join(missing)}"
            )
        points = np.array([specimen.landmarks[name] for name in LANDMARKS])
        voxels = nib.affines.apply_affine(np.linalg.inv(image.affine), points)
        if (voxels < -0.5).any() or (voxels > np.array(image.shape) - 0.5).any():
            raise HydropsError(
                f"{folder / 'landmarks.tsv'}: a landmark of {specimen.name} lies outside its image"
            )
        cases.append(
            Case(specimen.name, specimen.side, data, specimen.lumen, specimen.affine, points)
        )
    return cases


def specimens_in(folder: Path) -> list[str]:
    """Names of all specimens of a folder, from its table of landmarks.

    Raises
    ------
    HydropsError
        If the folder or its table is missing.
    """
    path = folder / "landmarks.tsv"
    if not path.is_file():
        raise HydropsError(f"{path}: missing; training on labelled CT needs the specimens")
    return sorted(pd.read_csv(path, sep="\t")["specimen"].unique().tolist())


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


def cases_of_part(folder: Path, count: int, seed: int, part: str) -> list[Case]:
    """Cases to train on: of a fold, by its number, those outside its test set; else ``all``.

    Raises
    ------
    HydropsError
        See `load_cases` and `draw_folds`.
    """
    names = specimens_in(folder)
    tested = () if part == "all" else draw_folds(names, count, seed)[int(part)]
    return load_cases(folder, [name for name in names if name not in tested])
