"""A phantom participant on disk: DICOM that ingests, truth that fits it, the same bytes again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest

from hydrops.ingest import ingest_session
from hydrops.labels import LABYRINTH, LANDMARKS, ORGANS, SIDES
from hydrops.model.calibrate import examine_as_people_differ
from hydrops.paths import Paths, Unit
from hydrops.phantom.anatomy import Ear, draw_ear
from hydrops.phantom.cohort import (
    examine,
    participants_table,
    simulate_reader,
    write_participant,
)
from hydrops.phantom.head import MATRIX, VOXEL_MM
from hydrops.phantom.signal import USUAL_FLUIDS
from hydrops.phantom.specs import ParticipantSpec
from hydrops.protocol import load_protocol
from places import REPOSITORY

PROTOCOL = load_protocol(REPOSITORY / "config" / "protocols" / "hydrops.yaml")
UNIT = Unit("01", "1")


def write(folder: Path) -> Path:
    spec = ParticipantSpec("01", 77, "meniere", (0.8, 0.1))
    write_participant(spec, folder / "dicom" / "sub-01", folder / "truth" / "sub-01")
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("phantom"))


def content(folder: Path) -> dict[Path, bytes]:
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_seed_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    first, again = content(written), content(write(tmp_path))
    assert len(first) > 3 * MATRIX[2]
    assert first == again


def test_the_examination_is_a_siemens_3_t_one_with_distractors(written: Path) -> None:
    headers = [
        pydicom.dcmread(next(iter(sorted(folder.iterdir()))), stop_before_pixels=True)
        for folder in sorted((written / "dicom" / "sub-01").iterdir())
    ]
    assert {h.Manufacturer.upper().split()[0] for h in headers} == {"SIEMENS"}
    assert {float(h.MagneticFieldStrength) for h in headers} == {3.0}
    assert len({h.StudyInstanceUID for h in headers}) == 1
    assert len({h.SeriesInstanceUID for h in headers}) == len(headers) == 6
    timings = {(h.RepetitionTime, h.EchoTime, h.get("InversionTime")) for h in headers}
    assert {t[2] for t in timings} >= {2250.0, 2050.0}
    assert sum(t[:2] == (9000.0, 540.0) for t in timings) >= 2


def test_what_is_ingested_lies_where_the_truth_does(written: Path, tmp_path: Path) -> None:
    ingest_session(written / "dicom" / "sub-01", UNIT, PROTOCOL, tmp_path)
    image = nib.load(tmp_path / "anat" / Paths(tmp_path).image(UNIT, "MRC").name)
    assert sorted(np.round(image.header.get_zooms(), 3)) == sorted(VOXEL_MM)
    mrc = np.asarray(image.dataobj, np.float32)
    for side in SIDES:
        truth = nib.load(written / "truth" / "sub-01" / f"{side}_dseg.nii.gz")
        to_image = np.linalg.inv(image.affine) @ truth.affine
        inside = np.argwhere(np.asarray(truth.dataobj) > 0)
        found = np.round(inside @ to_image[:3, :3].T + to_image[:3, 3]).astype(int)
        assert mrc[tuple(found.T)].mean() > 5 * np.median(mrc)


def test_truth_agrees_with_itself(written: Path) -> None:
    folder = written / "truth" / "sub-01"
    ears = pd.read_csv(folder / "ears.tsv", sep="\t").set_index(["side", "organ"])
    assert len(ears) == len(SIDES) * (len(ORGANS) + 1)
    assert np.allclose(ears.els_mm3 / ears.tfs_mm3, ears.eh_volume_ratio, atol=1e-4)
    assert ears.eh_volume_ratio["left", LABYRINTH] > ears.eh_volume_ratio["right", LABYRINTH] + 0.1
    marks = pd.read_csv(folder / "landmarks.tsv", sep="\t")
    assert sorted(marks.landmark.unique()) == sorted(LANDMARKS)
    for side in SIDES:
        scanner = nib.load(folder / f"{side}_dseg.nii.gz")
        full = nib.load(folder / f"{side}_full_dseg.nii.gz")
        for image, tolerance in ((scanner, 0.15), (full, 0.01)):
            voxel = abs(np.linalg.det(image.affine[:3, :3]))
            volume = (np.asarray(image.dataobj) > 0).sum() * voxel
            assert volume == pytest.approx(ears.tfs_mm3[side, LABYRINTH], rel=tolerance)
        centres = [
            i.affine[:3] @ [*np.argwhere(np.asarray(i.dataobj) > 0).mean(0), 1]
            for i in (scanner, full)
        ]
        # Thin canals fill less than half of a scanner's voxel and are not its majority.
        assert np.linalg.norm(centres[0] - centres[1]) < 0.5
        points = marks[marks.side == side][["x_ras_mm", "y_ras_mm", "z_ras_mm"]].to_numpy()
        assert (np.linalg.norm(points - centres[1], axis=1) < 12).all()
    motions = json.loads((folder / "motions.json").read_text())
    assert np.allclose(motions["MRC"], np.eye(4))
    assert not np.allclose(motions["PEI"], np.eye(4))


def test_a_participants_hearing_is_told_of_either_ear() -> None:
    spec = ParticipantSpec("01", 77, "meniere", (0.8, 0.1), affected_side="left", pta=(60.0, 10.0))
    (row,) = participants_table([spec], Path("dicom")).to_dict("records")
    assert (row["pta_left"], row["pta_right"]) == (60.0, 10.0)
    assert row["affected_side"] == "left"


@pytest.fixture(scope="module")
def ears() -> tuple[Ear, Ear]:
    left, right = (draw_ear(np.random.default_rng(1), side) for side in SIDES)
    return left, right


def test_twice_the_gadolinium_of_a_patient_is_twice_that_of_each_ear(
    ears: tuple[Ear, Ear],
) -> None:
    twice = replace(USUAL_FLUIDS, perilymph_mmol=2.0 * USUAL_FLUIDS.perilymph_mmol)
    usual, more = (
        examine(np.random.default_rng(3), *ears, fluids=fluids, voxel_mm=(4.0, 4.0, 4.0)).head
        for fluids in (USUAL_FLUIDS, twice)
    )
    for side in SIDES:
        dose = usual.gadolinium_mmol[side]
        assert more.gadolinium_mmol[side] == pytest.approx(2.0 * dose)


def test_patients_of_a_calibration_differ_in_their_fluids(ears: tuple[Ear, Ear]) -> None:
    heads = [
        examine_as_people_differ(np.random.default_rng(seed), *ears, (4.0, 4.0, 4.0)).head
        for seed in (1, 2)
    ]
    cochlea, vestibule, canals = zip(*(head.uptake for head in heads))
    assert vestibule == (1.0, 1.0)
    assert len({*cochlea, *canals, 1.0}) == 5


def test_a_simulated_reader_scatters_about_the_truth(written: Path) -> None:
    reader = simulate_reader([written / "truth" / "sub-01"])
    truth = pd.read_csv(written / "truth" / "sub-01" / "ears.tsv", sep="\t")
    both = reader.merge(truth, on=["side", "organ"], suffixes=("", "_true"))
    assert len(both) == len(truth)
    assert 0 < (both.eh_volume_ratio - both.eh_volume_ratio_true).abs().max() < 0.1
