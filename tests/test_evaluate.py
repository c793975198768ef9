"""Location and evaluation on a simulated head whose truth is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from nibabel.affines import apply_affine

from ears import MODEL
from hydrops.arrays import Affine
from hydrops.errors import ExcludedError
from hydrops.images import (
    affine_of,
    crop_affine,
    load_image,
    save_image,
    spacing_mm,
    write_itk_transform,
)
from hydrops.labels import LANDMARKS, SIDES
from hydrops.locate import LocateOptions, locate_session
from hydrops.measure import load_fractions
from hydrops.model.bundle import Bundle
from hydrops.model.contrast import USUAL_PAIR
from hydrops.model.evaluate import UNIT, _compare, _signals, draw_heads
from hydrops.model.geometry import CROP_SHAPE
from hydrops.model.segmenter import Segmenter
from hydrops.model.train import TrainOptions
from hydrops.model.unmix import FluidSignal
from hydrops.paths import SUM_MI2, Paths
from hydrops.phantom.anatomy import draw_ear, draw_hydrops
from hydrops.phantom.cohort import Examination, examine
from hydrops.phantom.head import truth_fractions
from hydrops.records import Record, write_record
from hydrops.register import MRC_WEIGHT, mrc_weight
from places import REPOSITORY

BUNDLE = Bundle("net", "1.0.0", Path("models"), "", {})


@pytest.fixture(scope="module")
def examination() -> Examination:
    rng = np.random.default_rng(8)
    left, right = (draw_ear(rng, side, draw_hydrops(rng, 0.6)) for side in SIDES)
    return near_the_ears(examine(rng, left, right))


def near_the_ears(examination: Examination) -> Examination:
    """The part of its images within 20 mm of either ear along each axis."""
    head, affine = examination.head, examination.affine
    middles = [head.to_scanner(place) for place in head.places.values()]
    voxels = apply_affine(np.linalg.inv(affine), np.array(middles))
    reach = 20.0 / spacing_mm(affine)
    low, high = voxels.min(0) - reach, voxels.max(0) + reach
    box = tuple(slice(max(0, int(a)), int(b)) for a, b in zip(low, high))
    images = {role: image[box] for role, image in examination.images.items()}
    return replace(examination, images=images, affine=affine_of(box, affine))


def leave_truth(examination: Examination, side: str, place: str, paths: Paths) -> None:
    """Leave the true fractions around one ear's place as what was found of another."""
    head = examination.head
    centre = head.to_scanner(head.places[place])
    grid = crop_affine(centre.tolist(), examination.affine)
    truth = truth_fractions(head, place, CROP_SHAPE, grid)
    # A hair less, so that what fills exactly half of a voxel is no majority when it is rounded.
    stored = np.round(np.moveaxis(truth, 0, -1) * 254).astype(np.uint8)
    save_image(paths.segmentation(UNIT, side, "probseg", MODEL), stored, grid, slope=1 / 255)
    marks = head.landmarks(place)
    told = {name: {"ras_mm": marks[name].tolist(), "confidence": 1.0} for name in LANDMARKS}
    paths.landmarks(UNIT, side, MODEL).write_text(json.dumps(told))


def measured(examination: Examination, side: str, place: str, folder: Path) -> dict[str, float]:
    paths = Paths(folder)
    images = examination.images
    save_image(paths.image(UNIT, "MRC"), images["MRC"], examination.affine)
    mi2 = (images["PPI"] - images["PEI"]) * images["MRC"]
    save_image(paths.registered(UNIT, "HYDROPSMi2"), mi2, examination.affine)
    leave_truth(examination, side, place, paths)
    ear = examination.head.ears[side]
    row, cut = _compare(examination, ear, UNIT, side, paths, BUNDLE)
    assert cut["tfs_true"].any()
    return row


