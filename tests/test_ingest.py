"""Ingest against real scanners' DICOM with references, and against what can be broken."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrops.dicom import find_series, made_of_others
from hydrops.errors import ExcludedError, HydropsError
from hydrops.ingest import convert_series, ingest_session
from hydrops.participants import read_as_text
from hydrops.paths import Unit
from hydrops.phantom.dicom import Series, Study, write_series
from hydrops.phantom.head import scanner_affine
from hydrops.phantom.signal import MRC, PEI, PPI
from hydrops.phantom.signal import Sequence as MRSequence
from hydrops.protocol import Protocol, load_protocol, protocol_from
from hydrops.scan import scan_to_participants
from hydrops.sources import source_state
from places import REPOSITORY

UNIT = Unit("01", "1")
PROTOCOL = load_protocol(REPOSITORY / "config" / "protocols" / "hydrops.yaml")
SHAPE = (40, 36, 24)
SECRETS = (b"Doe", b"PH-SECRET-7", b"19700101", b"Phantom Hospital", b"2.25.", b"20240115")


def canonical(image: nib.Nifti1Image) -> nib.Nifti1Image:
    return nib.as_closest_canonical(image)


def write_study(folder: Path, enhanced: bool = False, seed: int = 1) -> Path:
    """A small examination: MRC, PPI, PEI and a scout; PPI and PEI called by each other's name."""
    rng = np.random.default_rng(seed)
    study = Study(seed, "Doe^Jane", "PH-SECRET-7")
    affine = scanner_affine(SHAPE, (1.0, 1.0, 1.2), (3.0, -2.0, 5.0), 7.0)
    for number, name, sequence in ((4, "mrc", MRC), (5, "pei", PPI), (6, "ppi", PEI)):
        pixels = rng.integers(0, 4000, SHAPE).astype(np.uint16)
        write_series(folder, study, Series(number, name, sequence, pixels, affine), enhanced)
    scout = rng.integers(0, 4000, (32, 32, 3)).astype(np.uint16)
    sequence = MRSequence("MRC", 20.0, 4.0)
    write_series(folder, study, Series(1, "scout", sequence, scout, affine, "2D"), False)
    return folder


def test_the_state_of_a_scan_changes_with_any_of_its_files(tmp_path: Path) -> None:
    first = tmp_path / "scan" / "series" / "1.dcm"
    first.parent.mkdir(parents=True)
    first.write_text("one")
    states = [source_state(tmp_path / "scan")]
    assert source_state(tmp_path / "scan") == states[0]
    (first.parent / "2.dcm").write_text("two")
    states.append(source_state(tmp_path / "scan"))
    first.write_text("another")
    states.append(source_state(tmp_path / "scan"))
    first.unlink()
    states.append(source_state(tmp_path / "scan"))
    assert len(set(states)) == 4
    assert source_state(tmp_path / "nowhere") not in states


def reason(source: Path, output: Path) -> str:
    with pytest.raises(ExcludedError) as exclusion:
        ingest_session(source, UNIT, PROTOCOL, output)
    return exclusion.value.reason


@pytest.mark.parametrize("enhanced", [False, True])
def test_roles_are_told_by_physics_and_voxels_stay_in_place(tmp_path: Path, enhanced: bool) -> None:
    source = write_study(tmp_path / "dicom", enhanced)
    numbers = ingest_session(source, UNIT, PROTOCOL, tmp_path / "out").numbers
    assert {r: n["series_number"] for r, n in numbers["roles"].items()} == {
        "MRC": 4,
        "PPI": 5,
        "PEI": 6,
    }
    written = nib.load(tmp_path / "out" / "anat" / "sub-01_ses-1_acq-MRC_T2w.nii.gz")
    truth = nib.Nifti1Image(
        np.random.default_rng(1).integers(0, 4000, SHAPE).astype(np.uint16),
        scanner_affine(SHAPE, (1.0, 1.0, 1.2), (3.0, -2.0, 5.0), 7.0),
    )
    assert np.array_equal(canonical(written).get_fdata(), canonical(truth).get_fdata())
    assert np.allclose(canonical(written).affine, canonical(truth).affine, atol=1e-3)
    sidecar = json.loads((tmp_path / "out/anat/sub-01_ses-1_acq-PPI_FLAIR.json").read_text())
    assert sidecar["InversionTime"] == pytest.approx(2.25)


def test_series_of_a_philips_scanner_come_out_in_one_unit(tmp_path: Path) -> None:
    # PPI and PEI are stored alike, and the scanner's scales say which is twice as much.
    source = write_study(tmp_path / "dicom")
    stored = pydicom.dcmread(sorted((source / "0005_pei").iterdir())[0]).pixel_array
    for series, scale in (("0004_mrc", 0.01), ("0005_pei", 0.004), ("0006_ppi", 0.008)):
        for path in (source / series).iterdir():
            header = pydicom.dcmread(path)
            header.Manufacturer = "Philips Medical Systems"
            header.RescaleSlope, header.RescaleIntercept = 2.0, 0.0
            block = header.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
            block.add_new(0x0E, "FL", scale)
            if series != "0004_mrc":
                header.PixelData = np.ascontiguousarray(stored, "<u2").tobytes()
            header.save_as(path)
    ingest_session(source, UNIT, PROTOCOL, tmp_path / "out")
    ppi, pei = (
        nib.load(tmp_path / "out" / "anat" / f"sub-01_ses-1_acq-{role}_FLAIR.nii.gz").get_fdata()
        for role in ("PPI", "PEI")
    )
    assert np.ptp(ppi) > 0
    np.testing.assert_allclose(ppi, 2.0 * pei, rtol=1e-5)


