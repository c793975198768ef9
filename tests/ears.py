"""A made-up ear and a made-up cohort for the tests of pictures and report."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hydrops.arrays import Affine
from hydrops.images import crop_affine, cube_affine, save_image
from hydrops.labels import LABYRINTH, LANDMARKS, ORGANS
from hydrops.model.geometry import CROP_SHAPE
from hydrops.paths import Paths, Unit
from hydrops.records import Record, write_record
from hydrops.statistics import cohort_statistics

MODEL = "net-1.0.0"
UNIT = Unit("01", "1")
#: Voxels of the fine grid at the landmarks of `made_up_fractions`.
LANDMARK_VOXELS = np.array([[24.0, 40.0, 30.0], [38.0, 30.0, 32.0], [30.0, 30.0, 26.0]])


def on_crop(volume: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """A volume (..., 64, 64, 64) of the fine grid on the crop grid."""
    pairs = volume.reshape(*volume.shape[:-1], 32, 2)
    return np.asarray(pairs.mean(-1), np.float32)


def fine_affine(centre: tuple[float, float, float]) -> Affine:
    """The fine grid around a point."""
    return cube_affine(crop_affine(centre))


def made_up_fractions() -> npt.NDArray[np.float32]:
    """A ball for a cochlea, one for a vestibule with endolymph inside, a ring for the canals.

    On the fine grid, in cubes of 0.5 mm.
    """
    x, y, z = np.meshgrid(*[np.arange(64.0)] * 3, indexing="ij")

    def ball(cx: float, cy: float, cz: float, radius: float) -> npt.NDArray[np.bool_]:
        return (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius**2

    ring = (np.hypot(x - 40, y - 22) - 7) ** 2 + (z - 34) ** 2 < 2.0**2
    labels = np.zeros((64, 64, 64), int)
    labels[ring] = 5
    labels[ball(32, 30, 32, 5)] = 3
    labels[ball(33, 30, 32, 3)] = 4
    labels[ball(26, 40, 29, 5)] = 1
    labels[ball(26, 40, 29, 2)] = 2
    return np.stack([(labels == code).astype(np.float32) for code in range(7)])


def write_ear(paths: Paths, side: str, with_mi2: bool = True) -> None:
    """Leave one ear of `UNIT` as locate, segment, ingest and measure would."""
    fractions = on_crop(made_up_fractions())
    centre = (38.0 if side == "right" else -38.0, -10.0, 5.0)
    affine = crop_affine(centre)
    rng = np.random.default_rng(1)
    mrc = 1000 * fractions[1:].sum(0) + rng.normal(30, 5, CROP_SHAPE)
    perilymph, endolymph = fractions[1::2].sum(0), fractions[2::2].sum(0)
    save_image(paths.crop(UNIT, side, "MRC"), mrc.astype(np.float32), affine)
    if with_mi2:
        mi2 = 1e5 * (perilymph - endolymph) + rng.normal(0, 2e3, CROP_SHAPE)
        save_image(paths.crop(UNIT, side, "HYDROPSMi2"), mi2.astype(np.float32), affine)
    scaled = np.round(np.moveaxis(fractions, 0, -1) * 255).astype(np.uint8)
    save_image(paths.segmentation(UNIT, side, "probseg", MODEL), scaled, affine, slope=1 / 255)
    points = np.column_stack([LANDMARK_VOXELS, np.ones(3)]) @ fine_affine(centre).T
    marks = {n: {"ras_mm": list(p[:3]), "confidence": 0.9} for n, p in zip(LANDMARKS, points)}
    paths.landmarks(UNIT, side, MODEL).write_text(json.dumps(marks), encoding="utf-8")
    acquired = np.diag([0.5, 0.5, 1.0, 1.0])
    acquired[:3, 3] = [-60.0, -60.0, -40.0]
    save_image(paths.image(UNIT, "MRC"), np.zeros((2, 2, 2), np.uint8), acquired)


def write_session(paths: Paths, sides: tuple[str, ...], with_mi2: bool = True) -> None:
    """Leave `UNIT` with some of its ears, and its records."""
    for side in sides:
        write_ear(paths, side, with_mi2)
    rows = [
        {
            "participant_id": UNIT.participant, "session_id": UNIT.session, "side": side,
            "organ": organ, "eh_volume_ratio": 0.25 if with_mi2 else None, "ci_low": None,
            "ci_high": None, "eh_area_ratio": None,
            "representative_slice": 44 if organ in ORGANS[:2] else None,
        }
        for side in sides for organ in (*ORGANS, LABYRINTH)
    ]  # fmt: skip
    path = paths.measures(UNIT, MODEL)
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False, na_rep="n/a")
    numbers = {
        side: {"uncertainty": 0.04, "endolymph": with_mi2, "half_width": None} for side in sides
    }
    record = Record("segment", UNIT.participant, UNIT.session, "done", numbers=numbers)
    write_record(paths.record("segment", UNIT, MODEL), record)


def made_up_cohort(count: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Participants of two groups, and the table of their ears."""
    rng = np.random.default_rng(seed)
    people, ears = [], []
    for number in range(count):
        identifier = f"{number + 1:02d}"
        ill = number % 2 == 0
        people.append(
            {
                "participant_id": identifier, "session_id": "1", "source": "here",
                "group": "meniere" if ill else "control", "age": 40.0 + number,
                "affected_side": "left" if ill else "none",
                "pta_left": 50.0 + number if ill else 10.0 + number, "pta_right": 15.0 + number,
            }
        )  # fmt: skip
        for side in ("left", "right"):
            level = 0.45 if ill and side == "left" else 0.2
            for organ in (*ORGANS, LABYRINTH):
                ratio = level + rng.normal(0, 0.02)
                graded = organ in ORGANS[:2]
                ears.append(
                    {
                        "participant_id": identifier, "session_id": "1", "side": side,
                        "organ": organ, "tfs_mm3": 200.0, "els_mm3": 200.0 * ratio,
                        "eh_volume_ratio": round(ratio, 4),
                        "ci_low": round(ratio - 0.04, 4) if organ == LABYRINTH else None,
                        "ci_high": round(ratio + 0.04, 4) if organ == LABYRINTH else None,
                        "eh_area_ratio": round(ratio, 4) if graded else None,
                        "representative_slice": 44.0 if graded else None,
                        "grade": "mild" if graded else None, "model": MODEL,
                    }
                )  # fmt: skip
    return pd.DataFrame(people), pd.DataFrame(ears)


def a_reader(ears: pd.DataFrame, error: float) -> pd.DataFrame:
    """A reader who errs by `error` (standard deviation) at every ear."""
    noise = np.random.default_rng(5).normal(0, error, len(ears)) if error else 0.0
    table = ears[["participant_id", "session_id", "side", "organ"]].copy()
    return table.assign(reader="A", eh_volume_ratio=ears["eh_volume_ratio"] + noise)


@cache
def made_up_statistics(count: int, measured: int | None = None) -> pd.DataFrame:
    """Statistics of a made-up cohort, against a reader, of its first `measured` participants."""
    people, ears = made_up_cohort(count)
    ears = ears[ears["participant_id"].isin(people["participant_id"].head(measured or count))]
    return cohort_statistics(ears, people, a_reader(ears, 0.02))


def empty_like(table: pd.DataFrame) -> pd.DataFrame:
    """The same columns without a row."""
    return table.iloc[:0]


def paths_in(folder: Path) -> Paths:
    """Results below a folder of a test."""
    return Paths(folder / "results")