@pytest.mark.parametrize("side", SIDES)
def test_the_truth_is_found_to_be_true(examination: Examination, side: str, tmp_path: Path) -> None:
    row = measured(examination, side, side, tmp_path)
    assert row["tfs_dice"] > 0.98
    assert row["els_dice"] > 0.97
    assert row["tfs_hausdorff_mm"] <= 1.01
    assert row["ratio_error"] < 0.005
    assert row["landmark_max_mm"] < 0.01
    assert row["tfs_mm3"] == pytest.approx(row["tfs_mm3_true"], rel=0.02)
    for organ in ("cochlea", "vestibule", "semicircular_canals"):
        assert row[f"{organ}_ratio"] == pytest.approx(row[f"{organ}_ratio_true"], abs=0.01)
    for organ in ("cochlea", "vestibule"):
        for area in ("area", "area_given"):
            assert row[f"{organ}_{area}"] == pytest.approx(row[f"{organ}_area_true"], abs=0.02)


def test_the_other_ear_is_found_to_be_wrong(examination: Examination, tmp_path: Path) -> None:
    row = measured(examination, "left", "right", tmp_path)
    assert row["tfs_dice"] == 0.0
    assert row["els_dice"] == 0.0
    assert row["landmark_mm"] > 50.0


def test_endolymph_taken_for_perilymph_is_an_error_of_the_ratio(
    examination: Examination, tmp_path: Path
) -> None:
    paths = Paths(tmp_path)
    whole = measured(examination, "left", "left", tmp_path)
    path = paths.segmentation(UNIT, "left", "probseg", MODEL)
    fractions, grid = load_fractions(path)
    swapped = np.moveaxis(fractions[[0, 2, 1, 4, 3, 6, 5]], 0, -1)
    save_image(path, np.round(swapped * 255).astype(np.uint8), grid, slope=1 / 255)
    ear = examination.head.ears["left"]
    row, _ = _compare(examination, ear, UNIT, "left", paths, BUNDLE)
    assert row["tfs_dice"] == pytest.approx(whole["tfs_dice"])
    assert row["els_dice"] < 0.2
    assert row["ratio"] == pytest.approx(1.0 - whole["ratio"], abs=0.01)


def test_what_was_found_changes_no_true_area(examination: Examination, tmp_path: Path) -> None:
    """Organs that lie 2 mm elsewhere, on the slices that the true ones choose."""
    paths = Paths(tmp_path)
    whole = measured(examination, "left", "left", tmp_path)
    path = paths.segmentation(UNIT, "left", "probseg", MODEL)
    fractions, grid = load_fractions(path)
    aside = np.moveaxis(np.roll(fractions, 4, axis=1), 0, -1)
    save_image(path, np.round(aside * 255).astype(np.uint8), grid, slope=1 / 255)
    row, _ = _compare(examination, examination.head.ears["left"], UNIT, "left", paths, BUNDLE)
    for organ in ("cochlea", "vestibule"):
        for area in ("area_true", "area_3_true"):
            assert row[f"{organ}_{area}"] == whole[f"{organ}_{area}"]
        assert abs(row[f"{organ}_area_given"] - whole[f"{organ}_area_given"]) > 0.05


def motion_of(examination: Examination, role: str) -> Affine:
    """Where a point of the MRC lies in another image of a head that has moved about its middle."""
    centre = np.eye(4)
    centre[:3, 3] = examination.head.pose[:3, 3]
    return np.asarray(centre @ examination.motions[role] @ np.linalg.inv(centre))


def hydrops_of_crops(
    examination: Examination, combination: str, folder: Path
) -> dict[str, tuple[float, float]]:
    """Share of full perilymph that is positive, and of full endolymph that is negative, by side."""
    paths = Paths(folder)
    for role, image in examination.images.items():
        save_image(paths.image(UNIT, role), image, examination.affine)
    paths.unit("register", UNIT).mkdir(parents=True, exist_ok=True)
    for role in ("PPI", "PEI"):
        write_itk_transform(paths.transform(UNIT, role), motion_of(examination, role))
    weight = mrc_weight(examination.images["MRC"], examination.images["PPI"])
    record = Record("register", "1", "1", "done", numbers={MRC_WEIGHT: weight})
    write_record(paths.record("register", UNIT), record)
    output = paths.unit("locate", UNIT)
    output.mkdir(parents=True)
    locate_session(UNIT, paths, LocateOptions(combination=combination), output)
    found = {}
    for side in SIDES:
        mi2, grid = load_image(paths.crop(UNIT, side, "HYDROPSMi2"))
        truth = truth_fractions(examination.head, side, mi2.shape, grid)
        perilymph, endolymph = (truth[first::2].sum(0) > 0.95 for first in (1, 2))
        found[side] = (float((mi2[perilymph] > 0).mean()), float((mi2[endolymph] < 0).mean()))
    return found