def test_frames_of_different_scales_are_refused(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom", enhanced=True)
    (path,) = (p for p in source.rglob("*.dcm") if "mrc" in str(p))
    header = pydicom.dcmread(path)
    for number, frame in enumerate(header.PerFrameFunctionalGroupsSequence, start=1):
        scale = pydicom.Dataset()
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = float(number), 0.0, "US"
        frame.PixelValueTransformationSequence = pydicom.Sequence([scale])
    header.save_as(path)
    assert "different intensity scales" in reason(source, tmp_path / "out")


def test_an_inversion_image_taken_slice_by_slice_is_told_and_not_taken(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom")
    for path in (source / "0005_pei").iterdir():
        header = pydicom.dcmread(path)
        header.MRAcquisitionType = "2D"
        header.save_as(path)
    found = reason(source, tmp_path / "out")
    assert "no series can be the PPI" in found
    assert "series 5 (TR 9000, TE 540, TI 2250 ms, 2D)" in found
    _, (message,) = scan_to_participants(tmp_path / "dicom", PROTOCOL)
    assert found in message


def test_studies_that_name_nobody_are_of_different_people(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_study(tmp_path / "dicom" / str(seed), seed=seed)
        for path in (tmp_path / "dicom" / str(seed)).rglob("*.dcm"):
            header = pydicom.dcmread(path)
            header.PatientID = header.PatientName = ""
            header.save_as(path)
    table, messages = scan_to_participants(tmp_path / "dicom", PROTOCOL)
    assert table.participant_id.tolist() == ["001", "002"]
    assert "2 studies name no patient" in messages[-1]


@pytest.mark.parametrize(
    ("tag", "value"), [("EchoTime", "544,0"), ("RescaleSlope", "1,5"), ("BitsAllocated", None)]
)
def test_a_file_with_an_odd_header_costs_only_itself(
    tmp_path: Path, tag: str, value: str | None
) -> None:
    source = write_study(tmp_path / "dicom")
    odd = sorted((source / "0006_ppi").iterdir())[3]
    header = pydicom.dcmread(odd)
    if value is None:
        delattr(header, tag)
    else:
        with pydicom.config.disable_value_validation():
            header[tag] = pydicom.DataElement(tag, "LO", value)
    header.save_as(odd)
    series, ignored = find_series(sorted(source.rglob("*.dcm")))
    assert ignored == [odd]
    assert len(series) == 4
    assert "1 slice(s) missing" in reason(source, tmp_path / "out")


def test_linked_folders_are_followed_and_lost_links_passed_over(tmp_path: Path) -> None:
    write_study(tmp_path / "archive")
    source = tmp_path / "source"
    source.mkdir()
    (source / "linked").symlink_to(tmp_path / "archive")
    (source / "around").symlink_to(source)
    (source / "lost.dcm").symlink_to(tmp_path / "never fetched")
    numbers = ingest_session(source, UNIT, PROTOCOL, tmp_path / "out").numbers
    assert len(numbers["roles"]) == 3
    assert source_state(source) == source_state(source)


def test_nothing_identifying_leaves_and_bytes_repeat(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom")
    for name in ("a", "b"):
        ingest_session(source, UNIT, PROTOCOL, tmp_path / name)
    files = sorted(p for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 6
    for path in files:
        content = path.read_bytes()
        assert content == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        for secret in SECRETS:
            assert secret not in content, (path.name, secret)


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom")
    sorted((source / "0006_ppi").iterdir())[11].unlink()
    found = reason(source, tmp_path / "out")
    assert "series 6" in found
    assert "1 slice(s) missing" in found
    assert "after slice 11" in found


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("PixelSpacing", [1.0, 1.5]),
        ("ImageOrientationPatient", [1.0, 0.0, 0.0, 0.0, 0.8, 0.6]),
        ("Rows", 12),
    ],
)
def test_a_slice_of_unequal_geometry_excludes_and_its_series_is_named(
    tmp_path: Path, tag: str, value: object
) -> None:
    source = write_study(tmp_path / "dicom")
    victim = sorted((source / "0005_pei").iterdir())[7]
    header = pydicom.dcmread(victim)
    setattr(header, tag, value)
    if tag == "Rows":
        header.PixelData = header.PixelData[: 2 * 12 * header.Columns]
    header.save_as(victim)
    assert "series 5" in reason(source, tmp_path / "out")


def test_an_image_of_another_place_is_refused(tmp_path: Path) -> None:
    source = write_nifti(tmp_path / "nifti")
    path = source / "acq-PPI_x.nii.gz"
    image = nib.load(path)
    affine = image.affine.copy()
    affine[2, 3] += 80.0
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), affine), path)
    assert "PPI lies 80 mm from the MRC" in reason(source, tmp_path / "out")


