"""Bodies of the stages without their work, for scale.py: the right files and records, no science.

scale.py puts this file in the place of each stage's module in a copy of the library, so that the
rules, the scripts, the records, the chunks and the aggregation around it are the real ones. What
a session is given follows from its name alone.
"""

# Arguments are those of the real bodies, used or not.
# ruff: noqa: ARG001
from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydrops.errors import ExcludedError
from hydrops.labels import LABYRINTH, LANDMARKS, ORGANS, SIDES
from hydrops.paths import Paths, Unit
from hydrops.records import StageResult, read_record

#: Columns of both tables: scale.py writes below what the real measure stage has.
EAR_COLUMNS: tuple[str, ...] = ()
LANDMARK_COLUMNS: tuple[str, ...] = ()
#: Of a hundred sessions and of a hundred ears, how many cannot be used.
BAD_SESSIONS, BAD_EARS = 2, 3
#: The smallest PNG that a browser shows.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63f80f"
    "000101010018dd8db00000000049454e44ae426082"
)


@dataclass
class _Options:
    """Takes whatever a stage is told."""

    def __init__(self, **_: Any) -> None:
        pass


RegisterOptions = LocateOptions = MeasureOptions = _Options


def _lot(unit: Unit, *more: str) -> random.Random:
    return random.Random(" ".join((unit.name, *more)))


def ingest_session(source: Path, unit: Unit, protocol: Any, output: Path) -> StageResult:
    """Images of three roles with their sidecars, or a reason."""
    if _lot(unit).randrange(100) < BAD_SESSIONS:
        raise ExcludedError("series 6: slice 51 is missing")
    paths = Paths(Path())
    for role in ("MRC", "PPI", "PEI"):
        image = output / "anat" / paths.image(unit, role).name
        image.parent.mkdir(exist_ok=True)
        image.write_text(source.name)
        image.with_name(image.name.replace(".nii.gz", ".json")).write_text("{}")
    return StageResult({"field_t": 3.0, "roles": {role: {} for role in protocol.roles}})


def register_session(unit: Unit, paths: Paths, options: Any, output: Path) -> StageResult:
    """Transforms and both products, and how far the head moved."""
    lot = _lot(unit, "register")
    for role in ("PPI", "PEI"):
        (output / paths.transform(unit, role).name).write_text("")
    for kind in ("HYDROPS", "HYDROPSMi2"):
        (output / paths.registered(unit, kind).name).write_text("")
    moved = {
        role: {"rotation_deg": lot.expovariate(4.0), "translation_mm": lot.expovariate(4.0)}
        for role in ("PPI", "PEI")
    }
    return StageResult({"roles": moved})


def locate_session(unit: Unit, paths: Paths, options: Any, output: Path) -> StageResult:
    """Crops of the ears that can be used."""
    out = {s for s in SIDES if _lot(unit, s).randrange(100) < BAD_EARS}
    if out == set(SIDES):
        raise ExcludedError("no inner ear can be recognised in the MRC")
    for side in set(SIDES) - out:
        for kind in ("MRC", "HYDROPSMi2"):
            (output / paths.crop(unit, side, kind).name).write_text(side)
    return StageResult(excluded_sides={s: f"the {s} inner ear is cut off" for s in out})


def _sides(record: Path) -> list[str]:
    return [side for side in SIDES if side not in read_record(record).excluded_sides]


def segment_session(segmenter: None, unit: Unit, paths: Paths, output: Path) -> StageResult:
    """Fractions, labels and landmarks of each ear."""
    sides = _sides(paths.record("locate", unit))
    for side in sides:
        for kind in ("probseg", "dseg"):
            (output / paths.segmentation(unit, side, kind, "m").name).write_text(side)
        (output / paths.landmarks(unit, side, "m").name).write_text("{}")
    return StageResult({s: {"uncertainty": _lot(unit, s).gauss(0.2, 0.03)} for s in sides})


def measure_session(
    unit: Unit, paths: Paths, model: str, options: Any, output: Path
) -> StageResult:
    """Rows of both tables, from distributions that look like ears."""
    ears, marks = [EAR_COLUMNS], [LANDMARK_COLUMNS]
    for side in _sides(paths.record("segment", unit, model)):
        lot = _lot(unit, side, "measure")
        for organ in (*ORGANS, LABYRINTH):
            tfs, ratio = lot.gauss(200.0, 20.0), lot.betavariate(2.0, 6.0)
            slice_number, grade = lot.randrange(104), lot.choice(("none", "mild", "significant"))
            ears.append(
                (unit.participant, unit.session, side, organ, f"{tfs:.2f}", f"{tfs * ratio:.2f}",
                 f"{ratio:.4f}", f"{ratio - 0.05:.4f}", f"{ratio + 0.05:.4f}", f"{ratio:.4f}",
                 f"{ratio:.4f}", str(slice_number), grade, model)
            )  # fmt: skip
        for landmark in LANDMARKS:
            place = [f"{lot.gauss(0.0, 40.0):.3f}" for _ in range(3)]
            marks.append((unit.participant, unit.session, side, landmark, *place, "0.9", model))
    _write(output / paths.measures(unit, model).name, ears)
    _write(output / paths.measured_landmarks(unit, model).name, marks)
    return StageResult()


def _write(path: Path, rows: list[tuple[str, ...]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def draw_session(unit: Unit, paths: Paths, model: str, output: Path) -> StageResult:
    """A picture of one pixel for each ear."""
    for side in _sides(paths.record("measure", unit, model)):
        (output / paths.overlay(unit, side, model).name).write_bytes(PNG)
    return StageResult()