@pytest.mark.parametrize("combination", ["PPI-PEI", "MRC-PPI"])
def test_crops_bring_every_image_to_where_the_mrc_shows_the_ear(
    examination: Examination, combination: str, tmp_path: Path
) -> None:
    right = hydrops_of_crops(examination, combination, tmp_path / "right")
    for side in SIDES:
        assert min(right[side]) > 0.93, (side, right)


def test_crops_hang_on_the_transforms(examination: Examination, tmp_path: Path) -> None:
    """With those of a head that lay 2 mm elsewhere the fluids come apart from the truth."""
    elsewhere = np.eye(4)
    elsewhere[:3, 3] = [1.2, -1.2, 1.2]
    motions = {role: elsewhere @ motion for role, motion in examination.motions.items()}
    wrong = replace(examination, motions=motions)
    found = hydrops_of_crops(wrong, "PPI-PEI", tmp_path)
    assert all(min(found[side]) < 0.85 for side in SIDES), found


def test_an_ear_that_one_way_refuses_is_told_by_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HYDROPS alone may be too noisy or uneven where PPI and PEI together can be read."""
    paths = Paths(tmp_path)
    for role in ("MRC", "HYDROPSMi2", SUM_MI2):
        save_image(paths.crop(UNIT, "left", role), np.zeros((4, 4, 4), np.float32), np.eye(4))

    def segmented(*given: object) -> SimpleNamespace:
        if given[5] is None:
            raise ExcludedError("gadolinium has reached the vestibule far less")
        return SimpleNamespace(signal=FluidSignal(0.25, 0.1, 0.3), way="unfolded")

    for name, told in (("inversion_pair", USUAL_PAIR), ("scanned_voxel_mm", None), ("kept_of", 1)):
        monkeypatch.setattr(f"hydrops.model.evaluate.{name}", lambda *_, told=told: told)
    monkeypatch.setattr("hydrops.model.evaluate.segment_ear", segmented)
    segmenter = Segmenter(
        BUNDLE, torch.nn.Identity(), torch.device("cpu"), {}, None, False, (1, 1, 1), False
    )
    assert _signals(segmenter, UNIT, "left", paths) == {
        "unfolded_level": 0.25, "unfolded_noise": 0.1, "unfolded_network": 0.3,
        "unfolded_moved": 0.0,
    }  # fmt: skip


def test_no_head_of_an_evaluation_is_of_a_specimen_that_a_training_sees() -> None:
    config = yaml.safe_load((REPOSITORY / "config" / "config.yaml").read_text())
    tested = set(config["training"]["test_specimens"])
    seen = [
        TrainOptions.load(path).seen_specimens
        for path in (REPOSITORY / "config" / "models").glob("*.yaml")
        if "train_specimens" in path.read_text()
    ]
    assert len(seen) > 4
    assert not any(tested & set(names) for names in seen)


def test_heads_of_an_evaluation_are_of_the_specimens_named_and_no_training_draws_their_seeds(
    shared_data: Path,
) -> None:
    names = ["F05", "T02"]
    heads = draw_heads(shared_data / "bony-labyrinth", names, 3, 7_000_000)
    assert [head.kind for head in heads] == ["phantom"] * 3 + ["specimen"] * 3
    assert {name for head in heads[3:] for name in head.names} == set(names)
    assert len({head.seed for head in heads}) == 6