def test_the_first_of_several_gaps_is_named(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom")
    files = sorted((source / "0006_ppi").iterdir())
    for lost in (3, 10, 11):
        files[lost].unlink()
    found = reason(source, tmp_path / "out")
    assert "3 slice(s) missing" in found
    assert "after slice 3 of 21" in found


def test_two_candidates_and_a_missing_role_are_never_guessed(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom")
    shutil.rmtree(source / "0005_pei")
    assert "no series can be the PPI" in reason(source, tmp_path / "out")
    source = write_study(tmp_path / "again")
    affine = scanner_affine(SHAPE)
    second = Series(9, "mrc2", MRC, np.ones(SHAPE, np.uint16), affine)
    write_series(source, Study(1, "Doe^Jane", "PH-SECRET-7"), second, False)
    found = reason(source, tmp_path / "out")
    assert "2 series could be the MRC" in found
    assert "series 9" in found


def test_truncated_file_and_things_that_are_no_images(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom")
    (source / "note.dcm").write_text("not an image")
    (source / "letter.pdf").write_bytes(b"%PDF-1.4\n")
    (source / "empty").write_bytes(b"")
    numbers = ingest_session(source, UNIT, PROTOCOL, tmp_path / "out").numbers
    assert numbers["ignored_files"] == 3
    victim = sorted((source / "0004_mrc").iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:1500])
    assert "is cut off" in reason(source, tmp_path / "out")


def test_two_studies_in_one_folder(tmp_path: Path) -> None:
    write_study(tmp_path / "dicom" / "a", seed=1)
    write_study(tmp_path / "dicom" / "b", seed=2)
    assert "more than one study" in reason(tmp_path / "dicom", tmp_path / "out")


def test_a_source_that_is_not_there_or_is_empty(tmp_path: Path) -> None:
    assert "does not exist" in reason(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "no DICOM or NIfTI" in reason(tmp_path / "empty", tmp_path / "out")


def write_nifti(folder: Path, **changes: object) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    affine = scanner_affine(SHAPE, (1.0, 1.0, 1.2))
    for role, ti in (("MRC", None), ("PPI", 2.25), ("PEI", 2.05)):
        data = changes.get(role, rng.random(SHAPE).astype(np.float32))
        nib.save(nib.Nifti1Image(data, affine), folder / f"acq-{role}_x.nii.gz")
        sidecar = {"RepetitionTime": 4.4 if ti is None else 9.0, "EchoTime": 0.544}
        if ti is not None:
            sidecar["InversionTime"] = ti
        (folder / f"acq-{role}_x.json").write_text(json.dumps(sidecar))
    return folder


def test_nifti_input_keeps_voxels(tmp_path: Path) -> None:
    source = write_nifti(tmp_path / "nifti")
    ingest_session(source, UNIT, PROTOCOL, tmp_path / "out")
    before = nib.load(source / "acq-PEI_x.nii.gz")
    after = nib.load(tmp_path / "out" / "anat" / "sub-01_ses-1_acq-PEI_FLAIR.nii.gz")
    assert np.array_equal(before.get_fdata(), after.get_fdata())
    assert np.array_equal(before.affine, after.affine)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_words_in_the_header_of_a_nifti_are_left_behind(
    tmp_path: Path, kind: type[nib.Nifti1Image]
) -> None:
    source = write_nifti(tmp_path / "nifti")
    path = source / "acq-MRC_x.nii.gz"
    stored = np.random.default_rng(1).integers(0, 4000, SHAPE).astype(np.int16)
    image = kind(stored, nib.load(path).affine)
    image.header["descrip"], image.header["intent_name"] = b"Doe^Jane", b"PH-SECRET-7"
    extension = nib.nifti1.Nifti1Extension("comment", b"PatientName=Doe^Jane")
    image.header.extensions.append(extension)
    image.header.set_slope_inter(0.25, 3.0)
    nib.save(image, path)
    ingest_session(source, UNIT, PROTOCOL, tmp_path / "out")
    kept = tmp_path / "out" / "anat" / "sub-01_ses-1_acq-MRC_T2w.nii.gz"
    content = gzip.decompress(kept.read_bytes())
    assert not any(secret in content for secret in SECRETS)
    before, after = nib.load(path), nib.load(kept)
    assert np.array_equal(before.dataobj.get_unscaled(), after.dataobj.get_unscaled())
    assert np.array_equal(before.get_fdata(), after.get_fdata())
    assert np.array_equal(before.affine, after.affine)


@pytest.mark.parametrize(
    ("shape", "voxels"), [((12, 40, 40), "12 x 40 x 40"), ((40, 40, 6), "40 x 40 x 6")]
)
def test_a_slab_too_thin_for_an_ear_is_excluded(
    tmp_path: Path, shape: tuple[int, int, int], voxels: str
) -> None:
    slab = np.random.default_rng(1).random(shape).astype(np.float32)
    found = reason(write_nifti(tmp_path / "nifti", PPI=slab), tmp_path / "out")
    assert f"{voxels} voxels" in found
    assert "cannot show an inner ear" in found


def test_nifti_without_sidecars_goes_by_name(tmp_path: Path) -> None:
    source = write_nifti(tmp_path / "nifti")
    for sidecar in source.glob("*.json"):
        sidecar.unlink()
    assert set(ingest_session(source, UNIT, PROTOCOL, tmp_path / "out").numbers["roles"]) == {
        "MRC",
        "PPI",
        "PEI",
    }


@pytest.mark.parametrize("time", [[0.5, 0.6], "long", True, float("nan")])
def test_a_time_that_is_not_a_number_is_told(tmp_path: Path, time: object) -> None:
    source = write_nifti(tmp_path / "nifti")
    path = source / "acq-PEI_x.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"EchoTime": time}))
    told = reason(source, tmp_path / "out")
    assert "the sidecar of image 2 of 3 by name: its EchoTime is" in told
    assert "not a number of seconds" in told


def test_swapped_names_against_sidecars_are_refused(tmp_path: Path) -> None:
    source = write_nifti(tmp_path / "nifti")
    a, b = source / "acq-PPI_x.json", source / "acq-PEI_x.json"
    first, second = a.read_text(), b.read_text()
    a.write_text(second)
    b.write_text(first)
    assert "swapped" in reason(source, tmp_path / "out")


def test_broken_nifti(tmp_path: Path) -> None:
    bad = np.ones(SHAPE, np.float32)
    bad[3, 3, 3] = np.nan
    assert "not numbers" in reason(write_nifti(tmp_path / "a", PPI=bad), tmp_path / "out")
    flat = np.ones(SHAPE, np.float32)
    assert "every voxel is the same" in reason(write_nifti(tmp_path / "b", MRC=flat), tmp_path)
    source = write_nifti(tmp_path / "c")
    (source / "acq-MRC_x.nii.gz").write_bytes(b"")
    assert "image 1 of 3 by name: not a readable" in reason(source, tmp_path / "out")


def test_scan_lists_sessions_without_names(tmp_path: Path) -> None:
    write_study(tmp_path / "dicom" / "Doe Jane", seed=1)
    write_study(tmp_path / "dicom" / "other", seed=2)
    table, messages = scan_to_participants(tmp_path / "dicom", PROTOCOL)
    # Both studies carry the same patient: two sessions of one participant.
    assert table.participant_id.tolist() == ["001", "001"]
    assert table.session_id.tolist() == ["1", "2"]
    assert all("PPI is series 5" in message for message in messages)
    (tmp_path / "none").mkdir()
    with pytest.raises(HydropsError, match="no DICOM"):
        scan_to_participants(tmp_path / "none", PROTOCOL)


def references(root: Path) -> list[tuple[list[Path], Path]]:
    """Every series with a reference: its files and the reference image."""
    cases = []
    for reference in sorted(root.glob("dicom2nifti/**/*_ground_truth.nii.gz")):
        if "failing" not in reference.parts:
            folder = reference.parent / reference.name.removesuffix("_ground_truth.nii.gz")
            cases.append((sorted(folder.iterdir()), reference))
    for number in range(1, 10):
        reference = root / "dcm_qa_ts" / "Ref" / f"{number}.nii"
        if reference.is_file():
            cases.append(([root / "dcm_qa_ts" / "In" / f"{number}.dcm"], reference))
    for reference in sorted(root.glob("dcm_qa_nih/Ref/*.nii")):
        number = reference.stem.rsplit("_", 1)[1]
        scanner = "20180918Si" if reference.stem.startswith("EPI") else "20180918GE"
        folder = root / "dcm_qa_nih" / "In" / scanner / f"mr_{int(number):04d}"
        cases.append((sorted(folder.glob("*.dcm")), reference))
    return cases


def test_real_series_convert_as_their_references(shared_data: Path, tmp_path: Path) -> None:
    cases = references(shared_data / "dicom")
    assert len(cases) > 25
    for number, (files, reference) in enumerate(cases):
        (header,), ignored = find_series(files)
        assert not ignored
        if "non_isotropic" in reference.name:
            # Each slice has its own scale: refused, because dcm2niix applies the first to all.
            with pytest.raises(ExcludedError, match="different intensity scales"):
                convert_series(header, tmp_path)
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        made, expected = (
            canonical(nib.load(path)) for path in (convert_series(header, folder), reference)
        )
        if made.get_data_dtype().names:  # colour
            one, other = (np.asarray(image.dataobj) for image in (made, expected))
            same = all(np.array_equal(one[c], other[c]) for c in "RGB")
        else:
            one, other = (np.squeeze(image.get_fdata()) for image in (made, expected))
            assert np.ptp(other) > 0
            ((slope, _, own),) = header.scales
            if header.manufacturer.startswith("Philips"):
                # The references hold displayed values, from which Philips' own follow by
                # FP = DV / (RS SS) (Chenevert et al., Transl Oncol 2014;7:65).
                assert own < 0.001
                other = other / (slope * own)
            if "dti" in reference.parts:
                # dcm2niix puts diffusion volumes in another order; the one that is not empty in
                # the reference must be among ours.
                full = other[..., int(np.argmax(other.sum((0, 1, 2))))]
                apart = [np.abs(one[..., v] - full).max() for v in range(one.shape[-1])]
                one, other = one[..., int(np.argmin(apart))], full
            same = one.shape == other.shape and np.allclose(one, other, rtol=1e-5, atol=1e-3)
        assert np.all(same), reference.name
        assert np.allclose(made.affine, expected.affine, atol=2e-3), reference


def test_failing_series_have_the_right_reason(shared_data: Path) -> None:
    failing = shared_data / "dicom" / "dicom2nifti" / "failing"
    for name, words in (("slicecount", "only 2 slice"), ("notavolume", "same place")):
        (header,), _ = find_series(sorted((failing / name / "001").iterdir()))
        assert words in str(header.geometry_fault())


def test_a_nifti_may_be_named_by_its_series_number(tmp_path: Path) -> None:
    """What a message advises where two images could play a role."""
    source = write_nifti(tmp_path / "nifti")
    for end in ("nii.gz", "json"):
        shutil.copyfile(source / f"acq-MRC_x.{end}", source / f"again_x.{end}")
    for name, number in (("acq-MRC_x", 4), ("again_x", 9)):
        path = source / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"SeriesNumber": number}))
    assert "series_number in the protocol" in reason(source, tmp_path / "out")
    rules = {**PROTOCOL.roles, "MRC": replace(PROTOCOL.roles["MRC"], series_number=4)}
    chosen = ingest_session(source, UNIT, replace(PROTOCOL, roles=rules), tmp_path / "out")
    assert set(chosen.numbers["roles"]) == {"MRC", "PPI", "PEI"}


