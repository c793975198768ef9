"""Cohorts of phantoms: who takes part, their DICOM, and the truth beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hydrops.files import placed_folder
from hydrops.images import save_image
from hydrops.labels import LABYRINTH, LANDMARKS, ORGANS, SIDES
from hydrops.phantom.anatomy import Ear, draw_ear, draw_hydrops
from hydrops.phantom.dicom import Series, Study, write_series
from hydrops.phantom.head import (
    MATRIX,
    NOISE,
    VOXEL_MM,
    Head,
    draw_head,
    render,
    scanner_affine,
    truth_fractions,
)
from hydrops.phantom.motion import draw_motion
from hydrops.phantom.signal import MRC, PEI, PERILYMPH_MMOL, PPI, USUAL_FLUIDS, Fluids
from hydrops.phantom.signal import Sequence as MRSequence
from hydrops.phantom.specs import ParticipantSpec

T1 = MRSequence("MRC", tr_ms=600.0, te_ms=12.0)
#: Stored value of a signal of water's proton density; the pair's scale differs from the MRC's.
SCALE = {"MRC": 5000.0, "PPI": 10000.0, "PEI": 10000.0}


def participants_table(specs: Sequence[ParticipantSpec], dicom_root: Path) -> pd.DataFrame:
    """The participants.tsv of a cohort of phantoms."""
    return pd.DataFrame(
        [
            {
                "participant_id": spec.participant_id,
                "session_id": "1",
                "source": str(dicom_root / f"sub-{spec.participant_id}"),
                "group": spec.group,
                "age": spec.age,
                "sex": spec.sex,
                "affected_side": spec.affected_side,
                "pta_left": spec.pta[0],
                "pta_right": spec.pta[1],
            }
            for spec in specs
        ]
    )


@dataclass(frozen=True)
class Examination:
    """A head, its images before they are stored, and how it moved.

    Parameters
    ----------
    images
        Role to image, axes of `affine`, water's proton density being 1.
    motions
        Role to 4 x 4 RAS motion since the MRC, about the head's centre.
    sequences
        Role to timing.
    """

    head: Head
    affine: np.ndarray[Any, np.dtype[np.float64]]
    images: dict[str, np.ndarray[Any, np.dtype[np.float32]]]
    motions: dict[str, np.ndarray[Any, np.dtype[np.float64]]]
    sequences: dict[str, MRSequence]


def examine(
    rng: np.random.Generator,
    left: Ear | None,
    right: Ear | None,
    offset_mm: Sequence[float] | None = None,
    moved: bool = True,
    noise: float = 1.0,
    sequences: Sequence[MRSequence] = (MRC, PPI, PEI),
    fluids: Fluids = USUAL_FLUIDS,
    voxel_mm: Sequence[float] = VOXEL_MM,
) -> Examination:
    """Scan a head: MRC, PPI and PEI with the motion of real patients between them.

    Parameters
    ----------
    offset_mm
        Of the head from the middle of the field, by lot if None.
    moved
        Whether it moves between the images.
    noise
        Times that of `hydrops.phantom.head.NOISE`.
    sequences
        MRC, PPI and PEI, with other timings than the published ones if need be.
    fluids
        What the head is filled with, which nobody is told.
    voxel_mm
        Of the same field of view, with as much noise in each voxel whatever its size.
    """
    tilt = rng.normal(0.0, 4.0, 3)
    offset = rng.normal(0.0, 4.0, 3) if offset_mm is None else np.asarray(offset_mm)
    head = draw_head(rng, left, right, list(tilt), list(offset))
    more = fluids.perilymph_mmol / PERILYMPH_MMOL
    doses = {side: more * mmol for side, mmol in head.gadolinium_mmol.items()}
    head = replace(head, gadolinium_mmol=doses, uptake=fluids.uptake)
    tissues = fluids.tissues()
    matrix = tuple(round(n * own / mm) for n, own, mm in zip(MATRIX, VOXEL_MM, voxel_mm))
    affine = scanner_affine(matrix, voxel_mm, (0.0, 0.0, 8.0), float(rng.normal(0.0, 3.0)))
    first = draw_motion(rng) if moved else np.eye(4)
    second = draw_motion(rng) @ first if moved else np.eye(4)
    motions = {"MRC": np.eye(4), "PPI": first, "PEI": second}
    images = {
        sequence.name: render(
            head,
            sequence,
            matrix,
            affine,
            rng,
            motions[sequence.name],
            noise * NOISE[sequence.name],
            tissues,
        )
        for sequence in sequences
    }
    return Examination(head, affine, images, motions, {s.name: s for s in sequences})


def write_participant(spec: ParticipantSpec, dicom_dir: Path, truth_dir: Path) -> None:
    """Write a participant's DICOM and, beside it, the truth; both whole or not at all."""
    rng = np.random.default_rng(spec.seed)
    ears = {
        side: draw_ear(rng, side, draw_hydrops(rng, severity))
        for side, severity in zip(SIDES, spec.severity)
    }
    one_ear = spec.fault == "one_ear"
    # A head far off centre: its right ear lies beyond the edge of the field of view.
    offset = (62.0, 0.0, 0.0) if one_ear else None
    examination = examine(rng, ears["left"], ears["right"], offset)
    with placed_folder(dicom_dir) as folder:
        _write_dicom(folder, spec, examination, rng)
    with placed_folder(truth_dir) as folder:
        _write_truth(folder, examination)


