"""One case from the command line: labels in the image's own grid, landmarks where they are."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hydrops.arrays import Affine, FloatGrid
from hydrops.cli import main
from hydrops.errors import HydropsError
from hydrops.files import names_told_apart
from hydrops.images import ball_around, crop_affine, majority_labels, save_image
from hydrops.labels import ORGANS, SIDES, perilymph_code
from hydrops.model.bundle import find_bundle
from hydrops.model.ct import CtFinding
from hydrops.model.geometry import CROP_SHAPE
from hydrops.model.segmenter import EarSegmentation, segment_ear
from hydrops.model.timing import timing_doubt, write_timing
from hydrops.phantom.anatomy import draw_ear, draw_hydrops
from hydrops.phantom.head import Head, draw_head, render, scanner_affine, truth_fractions
from hydrops.phantom.signal import MRC, PEI, PPI
from hydrops.single import markups, paint, segment_files
from places import REPOSITORY

PAIRED = find_bundle(REPOSITORY / "models", "paired_unet3d")
#: A slab around the ears: 120 x 60 x 36 mm.
SHAPE = (200, 100, 36)


def a_head() -> Head:
    rng = np.random.default_rng(11)
    ears = [draw_ear(rng, side, draw_hydrops(rng, 0.6)) for side in ("left", "right")]
    return draw_head(rng, *ears)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """MRC and HYDROPS-Mi2, stored as a scanner stores them: back to front, in voxels of its own."""
    folder = tmp_path_factory.mktemp("case")
    head, rng = a_head(), np.random.default_rng(3)
    affine = scanner_affine(SHAPE, (0.6, 0.6, 1.0))
    mrc, ppi, pei = (render(head, s, SHAPE, affine, rng) for s in (MRC, PPI, PEI))
    paths = [folder / f"{name}.nii.gz" for name in ("mrc", "mi2")]
    mi2: FloatGrid = np.asarray((ppi - pei) * mrc, np.float32)
    save_image(paths[0], mrc, affine)
    save_image(paths[1], mi2, affine)
    return paths


def test_both_ears_are_labelled_in_the_images_own_grid(images: list[Path], tmp_path: Path) -> None:
    written = segment_files(images, PAIRED, tmp_path)
    assert [p.name for p in written] == [
        "mrc_dseg.nii.gz", "mrc_landmarks.json", "mrc_landmarks.mrk.json", "mrc_measures.json",
    ]  # fmt: skip
    assert sorted(tmp_path.iterdir()) == sorted(written)
    source, labels = nib.load(images[0]), nib.load(written[0])
    assert labels.shape == source.shape
    assert np.allclose(labels.affine, source.affine)
    codes = np.asarray(labels.dataobj)
    assert set(np.unique(codes)) == set(range(7))
    head = a_head()
    truth = {side: sum(v[0] for k, v in head.ears[side].volumes_mm3().items() if k != "labyrinth")
             for side in head.ears}  # fmt: skip
    x = np.argwhere(codes > 0)[:, 0]
    halves = [(x >= SHAPE[0] / 2).sum() * 0.36, (x < SHAPE[0] / 2).sum() * 0.36]
    assert halves == pytest.approx([truth["left"], truth["right"]], rel=0.15)
    # Labels are majorities, and thin canals fill less than half of a voxel, in truth as well.
    drawn = [truth_fractions(head, side, SHAPE, source.affine) for side in SIDES]
    labelled = [(majority_labels(fractions[1:]) > 0).sum() * 0.36 for fractions in drawn]
    assert halves == pytest.approx(labelled, rel=0.06)
    volumes = json.loads(written[3].read_text())["ears"]
    for side in SIDES:
        assert volumes[side]["labyrinth"]["tfs_mm3"] == pytest.approx(truth[side], rel=0.04)
    found = json.loads(written[1].read_text())
    for side in ("left", "right"):
        for name, point in head.landmarks(side).items():
            if name in found[side]:
                assert np.linalg.norm(np.array(found[side][name]["ras_mm"]) - point) < 1.5
    points = json.loads(written[2].read_text())["markups"][0]
    assert points["coordinateSystem"] == "RAS"
    assert points["controlPoints"][0]["label"] == "left helicotrema"


def test_ppi_and_pei_stand_for_hydrops_though_the_head_has_moved(
    images: list[Path], tmp_path: Path
) -> None:
    head, rng = a_head(), np.random.default_rng(4)
    affine = nib.load(images[0]).affine
    motion = np.eye(4)
    motion[:3, 3] = (0.6, -0.4, 0.5)
    given = [images[0]]
    for sequence in (PPI, PEI):
        given.append(tmp_path / f"{sequence.name}.nii.gz")
        save_image(given[-1], render(head, sequence, SHAPE, affine, rng, motion), affine)
        write_timing(sequence, tmp_path / f"{sequence.name}.json")
    labels, product = (
        np.asarray(nib.load(segment_files(chosen, PAIRED, tmp_path / name)[0]).dataobj)
        for chosen, name in ((given, "pair"), (images, "product"))
    )
    endolymph, known = (np.isin(codes, (2, 4, 6)) for codes in (labels, product))
    assert 2 * (endolymph & known).sum() > 0.85 * (endolymph.sum() + known.sum())
    strangers = [*given[:2], tmp_path / "other.nii.gz"]
    save_image(strangers[2], rng.normal(0.1, 0.01, SHAPE).astype(np.float32), affine)
    with pytest.raises(HydropsError, match=r"other\.nii\.gz"):
        segment_files(strangers, PAIRED, tmp_path / "strangers")
    (tmp_path / "PEI.json").write_text("[2.05", encoding="utf-8")
    with pytest.raises(HydropsError, match=r"PEI\.json: not a readable sidecar"):
        segment_files(given, PAIRED, tmp_path / "cut")
    (tmp_path / "PEI.json").write_text('{"InversionTime": [2.05]}', encoding="utf-8")
    with pytest.raises(HydropsError, match=r"its InversionTime is \[2\.05\]"):
        segment_files(given, PAIRED, tmp_path / "list")


def test_a_ppi_that_kept_its_sign_is_refused(images: list[Path], tmp_path: Path) -> None:
    head, rng = a_head(), np.random.default_rng(4)
    affine, given = nib.load(images[0]).affine, [images[0]]
    for sequence in (replace(PPI, real=True), PEI):
        given.append(tmp_path / f"{sequence.name}.nii.gz")
        save_image(given[-1], render(head, sequence, SHAPE, affine, rng), affine)
    with pytest.raises(HydropsError, match=r"PPI\.nii\.gz has negative values .*real image"):
        segment_files(given, PAIRED, tmp_path / "out")


def test_hydrops_of_the_other_sign_is_refused(images: list[Path], tmp_path: Path) -> None:
    turned, image = tmp_path / "turned.nii.gz", nib.load(images[1])
    save_image(turned, -np.asarray(image.dataobj, np.float32), image.affine)
    with pytest.raises(HydropsError, match="CSF should be negative in HYDROPS"):
        segment_files([images[0], turned], PAIRED, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_mrc_alone_gives_no_endolymph(
    images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["segment", str(images[0]), "--output", str(tmp_path)]
    assert main([*arguments, "--models-dir", str(REPOSITORY / "models")]) == 0
    path = Path(capsys.readouterr().out.splitlines()[0])
    assert set(np.unique(np.asarray(nib.load(path).dataobj))) == {0, 1, 3, 5}


def test_an_ear_that_is_refused_is_left_out_with_a_warning(
    images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No gadolinium has reached the left one: HYDROPS is as dark there as in the CSF."""
    image, dark = nib.load(images[1]), tmp_path / "dark.nii.gz"
    mi2 = np.asarray(image.dataobj, np.float32)
    mi2[SHAPE[0] // 2 :] = -np.abs(mi2[SHAPE[0] // 2 :])
    save_image(dark, mi2, image.affine)
    written = segment_files([images[0], dark], PAIRED, tmp_path / "out")
    assert "not measured: left ear: hardly any gadolinium" in caplog.text
    assert list(json.loads(written[1].read_text())) == ["right"]
    kept = json.loads(written[-1].read_text())["warnings"]
    assert [warning for warning in kept if warning.startswith("not measured: left ear")] == kept
    assert kept
    found = np.asarray(nib.load(written[0]).dataobj) > 0
    assert found[: SHAPE[0] // 2].any()
    assert not found[SHAPE[0] // 2 :].any()
    save_image(dark, -np.abs(mi2), image.affine)
    with pytest.raises(HydropsError, match=r"left ear: hardly any .*; right ear: hardly any"):
        segment_files([images[0], dark], PAIRED, tmp_path / "neither")
    assert not (tmp_path / "neither").exists()


def test_mistakes_are_told_and_nothing_is_written(images: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(HydropsError, match="takes MRC"):
        segment_files([*images, *images], PAIRED, output)
    noise = tmp_path / "noise.nii.gz"
    values = np.random.default_rng(0).normal(100, 5, (60, 60, 30)).astype(np.float32)
    save_image(noise, values, np.diag([0.6, 0.6, 1.0, 1.0]))
    with pytest.raises(HydropsError, match="no inner ear"):
        segment_files([noise], PAIRED, output)
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(images[0].read_bytes()[:1000])
    with pytest.raises(HydropsError, match=r"cut\.nii\.gz: not a readable .*cut off"):
        segment_files([cut], PAIRED, output)
    with pytest.raises(HydropsError, match="a folder, not an image"):
        segment_files([tmp_path], PAIRED, output)
    assert not output.exists()


def test_a_ct_that_is_given_to_a_model_of_mr_is_called_one(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(0.0, 400.0, (40, 40, 40))
    values[:10] = -1000.0
    save_image(tmp_path / "ct.nii.gz", values.astype(np.int16), np.diag([0.5, 0.5, 0.5, 1.0]))
    with pytest.raises(HydropsError, match=r"If it is a CT, name a model of CT"):
        segment_files([tmp_path / "ct.nii.gz"], PAIRED, tmp_path / "out")


COLOUR = np.dtype([(channel, "u1") for channel in "RGB"])


@pytest.mark.parametrize(
    ("kind", "spacing_mm", "unit", "told"),
    [
        (COLOUR, 0.6, "mm", "colours or complex numbers"),
        (np.complex64, 0.6, "mm", "colours or complex numbers"),
        (np.int16, 0.6, "micron", "lengths in microns; store it in mm"),
        (np.int16, 60.0, "mm", "voxels of 60 x 60 x 60 mm and sides of"),
        (np.int16, 9.0, "mm", "and sides of 1080 x"),
    ],
)
@pytest.mark.parametrize("model", ["paired_unet3d", "joint_unet3d_ct"])
def test_what_is_no_scan_of_a_head_is_refused(
    kind: np.dtype, spacing_mm: float, unit: str, told: str, model: str, tmp_path: Path
) -> None:
    image = nib.Nifti1Image(np.ones((120, 20, 20), kind), np.diag([spacing_mm] * 3 + [1.0]))
    image.header.set_xyzt_units(unit)
    if kind is np.int16:
        np.asanyarray(image.dataobj)[5:] = 7
    path = tmp_path / "odd.nii.gz"
    nib.save(image, path)
    with pytest.raises(HydropsError, match=rf"odd\.nii\.gz: .*{told}"):
        segment_files([path], find_bundle(REPOSITORY / "models", model), tmp_path / "out")


def test_markups_number_the_points_of_all_ears() -> None:
    point = {"ras_mm": [1.0, 2.0, 3.0], "confidence": 0.9}
    made = markups({"left": {"helicotrema": point}, "right": {"oval_window": point}})
    points = made["markups"][0]["controlPoints"]
    assert [p["id"] for p in points] == ["1", "2"]
    assert points[1] == {
        "id": "2", "label": "right oval_window", "description": "confidence 0.90",
        "position": [1.0, 2.0, 3.0],
    }  # fmt: skip


def test_a_real_ear_is_found_however_its_head_is_turned(shared_data: Path, tmp_path: Path) -> None:
    image = nib.load(shared_data / "inner-ear-t2" / "left.nii.gz")
    bundle = find_bundle(REPOSITORY / "models", "joint_unet3d")
    found = []
    for axis, degrees in (("x", 0.0), ("x", 15.0), ("y", -10.0)):
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
        nib.save(nib.Nifti1Image(image.dataobj, turn @ image.affine), tmp_path / "turned.nii.gz")
        label, marks, *_ = segment_files([tmp_path / "turned.nii.gz"], bundle, tmp_path)
        assert list(json.loads(marks.read_text())) == ["left"]
        found.append(np.asarray(nib.load(label).dataobj) > 0)
    for turned in found[1:]:
        assert turned.sum() == pytest.approx(found[0].sum(), rel=0.03)
        assert 2 * (turned & found[0]).sum() > 0.9 * (turned.sum() + found[0].sum())


def test_a_head_that_may_lie_either_way_is_refused(images: list[Path], tmp_path: Path) -> None:
    untold = tmp_path / "untold.nii.gz"
    image = nib.Nifti1Image(np.asarray(nib.load(images[0]).dataobj), None)
    image.header.set_zooms((0.6, 0.6, 1.0))
    nib.save(image, untold)
    with pytest.raises(HydropsError, match=r"untold\.nii\.gz: .*left cannot be told from right"):
        segment_files([untold], PAIRED, tmp_path / "out")
    with pytest.raises(HydropsError, match="left cannot be told from right"):
        segment_files([images[0], untold], PAIRED, tmp_path / "out")


def test_an_ear_that_is_not_recognised_is_said(
    images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Around the left ear there is no signal, as beside an implant."""
    image = nib.load(images[0])
    values = np.asarray(image.dataobj, np.float32).copy()
    place = np.linalg.inv(image.affine) @ [*a_head().to_scanner(a_head().places["left"]), 1.0]
    away = (np.indices(SHAPE).T - place[:3]) * (0.6, 0.6, 1.0)
    values[np.linalg.norm(away, axis=-1).T < 14.0] = 0.0
    save_image(tmp_path / "void.nii.gz", values, image.affine)
    _, marks, *_ = segment_files([tmp_path / "void.nii.gz"], PAIRED, tmp_path)
    assert list(json.loads(marks.read_text())) == ["right"]
    assert "the left inner ear cannot be recognised in the MRC, though the right" in caplog.text


def test_the_ratio_of_each_ear_is_said(
    images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    kept = json.loads(segment_files(images, PAIRED, tmp_path)[-1].read_text())
    assert kept["model"] == PAIRED.identifier
    assert kept["label_codes"]["2"] == "cochlea_els"
    for side, ear in a_head().ears.items():
        words = rf"{side} ear: EH volume ratio [\d.]+ \(([\d.]+) to ([\d.]+)\)"
        told = re.search(words, caplog.text)
        assert told is not None
        low, high = map(float, told.groups())
        assert low <= ear.ratios()["labyrinth"] <= high
        measured = kept["ears"][side]
        whole = measured["labyrinth"]
        assert whole["ci_low"] <= whole["eh_volume_ratio"] <= whole["ci_high"]
        assert [whole["ci_low"], whole["ci_high"]] == pytest.approx([low, high], abs=0.006)
        for kind in ("tfs_mm3", "els_mm3"):
            organs = [measured[organ][kind] for organ in ORGANS]
            assert sum(organs) == pytest.approx(whole[kind], abs=0.2)
        total = sum(fluid for fluid, _ in list(ear.volumes_mm3().values())[:3])
        assert whole["tfs_mm3"] == pytest.approx(total, rel=0.1)


def test_endolymph_that_the_ppi_does_not_null_is_said(
    images: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def segmented(*given: Any) -> EarSegmentation:
        return replace(segment_ear(*given), nulled=given[3] == "left")

    monkeypatch.setattr("hydrops.single.segment_ear", segmented)
    segment_files(images, PAIRED, tmp_path)
    assert "right ear: the PPI does not null its endolymph" in caplog.text
    assert "left ear: the PPI" not in caplog.text


def test_blurred_images_are_said(
    images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    smooth = []
    for path in images:
        image = nib.load(path)
        values = np.asarray(image.dataobj, np.float32)
        smooth.append(tmp_path / path.name)
        save_image(smooth[-1], ndimage.gaussian_filter(values, 0.55), image.affine)
    segment_files(images, PAIRED, tmp_path / "sharp")
    assert "more blurred than their voxels" not in caplog.text
    segment_files(smooth, PAIRED, tmp_path / "smooth")
    for side in SIDES:
        assert f"{side} ear: the images are more blurred than their voxels tell" in caplog.text


class Ears:
    """A model of CT that finds what it is told to."""

    def __init__(
        self, *masks: npt.NDArray[np.bool_], confidence: float = 0.5, between_mm: float = 2.8
    ) -> None:
        self.masks, self.confidence, self.between_mm = masks, confidence, between_mm

    def find_all(self, _image: FloatGrid, _affine: Affine) -> list[CtFinding]:
        windows = {
            "oval_window": [7.0, 2.0, 3.0],
            "round_window": [7.0, 2.0 + self.between_mm, 3.0],
        }
        marks = {"helicotrema": [1.0, 2.0, 3.0], **windows}
        sure = dict.fromkeys(windows, 0.9)
        return [
            CtFinding(
                {"joint": mask.astype(np.float32)},
                marks,
                {"helicotrema": self.confidence, **sure},
                100.0,
            )
            for mask in self.masks
        ]


def ball(shape: tuple[int, int, int], *middle: int) -> npt.NDArray[np.bool_]:
    return ball_around(np.array(middle), 4.0, shape, np.eye(4))


def on_ct(folder: Path, model: Ears, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("hydrops.model.ct_package.load_ct_bundle", lambda *_: model)
    values = np.random.default_rng(0).random(model.masks[0].shape).astype(np.float32)
    save_image(folder / "ct.nii.gz", values, np.eye(4))
    bundle = find_bundle(REPOSITORY / "models", "joint_unet3d_ct")
    _, marks, *_ = segment_files([folder / "ct.nii.gz"], bundle, folder)
    return list(json.loads(marks.read_text()))


def test_warnings_of_every_part_of_the_library_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Doubtful(Ears):
        def find_all(self, image: FloatGrid, affine: Affine) -> list[CtFinding]:
            logging.getLogger("hydrops.model.ct").warning("hardly an ear")
            logging.getLogger("hydrops.model.ct").info("an ear")
            logging.getLogger("elsewhere").warning("of something else")
            return super().find_all(image, affine)

    on_ct(tmp_path, Doubtful(ball((40, 40, 40), 20, 20, 20)), monkeypatch)
    kept = json.loads((tmp_path / "ct_measures.json").read_text())["warnings"]
    assert kept == ["hardly an ear"]


def test_an_ear_of_a_ct_that_is_cut_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shape = (40, 40, 40)
    assert on_ct(tmp_path, Ears(ball(shape, 20, 20, 20)), monkeypatch) == ["ear"]
    assert "cut by the edge" not in caplog.text
    on_ct(tmp_path, Ears(ball(shape, 1, 20, 20)), monkeypatch)
    assert "ear: the labyrinth is cut by the edge of the image" in caplog.text
    assert "ct_dseg.nii.gz: was there before, and is replaced" in caplog.text


def test_what_of_an_ear_of_a_ct_may_be_wrong_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usual = ball((40, 40, 40), 20, 20, 20)
    on_ct(tmp_path, Ears(usual), monkeypatch)
    assert not caplog.text
    assert json.loads((tmp_path / "ct_measures.json").read_text())["warnings"] == []
    on_ct(tmp_path, Ears(usual, confidence=0.1), monkeypatch)
    assert "ear: helicotrema may be a wrong place (confidence below 0.35)" in caplog.text
    on_ct(tmp_path, Ears(ball_around(np.full(3, 20.0), 3.0, (40, 40, 40), np.eye(4))), monkeypatch)
    assert "ear: 123 mm3" not in caplog.text
    on_ct(tmp_path, Ears(ball_around(np.full(3, 20.0), 2.0, (40, 40, 40), np.eye(4))), monkeypatch)
    assert "ear: 33 mm3 is not what a labyrinth holds (120 to 350 mm3)" in caplog.text
    assert "are the voxels of 1 x 1 x 1 mm those of the scanner" in caplog.text
    on_ct(tmp_path, Ears(usual, between_mm=0.8), monkeypatch)
    words = "oval window and round window 0.8 mm apart, usually 2 to 3.7"
    assert words in caplog.text
    kept = json.loads((tmp_path / "ct_measures.json").read_text())["warnings"]
    assert sum(words in warning for warning in kept) == 1


def test_two_ears_of_a_ct_are_left_and_right_where_they_lie_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (100, 100, 20)
    across = Ears(ball(shape, 90, 50, 10), ball(shape, 15, 50, 10))
    assert on_ct(tmp_path, across, monkeypatch) == ["right", "left"]
    along = Ears(ball(shape, 50, 90, 10), ball(shape, 50, 15, 10))
    assert on_ct(tmp_path, along, monkeypatch) == ["first", "second"]


def test_the_models_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["models"]) == 0
    assert "paired_unet3d-" in capsys.readouterr().out
    assert main(["models", "--models-dir", str(tmp_path)]) == 1
    assert "name the folder of the models by --models-dir" in capsys.readouterr().err
    (tmp_path / "models").mkdir()
    assert main(["segment", "x.nii.gz"]) == 1
    assert "no model called paired_unet3d" in capsys.readouterr().err


def test_an_ear_cut_by_the_edge_is_left_out_and_said_so(
    images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The image ends 3 mm beside the right ear's middle: what is left looks like an ear."""
    mrc = nib.load(images[0])
    middle = a_head().to_scanner(a_head().places["right"])
    voxel = np.linalg.inv(mrc.affine) @ [*middle, 1.0]
    place, reach = round(float(voxel[0])), round(3.0 / 0.6)
    last = voxel[0] > SHAPE[0] / 2
    kept = slice(0, place + reach) if last else slice(place - reach, SHAPE[0])
    nib.save(mrc.slicer[kept], tmp_path / "cut.nii.gz")
    _, marks, *_ = segment_files([tmp_path / "cut.nii.gz"], PAIRED, tmp_path)
    assert list(json.loads(marks.read_text())) == ["left"]
    assert "right ear: the labyrinth is cut by the edge of the image" in caplog.text


def test_landmarks_of_another_model_do_not_stay_beside_a_label(
    images: list[Path], tmp_path: Path
) -> None:
    stale = [tmp_path / f"mrc_landmarks{end}" for end in (".json", ".mrk.json")]
    for path in stale:
        path.write_text("{}")
    without = find_bundle(REPOSITORY / "models", "inhearit")
    written = [p.name for p in segment_files(images[:1], without, tmp_path)]
    assert written == ["mrc_dseg.nii.gz", "mrc_measures.json"]
    found = json.loads((tmp_path / written[1]).read_text())["ears"]
    assert set(found["left"]) == set(found["right"]) == {"cochlea", "vestibule"}
    assert not any(path.exists() for path in stale)


@pytest.mark.parametrize(
    "words", ["DefaultCPUAllocator: can't allocate memory", "CUDA out of memory. Tried to"]
)
def test_that_there_is_no_memory_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr("hydrops.single.segment_files", full)
    models = str(REPOSITORY / "models")
    assert main(["segment", "x.nii.gz", "--models-dir", models]) == 1
    assert (
        capsys.readouterr().err
        == "error: out of memory; free some, or cut the image to what matters\n"
    )


def test_a_folder_that_cannot_be_written_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    cohort = str(REPOSITORY / "config" / "phantom.yaml")
    assert main(["phantom", cohort, str(tmp_path / "file")]) == 1
    assert "Not a directory" in capsys.readouterr().err


def test_images_of_one_name_are_told_apart_by_their_folders() -> None:
    assert names_told_apart([Path("ppi/a.nii"), Path("pei/b.nii")]) == ["a.nii", "b.nii"]
    assert names_told_apart([Path("ppi/a.nii"), Path("pei/a.nii")]) == ["ppi/a.nii", "pei/a.nii"]


def test_hydrops_mi2_that_does_not_lie_on_its_mrc_is_refused(
    images: list[Path], tmp_path: Path
) -> None:
    mi2 = nib.load(images[1])
    values = np.asarray(mi2.dataobj, np.float32)
    for shift, told in ((0.6, r"lies 0\.[5-7] mm beside the MRC"), (150.0, "does not cover it")):
        affine = mi2.affine.copy()
        affine[1, 3] += shift
        save_image(tmp_path / "moved.nii.gz", values, affine)
        with pytest.raises(HydropsError, match=rf"left ear: moved\.nii\.gz {told}"):
            segment_files([images[0], tmp_path / "moved.nii.gz"], PAIRED, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (np.abs, "no negative values"),
        (lambda mi2: np.maximum(mi2, 0.0), "no negative values"),
        (lambda mi2: mi2 - mi2.min() + 1.0, "no negative values"),
    ],
)
def test_hydrops_mi2_without_its_sign_is_refused(
    images: list[Path], tmp_path: Path, change: Callable[[FloatGrid], FloatGrid], told: str
) -> None:
    mi2 = nib.load(images[1])
    save_image(tmp_path / "odd.nii.gz", change(np.asarray(mi2.dataobj, np.float32)), mi2.affine)
    with pytest.raises(HydropsError, match=rf"odd\.nii\.gz has {told}"):
        segment_files([images[0], tmp_path / "odd.nii.gz"], PAIRED, tmp_path / "out")
    with pytest.raises(HydropsError, match="is the same image as the MRC"):
        segment_files([images[0], images[0]], PAIRED, tmp_path / "out")


def test_a_normalised_mrc_is_refused(images: list[Path], tmp_path: Path) -> None:
    mrc = nib.load(images[0])
    values = np.asarray(mrc.dataobj, np.float32)
    save_image(tmp_path / "scaled.nii.gz", 2.0 * values / values.max() - 1.0, mrc.affine)
    with pytest.raises(HydropsError, match=r"scaled\.nii\.gz: the MRC has negative values"):
        segment_files([tmp_path / "scaled.nii.gz"], PAIRED, tmp_path / "out")


def test_a_head_that_is_mirrored_between_its_forms_is_refused(
    images: list[Path], tmp_path: Path
) -> None:
    mrc = nib.load(images[0])
    image = nib.Nifti1Image(np.asarray(mrc.dataobj), mrc.affine)
    image.set_qform(np.diag([-1.0, 1.0, 1.0, 1.0]) @ mrc.affine, code=1)
    nib.save(image, tmp_path / "both.nii.gz")
    with pytest.raises(HydropsError, match=r"both\.nii\.gz: by its qform left is where right is"):
        segment_files([tmp_path / "both.nii.gz"], PAIRED, tmp_path / "out")


def test_a_case_that_cannot_be_written_leaves_the_one_before(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in segment_files(images[:1], PAIRED, tmp_path)}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(HydropsError, match="No space left on device"):
        segment_files(images[:1], PAIRED, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_case_that_is_interrupted_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hydrops.single.segment_files", stopped)
    assert main(["segment", "x.nii.gz", "--models-dir", str(REPOSITORY / "models")]) == 130
    assert capsys.readouterr().err.startswith("stopped")


def test_thin_canals_stay_whole_in_finer_voxels() -> None:
    """A tube that fills a third of the crop's voxels along it, and an organ that fills its own."""
    fractions = np.zeros((7, *CROP_SHAPE), np.float32)
    canal, vestibule = (perilymph_code(o) for o in ("semicircular_canals", "vestibule"))
    fractions[canal, 20:30, 20:22, 12] = 0.35
    fractions[vestibule, 34:40, 20:26, 12:15] = 1.0
    fractions[0] = 1.0 - fractions[1:].sum(0)
    grid = crop_affine((0.0, 0.0, 0.0), np.eye(4))
    fine = grid @ np.diag([0.5, 0.5, 0.25, 1.0])
    shape = tuple(n * k for n, k in zip(CROP_SHAPE, (2, 2, 4)))
    labels = np.zeros(shape, np.uint8)
    paint(labels, fine, fractions, grid)
    voxel = 1.0 / 16
    volumes = [(labels == code).sum() * voxel for code in (canal, vestibule)]
    assert volumes == pytest.approx([20 * 0.35, 108.0], rel=0.1)
    assert ndimage.label(labels == canal, np.ones((3, 3, 3)))[1] == 1
    coarse = np.zeros(CROP_SHAPE, np.uint8)
    paint(coarse, grid, fractions, grid)
    assert not (coarse == canal).any()


def test_sidecars_that_are_not_gone_by_are_said(tmp_path: Path) -> None:
    ppi, pei = tmp_path / "ppi.json", tmp_path / "pei.json"
    assert timing_doubt(ppi, pei) is None
    write_timing(PPI, ppi)
    told = timing_doubt(ppi, pei)
    assert told is not None
    assert told.startswith("pei.json: tells no ")
    write_timing(PEI, pei)
    assert timing_doubt(ppi, pei) is None
    for path, sequence in ((ppi, PPI), (pei, PEI)):
        write_timing(replace(sequence, ti_ms=1000.0 * sequence.ti_ms), path)
    told = timing_doubt(ppi, pei)
    assert told is not None
    assert "are they in seconds?" in told