def test_a_protocol_has_the_roles_that_hydrops_is_made_of() -> None:
    with pytest.raises(HydropsError, match="combination PPI-PEI needs the role PPI"):
        protocol_from({"combination": "PPI-PEI", "roles": {"MRC": {}}})


def test_a_range_whose_ends_are_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(HydropsError, match="te_ms of MRC is 1000 to 100, which nothing fits"):
        protocol_from({"combination": "none", "roles": {"MRC": {"te_ms": [1000, 100]}}})


@pytest.mark.parametrize("kind", ["P", "PHASE", "MIP", "PROJECTION IMAGE", "MPR"])
def test_what_was_made_of_an_image_does_not_stand_for_it(tmp_path: Path, kind: str) -> None:
    """A phase image or a projection beside the PPI, of the same timing."""
    source = write_study(tmp_path / "dicom")
    pixels = np.random.default_rng(3).integers(0, 4000, SHAPE).astype(np.uint16)
    made = Series(8, "made", PPI, pixels, scanner_affine(SHAPE, (1.0, 1.0, 1.2)))
    write_series(source, Study(1, "Doe^Jane", "PH-SECRET-7"), made, False)
    for path in (source / "0008_made").iterdir():
        header = pydicom.dcmread(path)
        header.ImageType = ["DERIVED", "SECONDARY", kind]
        header.save_as(path)
    numbers = ingest_session(source, UNIT, PROTOCOL, tmp_path / "out").numbers
    assert numbers["roles"]["PPI"]["series_number"] == 5