def _write_dicom(
    folder: Path, spec: ParticipantSpec, examination: Examination, rng: np.random.Generator
) -> None:
    study = Study(spec.seed, f"Phantom^{spec.participant_id}", f"PH{spec.seed}")
    wrong = MRSequence("PEI", PEI.tr_ms, PEI.te_ms, 1500.0)
    roles = {
        "MRC": (4, "t2_space_mrc", MRC),
        "PPI": (5, "space_ir_ppi", PPI),
        "PEI": (6, "space_ir_pei", wrong if spec.fault == "wrong_inversion_time" else PEI),
    }
    for role, (number, description, sequence) in roles.items():
        if role == "PEI" and spec.fault == "no_pei":
            continue
        pixels = np.clip(examination.images[role] * SCALE[role], 0, 4095).astype(np.uint16)
        series = Series(number, description, sequence, pixels, examination.affine)
        lost = [51] if role == "PEI" and spec.fault == "missing_slice" else []
        write_series(folder, study, series, spec.enhanced and not lost, lost)
    for number, description, shape, voxel, acquisition in (
        (1, "scout", (64, 64, 3), (4.0, 4.0, 20.0), "2D"),
        (2, "t1_axial", (96, 96, 20), (2.4, 2.4, 5.0), "2D"),
        (3, "tof", (96, 96, 24), (2.0, 2.0, 1.5), "3D"),
    ):
        affine = scanner_affine(shape, voxel)
        head = replace(examination.head, ears={})
        image = render(head, T1, shape, affine, rng, noise=0.01)
        pixels = np.clip(image * 2000.0, 0, 4095).astype(np.uint16)
        sequence = T1 if description != "tof" else MRSequence("TOF", 22.0, 4.0)
        write_series(
            folder, study, Series(number, description, sequence, pixels, affine, acquisition), False
        )


def _write_truth(folder: Path, examination: Examination) -> None:
    head, rows, points = examination.head, [], []
    for side, ear in head.ears.items():
        fractions = truth_fractions(head, side, MATRIX, examination.affine)
        labels = fractions.argmax(0).astype(np.uint8)
        save_image(folder / f"{side}_dseg.nii.gz", labels, examination.affine)
        full = np.diag([ear.spacing_mm] * 3 + [1.0])
        full[:3, 3] = head.places[side] + ear.origin_mm
        save_image(folder / f"{side}_full_dseg.nii.gz", ear.labels, head.pose @ full)
        volumes, ratios = ear.volumes_mm3(), ear.ratios()
        rows += [
            {
                "side": side,
                "organ": organ,
                "tfs_mm3": volumes[organ][0],
                "els_mm3": volumes[organ][1],
                "eh_volume_ratio": ratios[organ],
            }
            for organ in (*ORGANS, LABYRINTH)
        ]
        marks = head.landmarks(side)
        points += [
            dict(
                zip(
                    ("side", "landmark", "x_ras_mm", "y_ras_mm", "z_ras_mm"),
                    (side, name, *np.round(marks[name], 4)),
                )
            )
            for name in LANDMARKS
        ]
    pd.DataFrame(rows).to_csv(folder / "ears.tsv", sep="\t", index=False, float_format="%.5f")
    pd.DataFrame(points).to_csv(folder / "landmarks.tsv", sep="\t", index=False)
    motions: Mapping[str, Any] = {k: m.tolist() for k, m in examination.motions.items()}
    (folder / "motions.json").write_text(json.dumps(motions, indent=1) + "\n", encoding="utf-8")


def simulate_reader(truths: Sequence[Path]) -> pd.DataFrame:
    """A simulated reader's table: the truth with the scatter of a person who reads by hand.

    Parameters
    ----------
    truths
        Truth folders of the participants, ``sub-<participant>``.
    """
    rng = np.random.default_rng(1)
    tables = []
    for folder in truths:
        truth = pd.read_csv(folder / "ears.tsv", sep="\t")
        truth = truth[["side", "organ", "eh_volume_ratio"]]
        scatter = rng.normal(0.0, 0.02, len(truth))
        truth["eh_volume_ratio"] = (truth["eh_volume_ratio"] + scatter).clip(0, 1).round(4)
        truth.insert(0, "participant_id", folder.name.removeprefix("sub-"))
        truth.insert(1, "session_id", "1")
        truth["reader"] = "simulated"
        tables.append(truth)
    return pd.concat(tables, ignore_index=True)