def test_a_protocol_may_ask_for_a_type_of_image(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom")
    rules = {
        **PROTOCOL.roles, "PPI": replace(PROTOCOL.roles["PPI"], image_type="SUBTRACTION")
    }  # fmt: skip
    with pytest.raises(ExcludedError, match="no series can be the PPI"):
        ingest_session(source, UNIT, replace(PROTOCOL, roles=rules), tmp_path / "out")
    for path in (source / "0005_pei").iterdir():
        header = pydicom.dcmread(path)
        header.ImageType = [*header.ImageType, "SUBTRACTION"]
        header.save_as(path)
    chosen = ingest_session(source, UNIT, replace(PROTOCOL, roles=rules), tmp_path / "out").numbers
    assert chosen["roles"]["PPI"]["series_number"] == 5


def test_a_conversion_that_moves_an_image_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_study(tmp_path / "dicom")
    convert = subprocess.run

    def moved(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        done = convert(command, **options)  # type: ignore[call-overload]
        (made,) = Path(command[-2]).glob("*.nii")
        image = nib.load(made)
        affine = image.affine.copy()
        affine[0, 3] += 0.6
        nib.save(nib.Nifti1Image(np.array(image.dataobj), affine), made)
        return done

    monkeypatch.setattr("hydrops.ingest.subprocess.run", moved)
    found = reason(source, tmp_path / "out")
    assert "lies 0.60 mm from where the DICOM headers put it" in found
    assert "cannot be trusted" in found


def edit(files: Iterable[Path], **values: object) -> None:
    """Set elements of files to these values, or to what a function makes of a file's place."""
    for number, path in enumerate(sorted(files)):
        header = pydicom.dcmread(path)
        for keyword, value in values.items():
            setattr(header, keyword, value(number) if callable(value) else value)
        header.save_as(path)


def add_series(source: Path, number: int, sequence: MRSequence, slices: int = 24) -> Path:
    """Another series of the same examination."""
    pixels = np.random.default_rng(number).integers(0, 4000, SHAPE).astype(np.uint16)
    affine = scanner_affine(SHAPE, (1.0, 1.0, 1.2), (3.0, -2.0, 5.0), 7.0)
    series = Series(number, "added", sequence, pixels[:, :, :slices], affine)
    write_series(source, Study(1, "Doe^Jane", "PH-SECRET-7"), series, False)
    return source / f"{number:04d}_added"


MADE_OF_OTHERS = [
    "DERIVED PRIMARY M SUB",
    "ORIGINAL PRIMARY R ND",
    "ORIGINAL PRIMARY R_IR R IR",
    "ORIGINAL PRIMARY IMAGINARY",
    "ORIGINAL PRIMARY I ND",
    "DERIVED SECONDARY REFORMATTED AVERAGE",
    "DERIVED SECONDARY M MEAN",
    "DERIVED SECONDARY M MinIP",
    "DERIVED SECONDARY OTHER CSA_MPR",
]


@pytest.mark.parametrize("told", MADE_OF_OTHERS)
def test_what_is_no_magnitude_is_neither_taken_nor_in_the_way(tmp_path: Path, told: str) -> None:
    source = write_study(tmp_path / "dicom")
    kind = [word.replace("CSA_", "CSA ") for word in told.split()]
    edit(add_series(source, 8, PPI).iterdir(), ImageType=kind)
    numbers = ingest_session(source, UNIT, PROTOCOL, tmp_path / "out").numbers
    assert numbers["roles"]["PPI"]["series_number"] == 5
    shutil.rmtree(source / "0005_pei")
    found = reason(source, tmp_path / "out")
    assert "no series can be the PPI" in found
    told_kind = "/".join(word for word in kind if word not in ("ORIGINAL", "PRIMARY"))
    assert f"series 8 (TR 9000, TE 540, TI 2250 ms) of type {told_kind}" in found


@pytest.mark.parametrize("kind", [["DERIVED", "PRIMARY", "M", "ND"], ["ORIGINAL", "M", "DIS3D"]])
def test_an_ordinary_reconstruction_is_taken(tmp_path: Path, kind: list[str]) -> None:
    source = write_study(tmp_path / "dicom")
    edit((source / "0005_pei").iterdir(), ImageType=kind)
    assert ingest_session(source, UNIT, PROTOCOL, tmp_path / "out").numbers["roles"]["PPI"]


@pytest.mark.parametrize("component", ["PHASE", "REAL", "IMAGINARY", "MIXED"])
def test_the_component_of_a_multi_frame_file_counts(tmp_path: Path, component: str) -> None:
    source = write_study(tmp_path / "dicom", enhanced=True)
    edit((source / "0005_pei").iterdir(), ComplexImageComponent=component)
    assert "no series can be the PPI" in reason(source, tmp_path / "out")


@pytest.mark.parametrize(("number", "taken"), [(0, True), (1, False), (2, False), (3, False)])
def test_what_ge_says_of_the_component_counts(tmp_path: Path, number: int, taken: bool) -> None:
    source = write_study(tmp_path / "dicom")
    for path in (source / "0005_pei").iterdir():
        header = pydicom.dcmread(path)
        header.Manufacturer = "GE MEDICAL SYSTEMS"
        header.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", number)
        header.save_as(path)
    (series,) = (s for s in find_series(source.rglob("*.dcm"))[0] if s.number == 5)
    assert (made_of_others(series.image_type) == set()) == taken


def test_hydrops_of_the_scanner_may_be_a_subtraction(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom")
    edit((source / "0005_pei").iterdir(), ImageType=["DERIVED", "PRIMARY", "M", "SUB"])
    protocol = load_protocol(REPOSITORY / "config" / "protocols" / "scanner_hydrops.yaml")
    assert ingest_session(source, UNIT, protocol, tmp_path / "out").numbers["roles"]["HYDROPS"]


def test_magnitude_and_real_part_of_one_series_are_told_apart(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom")
    uid = find_series((source / "0005_pei").iterdir())[0][0].uid
    kind = ["ORIGINAL", "PRIMARY", "R", "ND"]
    edit(
        add_series(source, 8, PPI).iterdir(), SeriesInstanceUID=uid, SeriesNumber=5, ImageType=kind
    )
    numbers = ingest_session(source, UNIT, PROTOCOL, tmp_path / "out").numbers
    assert numbers["roles"]["PPI"]["shape"][2] == SHAPE[2]
    assert "warnings" not in numbers


def with_number(role: str, number: int) -> Protocol:
    rules = {**PROTOCOL.roles, role: replace(PROTOCOL.roles[role], series_number=number)}
    return replace(PROTOCOL, roles=rules)


@pytest.mark.parametrize("number", [1, 4, 6, 7])
def test_a_series_number_never_overrides_physics(tmp_path: Path, number: int) -> None:
    source = write_study(tmp_path / "dicom")
    with pytest.raises(ExcludedError, match=f"no series by the number {number} can be the PPI"):
        ingest_session(source, UNIT, with_number("PPI", number), tmp_path / "out")


def test_a_series_number_tells_a_repeat_from_the_first(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom")
    add_series(source, 8, PPI)
    assert "2 series could be the PPI" in reason(source, tmp_path / "out")
    chosen = ingest_session(source, UNIT, with_number("PPI", 8), tmp_path / "out").numbers
    assert chosen["roles"]["PPI"]["series_number"] == 8


def test_no_series_plays_two_roles(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom")
    shutil.rmtree(source / "0006_ppi")
    wide = replace(PROTOCOL.roles["PEI"], ti_ms=(1850, 2600))
    with pytest.raises(ExcludedError, match="no series can be both"):
        ingest_session(
            source,
            UNIT,
            replace(PROTOCOL, roles={**PROTOCOL.roles, "PEI": wide}),
            tmp_path / "out",
        )


@pytest.mark.parametrize(("number", "sequence", "slices"), [(8, PPI, 6), (9, MRC, 24)])
def test_an_aborted_or_flat_series_gives_way_to_a_sound_one(
    tmp_path: Path, number: int, sequence: MRSequence, slices: int
) -> None:
    source = write_study(tmp_path / "dicom")
    added = add_series(source, number, sequence, slices)
    if sequence is MRC:
        edit(added.iterdir(), MRAcquisitionType="2D")
    numbers = ingest_session(source, UNIT, PROTOCOL, tmp_path / "out").numbers
    assert {n["series_number"] for n in numbers["roles"].values()} == {4, 5, 6}
    assert f"series {number}" in numbers["warnings"][0]


def test_times_that_differ_within_a_series_are_refused(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom")
    edit(sorted((source / "0005_pei").iterdir())[5:], InversionTime=2050.0)
    found = reason(source, tmp_path / "out")
    assert "TI 2050 and 2250" in found
    assert "differ in echo or inversion time" in found


def test_no_name_of_a_file_or_folder_is_in_a_reason(tmp_path: Path) -> None:
    source = write_study(tmp_path / "Doe^Jane")
    victim = sorted((source / "0004_mrc").iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:-700])
    named = victim.rename(victim.with_name("DOE_JANE.dcm"))
    found = reason(source, tmp_path / "out")
    assert "file 24 of 24, in the order of their names, is cut off" in found
    assert "DOE" not in found
    named.unlink()
    assert "Doe" not in reason(tmp_path / "Doe^John", tmp_path / "out")
    nifti = write_nifti(tmp_path / "nifti")
    for end in ("nii.gz", "json"):
        shutil.copyfile(nifti / f"acq-MRC_x.{end}", nifti / f"Doe_Jane.{end}")
    found = reason(nifti, tmp_path / "out")
    assert "image 1 of 4 by name and image 2 of 4 by name" in found


def test_pydicom_says_nothing_of_what_it_reads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    source = write_study(tmp_path / "dicom")
    with pydicom.config.disable_value_validation():
        edit(source.rglob("*.dcm"), StudyInstanceUID="1.2.03.4711", StudyTime="18:30")
    recwarn.clear()
    assert len(find_series(source.rglob("*.dcm"))[0]) == 4
    assert not list(recwarn)
    assert not caplog.records


def with_element(path: Path, kind: bytes) -> None:
    """Put a private element of six bytes, of this kind, into a file."""
    content = path.read_bytes()
    where = content.index(bytes([0x20, 0, 0x0D, 0]))
    element = bytes([0x19, 0, 0x99, 0x10]) + kind + (6).to_bytes(2, "little") + bytes(6)
    path.write_bytes(content[:where] + element + content[where:])


def test_an_odd_private_element_costs_nothing(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom")
    with_element(sorted((source / "0004_mrc").iterdir())[3], b"FL")
    numbers = ingest_session(source, UNIT, PROTOCOL, tmp_path / "out").numbers
    assert numbers["ignored_files"] == 0


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("ImagePositionPatient", [0, 0]),
        ("ImageOrientationPatient", [1, 0, 0, 0, 1]),
        ("PixelSpacing", [1, 1, 1]),
        ("PixelSpacing", [0, 1]),
    ],
)
def test_a_place_that_is_none_costs_only_its_file(
    tmp_path: Path, tag: str, value: list[float]
) -> None:
    source = write_study(tmp_path / "dicom")
    odd = sorted((source / "0006_ppi").iterdir())[3]
    edit([odd], **{tag: value})
    series, ignored = find_series(source.rglob("*.dcm"))
    assert ignored == [odd]
    assert all(s.places == len(s.slices) for s in series)


@pytest.fixture(scope="module")
def some_files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("some")
    files = [sorted((write_study(folder / "a") / "0005_pei").iterdir())[3]]
    files += (write_study(folder / "b", enhanced=True) / "0005_pei").iterdir()
    return [path.read_bytes() for path in files]


@settings(max_examples=60)
@given(data=st.data())
def test_no_broken_header_stops_a_scan(some_files: list[bytes], data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(some_files)))
    for _ in range(4):
        content[data.draw(st.integers(132, 1700))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1.dcm"
        path.write_bytes(content[: data.draw(st.integers(140, len(content)))])
        series, ignored = find_series([path])
    for one in series:
        assert one.describe()
        assert one.places >= 1
        one.geometry_fault()
    assert len(series) + len(ignored) == 1


def test_patients_with_the_same_uids_are_two(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_study(tmp_path / "dicom" / name)
    edit((tmp_path / "dicom" / "b").rglob("*.dcm"), PatientID="OTHER")
    table, _ = scan_to_participants(tmp_path / "dicom", PROTOCOL)
    assert table.participant_id.tolist() == ["001", "002"]
    assert "more than one study" in reason(tmp_path / "dicom", tmp_path / "out")


@pytest.mark.parametrize(
    ("first", "second", "people"),
    [
        ({"PatientName": "Doe^Jane"}, {"PatientName": "DOE^JANE^^^"}, 1),
        ({"PatientID": ""}, {"PatientID": "", "PatientName": "DOE^JANE^"}, 1),
        ({"PatientID": ""}, {"PatientID": "", "PatientName": "Roe^Jane"}, 2),
        ({"PatientID": "1"}, {"PatientID": "2"}, 2),
    ],
)
def test_a_patient_is_told_by_number_else_by_name(
    tmp_path: Path, first: dict[str, str], second: dict[str, str], people: int
) -> None:
    for seed, values in ((1, first), (2, second)):
        edit(write_study(tmp_path / "dicom" / str(seed), seed=seed).rglob("*.dcm"), **values)
    table, messages = scan_to_participants(tmp_path / "dicom", PROTOCOL)
    assert table.participant_id.nunique() == people
    assert not any("differ in" in message for message in messages)


def test_doubts_about_one_patient_number_are_told(tmp_path: Path) -> None:
    for seed, name, born in ((1, "Doe^Jane", "19700101"), (2, "Roe^Jim", "19800101")):
        folder = write_study(tmp_path / "dicom" / str(seed), seed=seed)
        edit(folder.rglob("*.dcm"), PatientName=name, PatientBirthDate=born, StudyDate="")
    _, messages = scan_to_participants(tmp_path / "dicom", PROTOCOL)
    assert any("differ in name and date of birth" in message for message in messages)
    assert any("the order of its 2 sessions is not known" in message for message in messages)
    assert not any("Roe" in message for message in messages)


@pytest.mark.parametrize("later", [1, 2])
def test_sessions_of_one_day_are_in_the_order_of_their_times(tmp_path: Path, later: int) -> None:
    for seed, time in ((later, "180000"), (3 - later, "080000")):
        folder = write_study(tmp_path / "dicom" / str(seed), seed=seed)
        edit(folder.rglob("*.dcm"), StudyTime=time)
    table, _ = scan_to_participants(tmp_path / "dicom", PROTOCOL)
    assert [Path(source).name for source in table.source] == [str(3 - later), str(later)]


def test_a_later_scan_keeps_what_is_there(tmp_path: Path) -> None:
    root = tmp_path / "dicom"
    edit(write_study(root / "b").rglob("*.dcm"), PatientID="1")
    table, _ = scan_to_participants(root, PROTOCOL)
    first = table.assign(participant_id="007", group="meniere")
    edit(write_study(root / "a", seed=2).rglob("*.dcm"), PatientID="2")
    edit(write_study(root / "c", seed=3).rglob("*.dcm"), PatientID="1", StudyDate="20250101")
    (tmp_path / "table.tsv").write_text(first.to_csv(sep="\t", index=False))
    later, _ = scan_to_participants(root, PROTOCOL, read_as_text(tmp_path / "table.tsv"))
    assert later.iloc[0].to_dict() == first.iloc[0].to_dict()
    added = {Path(row.source).name: (row.participant_id, row.session_id, row.group)
             for row in later.iloc[1:].itertuples()}  # fmt: skip
    assert added == {"a": ("008", "1", "n/a"), "c": ("007", "2", "n/a")}


def test_a_later_scan_adds_nothing_that_lies_in_a_folder_of_the_table(tmp_path: Path) -> None:
    """Who writes a table by hand may name the folder above."""
    edit(write_study(tmp_path / "dicom" / "a" / "study").rglob("*.dcm"), PatientID="1")
    path, row = tmp_path / "table.tsv", f"007\t1\t{tmp_path / 'dicom' / 'a'}\n"
    path.write_text("participant_id\tsession_id\tsource\n" + row)
    table, messages = scan_to_participants(tmp_path / "dicom", PROTOCOL, read_as_text(path))
    assert table.to_csv(sep="\t", index=False) == path.read_text()
    assert [message.split(" (")[0] for message in messages] == ["sub-007 ses-1"]
    write_study(tmp_path / "dicom" / "a" / "later", seed=2)
    table, messages = scan_to_participants(tmp_path / "dicom", PROTOCOL, read_as_text(path))
    assert len(table) == 1
    assert sum("shares its folder" in message for message in messages) == 2


@pytest.mark.parametrize(
    ("other", "fault"),
    [("{}/a/study", "lies within"), ("{}/link", "is that of"), ("{}/a/../a", "is that of")],
)
def test_no_folder_is_that_of_two_rows(tmp_path: Path, other: str, fault: str) -> None:
    (tmp_path / "a" / "study").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    path = tmp_path / "table.tsv"
    path.write_text(f"participant_id\tsource\n1\t{tmp_path}/a\n2\t{other.format(tmp_path)}\n")
    with pytest.raises(HydropsError, match=f"line 3, column source: .* {fault}"):
        read_as_text(path)


def test_two_patients_in_one_folder_have_a_row_each(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_study(tmp_path / "apart" / str(seed), seed=seed)
    edit((tmp_path / "apart" / "2").rglob("*.dcm"), PatientID="OTHER")
    (tmp_path / "flat").mkdir()
    for number, path in enumerate((tmp_path / "apart").rglob("*.dcm")):
        path.rename(tmp_path / "flat" / f"{number}.dcm")
    table, messages = scan_to_participants(tmp_path / "flat", PROTOCOL)
    assert table.participant_id.tolist() == ["001", "002"]
    assert all("shares its folder" in message for message in messages)


@pytest.mark.parametrize(
    "told", [{"ImageType": ["ORIGINAL", "P", 3]}, {"ComplexImageComponent": "REAL"}]
)
def test_a_sidecar_that_tells_no_magnitude_is_believed(
    tmp_path: Path, told: dict[str, object]
) -> None:
    source = write_nifti(tmp_path / "nifti")
    path = source / "acq-PPI_x.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | told))
    assert "no series can be the PPI" in reason(source, tmp_path / "out")


def test_of_many_candidates_a_few_are_named(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom")
    edit((source / "0005_pei").iterdir(), SeriesInstanceUID=lambda number: f"1.2.{number}")
    assert "series 5 (TR 9000, TE 540, TI 2250 ms) of type M/ND/NORM and 21 more" in reason(
        source, tmp_path / "out"
    )


def test_an_nifti_beside_dicom_does_not_hide_it(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom")
    nib.save(nib.Nifti1Image(np.ones((9, 9, 9), np.uint8), np.eye(4)), source / "roi.nii.gz")
    numbers = ingest_session(source, UNIT, PROTOCOL, tmp_path / "out").numbers
    assert numbers["roles"]["PPI"]["series_number"] == 5
    assert numbers["ignored_files"] == 1


def test_a_copy_of_a_file_is_passed_over_and_told(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom")
    shutil.copytree(source / "0005_pei", source / "copy")
    shutil.copy(source / "0004_mrc" / "0003.dcm", source / "0004_mrc" / "0003 (1).dcm")
    numbers = ingest_session(source, UNIT, PROTOCOL, tmp_path / "out").numbers
    assert [w.split(": ")[1][:33] for w in numbers["warnings"]] == [
        "1 of its files were there twice, ",
        "24 of its files were there twice,",
    ]


@pytest.mark.parametrize("name", ["0001.dcm", "0024.dcm"])
def test_a_lost_slice_at_an_end_is_told(tmp_path: Path, name: str) -> None:
    source = write_study(tmp_path / "dicom")
    (source / "0005_pei" / name).write_bytes(b"")
    numbers = ingest_session(source, UNIT, PROTOCOL, tmp_path / "out").numbers
    assert any("1 file(s) beside its own" in warning for warning in numbers["warnings"])
    gap = any("images numbered 1 to 24, 1 are not there" in w for w in numbers["warnings"])
    assert gap == (name == "0001.dcm")


def test_the_state_tells_folders_and_survives_any_name(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller")
    for name in (folder, str(tmp_path / "b")):
        os.mkdir(name)
        (Path(name) / "1.dcm").write_text("one")
        os.utime(Path(name) / "1.dcm", (0, 0))
    assert source_state(Path(folder)) != source_state(tmp_path / "b")
    write_study(Path(folder))
    with pytest.raises(HydropsError, match=r"M\\udcfcller: its name is not UTF-8"):
        scan_to_participants(tmp_path, PROTOCOL)


@pytest.mark.parametrize("name", ["Doe ", "Doe\tJ", "Doe\nJ"])
def test_a_folder_that_no_line_of_a_table_can_hold_is_named(tmp_path: Path, name: str) -> None:
    write_study(tmp_path / "dicom" / name)
    with pytest.raises(HydropsError, match=r"Doe.*its name ends in a blank or holds a tab"):
        scan_to_participants(tmp_path / "dicom", PROTOCOL)


def test_what_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_study(tmp_path / "dicom")
    before = source_state(source)
    scandir = os.scandir

    def denied(folder: str) -> object:
        if str(folder).endswith("0005_pei"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", denied)
    assert "cannot be read: permission denied" in reason(source, tmp_path / "out")
    assert source_state(source) != before
    _, messages = scan_to_participants(source, PROTOCOL)
    assert any("cannot be read" in message for message in messages)


@pytest.mark.parametrize(("slope", "refused"), [(1.0, False), (1.3, True)])
def test_a_philips_scanner_without_its_own_scale(
    tmp_path: Path, slope: float, refused: bool
) -> None:
    source = write_study(tmp_path / "dicom")
    for series, own in (("0004_mrc", 3.0), ("0005_pei", slope), ("0006_ppi", 1.0)):
        edit(
            (source / series).iterdir(),
            Manufacturer="Philips",
            RescaleSlope=own,
            RescaleIntercept=0.0,
        )
    if refused:
        assert "export them again with the private tags" in reason(source, tmp_path / "out")
    else:
        ingest_session(source, UNIT, PROTOCOL, tmp_path / "out")


def test_a_scale_that_all_frames_share_counts(tmp_path: Path) -> None:
    source = write_study(tmp_path / "dicom", enhanced=True)
    for series, slope in (("0005_pei", 1.3), ("0006_ppi", 1.0)):
        (path,) = (source / series).iterdir()
        header, scale = pydicom.dcmread(path), pydicom.Dataset()
        header.Manufacturer = "Philips"
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = slope, 0.0, "US"
        groups = header.SharedFunctionalGroupsSequence[0]
        groups.PixelValueTransformationSequence = pydicom.Sequence([scale])
        header.save_as(path)
    assert "export them again with the private tags" in reason(source, tmp_path / "out")


def test_why_a_conversion_failed_is_told_without_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(command: list[object], **_: object) -> subprocess.CompletedProcess[str]:
        said = f"Found 24\nWarning: Unsupported transfer syntax '{command[-1]}/00002.dcm'\nbye\n"
        return subprocess.CompletedProcess([], 1, said, "")

    monkeypatch.setattr("hydrops.ingest.subprocess.run", fails)
    found = reason(write_study(tmp_path / "dicom"), tmp_path / "out")
    assert "Unsupported transfer syntax 'file 3 of 24'" in found


@pytest.mark.parametrize(
    "values",
    [
        {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "SeriesDescription": "内耳"},
        {"SequenceName": "*spcir_für"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "M", "GRÖßE"]},
    ],
)
def test_words_in_other_letters_do_not_stop_a_conversion(
    tmp_path: Path, values: dict[str, object]
) -> None:
    source = write_study(tmp_path / "dicom")
    with pydicom.config.disable_value_validation():
        edit(source.rglob("*.dcm"), **values)
    ingest_session(source, UNIT, PROTOCOL, tmp_path / "out")
    sidecar = json.loads((tmp_path / "out/anat/sub-01_ses-1_acq-PPI_FLAIR.json").read_text())
    assert sidecar["InversionTime"] == pytest.approx(2.25)


@pytest.mark.parametrize(
    ("told", "words"), [("nothing", "codes are 0"), ("two things", "by its qform left is where")]
)
def test_a_nifti_that_does_not_tell_left_from_right_is_refused(
    tmp_path: Path, told: str, words: str
) -> None:
    source = write_nifti(tmp_path / "nifti")
    for path in source.glob("*.nii.gz"):
        image = nib.load(path)
        affine, data = image.affine, image.get_fdata(dtype=np.float32)
        turned = nib.Nifti1Image(data, affine)
        turned.set_sform(affine, code=0 if told == "nothing" else 1)
        turned.set_qform(np.diag([-1.0, 1, 1, 1]) @ affine, code=0 if told == "nothing" else 1)
        nib.save(turned, path)
    found = reason(source, tmp_path / "out")
    assert "image 1 of 3 by name: " in found
    assert words in found
