"""Simulated crops, the network, training that can be killed, and bundles."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bundles import all_bundles, network_of
from hydrops.errors import HydropsError
from hydrops.labels import LABELS, LANDMARKS
from hydrops.model import simulate
from hydrops.model.architectures import find_architecture
from hydrops.model.bundle import (
    WEIGHTS,
    Bundle,
    find_bundle,
    read_bundle,
    verify_weights,
)
from hydrops.model.calibrate import CALIBRATED_MM, calibrate, fit_levels
from hydrops.model.course import Phase
from hydrops.model.evaluate import refuse_seen
from hydrops.model.geometry import FINE_SHAPE, FINE_SPACING_MM
from hydrops.model.losses import landmark_loss, ratio_loss, soft_dice_loss
from hydrops.model.network import DualHeadUNet, NetworkOptions, landmark_positions
from hydrops.model.package import publish_bundle, source_of, write_bundle, write_card
from hydrops.model.preprocess import prepare, quantile_by_sorting, quantile_one_by_one
from hydrops.model.release import release
from hydrops.model.segmenter import load_segmenter
from hydrops.model.simulate import Specimen
from hydrops.model.taught import taught_by, write_taught
from hydrops.model.train import (
    PairedTask,
    TrainOptions,
    make_pools,
    pool_folder,
    pool_jobs,
    train,
    trained_parts,
    validate,
)
from hydrops.model.unmix import LEAST_HEADS, WAYS, Calibration
from hydrops.phantom.anatomy import draw_ear
from places import REPOSITORY
from specimens import write_specimen


@pytest.fixture(scope="module")
def geometry() -> simulate.Geometry:
    rng = np.random.default_rng(1)
    return simulate.draw_geometry(draw_ear(rng, "right"), rng)


def test_a_crop_holds_the_whole_ear_and_no_voxel_more_than_itself(
    geometry: simulate.Geometry,
) -> None:
    fractions = geometry.fractions / 255.0
    assert fractions.sum(0).max() < 1.02
    fluid = fractions[:6].sum() * FINE_SPACING_MM**3
    assert 80 < fluid < 420
    assert (geometry.landmarks > 0).all()
    assert (geometry.landmarks < FINE_SHAPE[0]).all()


def test_nerve_canal_comes_close_to_the_ear_and_never_touches_it() -> None:
    rng = np.random.default_rng(4)
    fractions = simulate.draw_geometry(draw_ear(rng, "right"), rng).fractions
    fluid, canal = fractions[:6].sum(0) > 0, fractions[6] > 0
    assert canal.any()
    assert not (fluid & canal).any()


def test_landmarks_move_with_the_ear(geometry: simulate.Geometry) -> None:
    """Where an ear has a blob of fluid at a landmark, its crop has it there."""
    rng = np.random.default_rng(5)
    ear = draw_ear(rng, "right")
    axes = [np.arange(n) * ear.spacing_mm + o for n, o in zip(ear.labels.shape, ear.origin_mm)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    for number, name in enumerate(LANDMARKS):
        ball = np.linalg.norm(grid - ear.landmarks[name], axis=-1) < 0.8
        marked = dataclasses.replace(ear, labels=ball.astype(ear.labels.dtype))
        drawn = simulate.draw_geometry(marked, np.random.default_rng(6))
        share = drawn.fractions[0] / 255.0
        places = np.argwhere(share > 0)
        middle = (places * share[share > 0][:, None]).sum(0) / share.sum()
        # The crop is bent at random by about a quarter of a millimetre.
        assert np.linalg.norm(middle - drawn.landmarks[number]) * FINE_SPACING_MM < 0.8, name
    assert geometry.landmarks.shape == (len(LANDMARKS), 3)


def a_pool_of_balls() -> tuple[simulate.Pool, np.ndarray]:
    """One crop with a ball of fluid at each of three places, which are its landmarks."""
    places = np.array([[22.0, 40.0, 24.0], [40.0, 36.0, 36.0], [30.0, 22.0, 40.0]])
    axes = np.stack(np.meshgrid(*[np.arange(n) for n in FINE_SHAPE], indexing="ij"), -1)
    fractions = np.zeros((1, simulate.TISSUE_CHANNELS, *FINE_SHAPE), np.uint8)
    for organ, place in enumerate(places):
        inside = np.linalg.norm(axes - place, axis=-1) < 4.0
        fractions[0, 2 * organ][inside] = 255
    return simulate.Pool(fractions, places[None].astype(np.float32)), places


def test_image_target_and_landmarks_of_a_sample_lie_on_one_another(tiny: TrainOptions) -> None:
    pool, _ = a_pool_of_balls()
    options = dataclasses.replace(tiny, patch=(48, 48, 24))
    task = PairedTask(options, pool, pool)
    samples = task.samples(Phase(1, 1e-3, 0.3, 1.0), 0, 8)
    apart = []
    for index in range(8):
        image, target, points = (part.numpy() for part in samples[index])
        for organ in range(3):
            share = target[1 + 2 * organ]
            middle = np.array([(axis * share).sum() for axis in np.indices(share.shape)])
            middle /= share.sum()
            assert np.abs(middle - points[organ]).max() < 0.05
            near = tuple(slice(int(p) - 5, int(p) + 6) for p in points[organ])
            bright = np.clip(image[0][near], 0.0, None) * (target[0][near] < 0.9999)
            seen = np.array([(axis * bright).sum() for axis in np.indices(bright.shape)])
            apart.append(seen / bright.sum() + [side.start for side in near] - points[organ])
    # Noise and the residue of motion scatter what an image shows; on average it lies in place.
    assert np.abs(np.mean(apart, 0)).max() < 0.15


class Oracle(torch.nn.Module):
    """Gives what it was told, whatever it is shown."""

    def __init__(self, pool: simulate.Pool, swapped: bool) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        fractions = torch.from_numpy(pool.fractions[0]).float() / 255.0
        inside, points = simulate.onto_crop(fractions[:6], pool.landmarks[0])
        target = torch.cat([1.0 - inside.sum(0, keepdim=True), inside])
        target = target[[0, 2, 1, 4, 3, 6, 5]] if swapped else target
        # What fills exactly half of a voxel is no majority, here as in the truth.
        target[0] += 1e-4
        self.logits = target.clamp(1e-6, 1.0).log()[None]
        axes = torch.stack(torch.meshgrid(*map(torch.arange, inside.shape[1:]), indexing="ij"), -1)
        square = ((axes - torch.from_numpy(points)[:, None, None, None]) ** 2).sum(-1)
        self.heat = (-0.5 * square)[None]

    def forward(self, _images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.logits, self.heat


def test_a_validation_gives_the_truth_full_marks_and_swapped_fluids_none() -> None:
    pool, _ = a_pool_of_balls()
    good = validate(Oracle(pool, False), pool, torch.device("cpu"), 0.3)
    bad = validate(Oracle(pool, True), pool, torch.device("cpu"), 0.3)
    assert good["tfs_dice"] == bad["tfs_dice"] == 1.0
    assert good["ratio_mae"] == pytest.approx(0.0, abs=1e-3)
    assert good["tfs_volume_bias"] == pytest.approx(0.0, abs=5e-3)
    assert good["landmark_mm"] < 0.1
    assert bad["els_dice"] == 0.0
    assert bad["ratio_mae"] == pytest.approx(1.0, abs=0.01)


def test_images_are_the_same_for_the_same_seed(geometry: simulate.Geometry) -> None:
    fractions = torch.from_numpy(geometry.fractions).float() / 255
    first, again, other = (
        simulate.draw_images(fractions, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.isfinite(first).all()


def test_endolymph_is_darker_than_perilymph_in_the_second_image(
    geometry: simulate.Geometry,
) -> None:
    fractions = torch.from_numpy(geometry.fractions).float() / 255
    inside, _ = simulate.onto_crop(fractions, geometry.landmarks)
    perilymph, endolymph = inside[0:6:2].sum(0) > 0.9, inside[1:6:2].sum(0) > 0.9
    lower = 0
    for seed in range(6):
        image = simulate.draw_images(fractions, np.random.default_rng(seed), missing=0.0)[1]
        lower += int(image[endolymph].mean() < image[perilymph].mean())
    assert lower >= 5  # gadolinium fails in some patients


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-4, 1e4), st.floats(1e-6, 1e4))
def test_scanner_gain_does_not_matter(a: float, b: float) -> None:
    generator = torch.Generator().manual_seed(0)
    mrc = torch.rand((12, 12, 12), generator=generator)
    hydrops = torch.randn((12, 12, 12), generator=generator)
    plain = prepare(mrc, hydrops * mrc)
    scaled = prepare(a * mrc, (b * hydrops) * (a * mrc))
    torch.testing.assert_close(plain, scaled, rtol=1e-3, atol=1e-3)


def test_ears_are_prepared_together_as_each_alone() -> None:
    """Among them one that shows no fluid but itself, and one that took up no gadolinium."""
    generator = torch.Generator().manual_seed(0)
    mrc, hydrops = (torch.rand((4, 12, 12, 12), generator=generator) for _ in range(2))
    mrc[1] = 0.0
    hydrops[2] -= 1.0
    mi2 = (hydrops - 0.4) * mrc
    together = prepare(mrc, mi2)
    assert together.shape == (4, 3, 12, 12, 12)
    assert torch.equal(together, torch.stack([prepare(*ear) for ear in zip(mrc, mi2)]))
    assert torch.equal(prepare(mrc, None)[3], prepare(mrc[3], None))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 60), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_gpu_and_a_processor_find_the_same_quantile(
    seed: int, size: int, share: float, counted: float
) -> None:
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(rng.normal(size=(3, size)).astype(np.float32))
    among = torch.from_numpy(rng.random((3, size)) < counted)
    one_by_one = quantile_one_by_one(rows, among, share)
    assert torch.equal(one_by_one, quantile_by_sorting(rows, among, share))
    for found, row, known in zip(one_by_one, rows, among):
        values = row[known].numpy()
        if values.size:
            rank = max(1, round(share * values.size))
            assert float(found) == float(np.sort(values)[rank - 1])
        else:
            assert float(found) == 0.0


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.floats(4.0, 11.0)] * 3))
def test_landmarks_come_back_between_voxels(point: tuple[float, ...]) -> None:
    axes = torch.meshgrid(*[torch.arange(16.0)] * 3, indexing="ij")
    square = sum((axis - p) ** 2 for axis, p in zip(axes, point, strict=True))
    positions, confidences = landmark_positions((-0.5 * square / 1.0**2)[None])
    assert torch.allclose(positions[0], torch.tensor(point), atol=0.05)
    assert confidences[0] > 0.9


def test_losses_are_least_at_the_truth(geometry: simulate.Geometry) -> None:
    fractions = torch.from_numpy(geometry.fractions[:6]).float() / 255
    target = torch.cat([1 - fractions.sum(0, keepdim=True), fractions])[None]
    blurred = torch.nn.functional.avg_pool3d(target, 3, 1, 1)
    assert soft_dice_loss(target, target) < 1e-3 < soft_dice_loss(blurred, target)
    assert ratio_loss(target, target) < 1e-6
    swapped = target[:, [0, 2, 1, 4, 3, 6, 5]]
    assert ratio_loss(swapped, target) > 0.1
    points = torch.from_numpy(geometry.landmarks)[None]
    axes = torch.meshgrid(*[torch.arange(64.0)] * 3, indexing="ij")
    good = torch.stack(
        [-sum((a - p) ** 2 for a, p in zip(axes, q, strict=True)) / 2 / 1.44 for q in points[0]]
    )[None]
    assert landmark_loss(good, points) < landmark_loss(good.roll(3, dims=2), points)


def test_network_gives_every_class_and_every_landmark() -> None:
    network = DualHeadUNet(NetworkOptions((4, 8, 16), 0)).eval()
    labels, heat = network(torch.zeros(1, 3, 16, 16, 16))
    assert labels.shape == (1, len(LABELS), 16, 16, 16)
    assert heat.shape == (1, len(LANDMARKS), 16, 16, 16)


@pytest.fixture
def tiny() -> TrainOptions:
    options = TrainOptions.load(REPOSITORY / "config" / "models" / "paired_unet3d.yaml")
    return dataclasses.replace(
        options,
        phantoms=1,
        crops_per_ear=2,
        validation_phantoms=1,
        phases=(Phase(4, 1e-3, 1.0, 1.0), Phase(2, 5e-4, 0.3, 0.0)),
        patch=(32, 32, 16),
        validate_every=3,
        train_specimens=(),
        validation_specimens=(),
        network=NetworkOptions((4, 8, 16), 0),
    )


def test_a_killed_training_goes_on_where_it_was(
    tiny: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its first checkpoint, a training ends with the weights of one left alone."""
    from hydrops.model import course as module

    nowhere = tmp_path / "no specimens"
    straight = torch.load(train(tiny, nowhere, tmp_path / "a", threads=1), weights_only=True)

    # The same geometries: drawing them again is not what this is about.
    drawn = pool_folder(tiny, tmp_path / "a")
    shutil.copytree(drawn, pool_folder(tiny, tmp_path / "b"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_history", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tiny, nowhere, tmp_path / "b", threads=1)
    assert not (tmp_path / "b" / "weights.pt").exists()
    resumed = torch.load(train(tiny, nowhere, tmp_path / "b", threads=1), weights_only=True)
    for name, value in straight.items():
        torch.testing.assert_close(resumed[name], value)
    assert (tmp_path / "b" / "history.png").stat().st_size > 1000


def test_a_pool_that_was_drawn_otherwise_is_another(tiny: TrainOptions, tmp_path: Path) -> None:
    make_pools(tiny, tmp_path / "no specimens", tmp_path / "run", 1)
    assert [path.name for path in trained_parts(tiny, tmp_path / "run")] == ["phantom-0000.npy"]
    opened = len(os.listdir("/dev/fd"))
    pool = simulate.read_pool(trained_parts(tiny, tmp_path / "run"))
    assert len(pool) == tiny.crops_per_ear
    assert pool.shares(len(pool) - 1).shape == (simulate.TISSUE_CHANNELS, *FINE_SHAPE)
    assert len(os.listdir("/dev/fd")) == opened
    for other in ({"seed": 1}, {"crops_per_ear": 3}):
        assert trained_parts(dataclasses.replace(tiny, **other), tmp_path / "run") == []


def test_no_two_parts_of_a_pool_are_drawn_by_the_same_numbers(tiny: TrainOptions) -> None:
    options = dataclasses.replace(tiny, phantoms=3, validation_phantoms=2, redraws_per_specimen=3)
    cube = np.pad(np.ones((2, 2, 2), bool), 1)
    learned, watching = (
        [Specimen(name, "right", cube, np.eye(4), {}) for name in names]
        for names in (("F01", "F02"), ("F06", "T03"))
    )
    train, validation = pool_jobs(options, learned, watching)
    assert len(train) == 3 + 2 * 3
    assert len(validation) == 2 + 2 * 2
    draws = [np.random.default_rng(job.seeds).uniform() for job in (*train, *validation)]
    assert len(set(draws)) == len(draws)


def test_a_model_of_phantoms_alone_claims_no_labyrinths(tiny: TrainOptions, tmp_path: Path) -> None:
    told = dataclasses.replace(
        tiny,
        train_specimens=("F01",),
        validation_specimens=("F06",),
        phases=(Phase(1, 1e-3, 1.0, 1.0),),
    )
    weights = train(told, tmp_path / "no specimens", tmp_path / "run", threads=1)
    assert taught_by(weights) == {}
    bundle = write_bundle(told, weights, tmp_path / "models")
    card = write_card(bundle, pd.DataFrame({"ears": [1]}), [], "").read_text()
    assert "1 digital phantoms, with endolymph" in card
    assert "labyrinths F01" not in card
    assert "Wimmer" not in card
    write_taught(weights, {"F01": "1a", "F06": "6a"})
    bundle = write_bundle(told, weights, tmp_path / "models")
    assert bundle.metadata["training"]["train_specimens"] == ["F01"]
    card = write_card(bundle, pd.DataFrame({"ears": [1]}), [], "").read_text()
    assert "real labyrinths F01\n(validation: F06)" in card
    with pytest.raises(HydropsError, match=r"has learned from F01, F06, which .*test_specimens"):
        refuse_seen([bundle.folder], tmp_path / "nowhere", ["T01", "F06", "F01"])
    refuse_seen([bundle.folder], tmp_path / "nowhere", ["T01"])


def test_a_labyrinth_that_was_learned_from_is_known_by_any_name(
    tiny: TrainOptions, tmp_path: Path
) -> None:
    for name in ("F01", "F06"):
        write_specimen(tmp_path / "bones", name, 1)
    (seen,) = simulate.load_specimens(tmp_path / "bones", ["F01"])
    weights = tmp_path / "weights.pt"
    torch.save(DualHeadUNet(tiny.network).state_dict(), weights)
    write_taught(weights, {"Z99": seen.digest})
    bundle = write_bundle(tiny, weights, tmp_path / "models")
    with pytest.raises(HydropsError, match="has learned from F01, which"):
        refuse_seen([bundle.folder], tmp_path / "bones", ["F01"])
    write_taught(weights, {"Z99": "another"})
    bundle = write_bundle(tiny, weights, tmp_path / "models")
    refuse_seen([bundle.folder], tmp_path / "bones", ["F01"])
    both = dataclasses.replace(tiny, train_specimens=("F01",), validation_specimens=("F06",))
    with pytest.raises(HydropsError, match="F06 and F01 are one labyrinth"):
        train(both, tmp_path / "bones", tmp_path / "run", threads=1)


def test_weights_of_nobody_knows_whom_are_no_bundle(tiny: TrainOptions, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    torch.save(DualHeadUNet(tiny.network).state_dict(), weights)
    with pytest.raises(HydropsError, match="does not tell whom"):
        write_bundle(tiny, weights, tmp_path / "models")


def test_a_packaging_that_failed_leaves_no_bundle(
    tiny: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights.pt"
    torch.save(DualHeadUNet(tiny.network).state_dict(), weights)
    write_taught(weights, {})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space"):
            write_bundle(tiny, weights, tmp_path / "models")
    assert list((tmp_path / "models" / "paired_unet3d").glob(".*")) == []
    # One that was killed leaves its folder behind.
    whole = write_bundle(tiny, weights, tmp_path / "models")
    shutil.copytree(whole.folder, whole.folder.with_name(f".{whole.version}-x9q2z"))
    assert [b.version for b in all_bundles(tmp_path / "models")] == [whole.version]


def test_a_release_that_fails_leaves_the_model_that_is_there(
    tiny: TrainOptions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A cohort never meets a bundle without its calibration and its refusals."""
    models = tmp_path / "models"
    weights = tmp_path / "run" / "weights.pt"
    weights.parent.mkdir()
    torch.save(DualHeadUNet(tiny.network).state_dict(), weights)
    write_taught(weights, {})
    before = write_bundle(tiny, weights, models)
    torch.save(DualHeadUNet(tiny.network).state_dict(), weights)
    none = dataclasses.replace(tiny, calibration_heads=0)
    with pytest.raises(HydropsError, match="needs calibration_heads"):
        release(none, weights, tmp_path / "no specimens", models, 1)
    assert [read_bundle(b.folder).sha256 for b in all_bundles(models)] == [before.sha256]
    assert not caplog.records
    made = write_bundle(tiny, weights, weights.parent / "bundle")
    published = publish_bundle(made, models)
    assert published.sha256 == made.sha256 != before.sha256
    assert published.folder == before.folder
    assert "replaced by one of other weights under the same version" in caplog.text
    assert list(models.rglob(".*")) == []


def test_a_pool_of_a_label_that_has_changed_is_refused(tiny: TrainOptions, tmp_path: Path) -> None:
    specimens = tmp_path / "specimens"
    for number, name in enumerate(("S0", "S1")):
        write_specimen(specimens, name, number)
    options = dataclasses.replace(
        tiny, train_specimens=("S0",), validation_specimens=("S1",), redraws_per_specimen=1
    )
    pool = tmp_path / "run"
    *_, seen = make_pools(options, specimens, pool, 1)
    assert sorted(seen) == ["S0", "S1"]
    assert make_pools(options, specimens, pool, 1)[2] == seen
    label = specimens / "S0" / "S0_label.nii.gz"
    read = nib.load(label)
    data = np.asarray(read.dataobj).copy()
    data[tuple(np.argwhere(data)[0])] = 0
    nib.save(nib.Nifti1Image(data, read.affine), label)
    with pytest.raises(HydropsError, match=r"drawn from S0 as they were .*remove the folder"):
        make_pools(options, specimens, pool, 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda table: table[table["landmark"] != "V"], "S0 lacks V; add"),
        (
            lambda table: table.assign(
                z_ras_mm=table["z_ras_mm"] + 1000.0 * (table["landmark"] == "C")
            ),
            "landmark C of S0 lies outside its image",
        ),
        (
            lambda table: table.assign(x_ras_mm=table["x_ras_mm"].where(table["landmark"] != "A")),
            "x_ras_mm of landmark A of S0 is ''",
        ),
    ],
)
def test_landmarks_that_no_ear_can_be_drawn_by_are_refused(
    tiny: TrainOptions,
    tmp_path: Path,
    changed: Callable[[pd.DataFrame], pd.DataFrame],
    message: str,
) -> None:
    write_specimen(tmp_path / "specimens", "S0", 0)
    path = tmp_path / "specimens" / "landmarks.tsv"
    changed(pd.read_csv(path, sep="\t")).to_csv(path, sep="\t", index=False)
    options = dataclasses.replace(tiny, train_specimens=("S0",))
    with pytest.raises(HydropsError, match=rf"landmarks\.tsv: {message}"):
        make_pools(options, tmp_path / "specimens", tmp_path / "run", 1)


def test_a_model_of_endolymph_needs_heads_to_calibrate_it(
    tiny: TrainOptions, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.pt"
    torch.save(DualHeadUNet(tiny.network).state_dict(), weights)
    write_taught(weights, {})
    bundle = write_bundle(tiny, weights, tmp_path / "models")
    none = dataclasses.replace(tiny, calibration_heads=0)
    with pytest.raises(HydropsError, match="needs calibration_heads"):
        calibrate(bundle, none, tmp_path / "no specimens", 1)
    few = dataclasses.replace(tiny, calibration_heads=18)
    with pytest.raises(HydropsError, match=r"is 18, which makes 18 heads .* needs 19"):
        calibrate(bundle, few, tmp_path / "no specimens", 1)
    (tmp_path / "specimens").mkdir()
    few = dataclasses.replace(tiny, calibration_heads=36)
    with pytest.raises(HydropsError, match="is 36, which makes 18 heads"):
        calibrate(bundle, few, tmp_path / "specimens", 1)


def test_a_specimen_in_both_parts_is_refused(tmp_path: Path) -> None:
    source = REPOSITORY / "config" / "models" / "paired_unet3d.yaml"
    values = yaml.safe_load(source.read_text())
    values["validation_specimens"] = [values["train_specimens"][0]]
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(HydropsError, match="in training and in validation"):
        TrainOptions.load(path)


def test_too_few_heads_to_calibrate_on_are_refused_before_the_training(tmp_path: Path) -> None:
    folder = REPOSITORY / "config" / "models"
    path = tmp_path / "few.yaml"
    for name, refused in (("paired_unet3d", True), ("joint_unet3d", False)):
        values = yaml.safe_load((folder / f"{name}.yaml").read_text())
        path.write_text(yaml.safe_dump({**values, "calibration_heads": LEAST_HEADS - 1}))
        if refused:
            with pytest.raises(HydropsError, match=rf"calibration_heads: {LEAST_HEADS - 1}, but"):
                TrainOptions.load(path)
        else:
            assert not find_architecture(TrainOptions.load(path).network).endolymph


def test_specimens_that_are_not_of_the_public_set_are_the_users() -> None:
    assert source_of(["F01", "T06"]).startswith("Wimmer")
    assert source_of(["F01", "mine"]) == "2 labelled specimens of the user's"


def test_an_unknown_key_of_a_training_is_named(tmp_path: Path) -> None:
    source = REPOSITORY / "config" / "models" / "paired_unet3d.yaml"
    path = tmp_path / "wrong.yaml"
    path.write_text(source.read_text() + "stepps: 3\n")
    with pytest.raises(HydropsError, match="stepps"):
        TrainOptions.load(path)


def test_an_image_saved_as_a_label_is_refused(shared_data: Path, tmp_path: Path) -> None:
    real = shared_data / "bony-labyrinth"
    (tmp_path / "F01").mkdir()
    (tmp_path / "landmarks.tsv").write_text((real / "landmarks.tsv").read_text())
    wrong = tmp_path / "F01" / "F01_label.nii.gz"
    wrong.write_bytes((real / "F01" / "F01_ct.nii.gz").read_bytes())
    with pytest.raises(HydropsError, match="is this the image"):
        simulate.load_specimens(tmp_path, ["F01"])


def test_bundle_is_found_and_its_weights_are_checked(tiny: TrainOptions, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    torch.save(DualHeadUNet(tiny.network).state_dict(), weights)
    write_taught(weights, {})
    for number in ("1.9.0", "1.10.0"):
        write_bundle(dataclasses.replace(tiny, version=number), weights, tmp_path / "models")
    bundle = find_bundle(tmp_path / "models", "paired_unet3d")
    assert bundle.identifier == "paired_unet3d-1.10.0"
    assert find_bundle(tmp_path / "models", "paired_unet3d-1.9.0").version == "1.9.0"
    assert len(all_bundles(tmp_path / "models")) == 2
    assert verify_weights(bundle).is_file()
    with (bundle.folder / WEIGHTS).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(HydropsError, match="sha256"):
        verify_weights(bundle)
    with pytest.raises(HydropsError, match=r"there are: paired_unet3d-1\.9\.0"):
        find_bundle(tmp_path / "models", "no_such_model")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda known: known["network"].update(attention=True), "attention.*newer version"),
        (lambda known: known["spacing_mm"].clear(), "train it again"),
        (lambda known: known.pop("network"), "network.*newer version"),
        (lambda known: known.update(network=None), "newer version"),
        (lambda known: known["network"].update(channels="ab"), "newer version"),
        (lambda known: known.pop("roles"), "without roles"),
        (lambda known: known.update(kind="transformer"), "kind transformer are not known"),
    ],
)
def test_metadata_that_are_not_understood_are_told(
    tiny: TrainOptions, tmp_path: Path, change: Callable[[dict], object], told: str
) -> None:
    weights = tmp_path / "weights.pt"
    torch.save(DualHeadUNet(tiny.network).state_dict(), weights)
    write_taught(weights, {})
    older, newer = (
        write_bundle(dataclasses.replace(tiny, version=v), weights, tmp_path / "models").folder
        for v in ("1.9.0", "1.10.0")
    )
    path = newer / "configs" / "metadata.json"
    known = json.loads(path.read_text())
    change(known)
    path.write_text(json.dumps(known))
    with pytest.raises(HydropsError, match=rf"(metadata\.json|paired_unet3d-1\.10\.0).*{told}"):
        load_segmenter(find_bundle(tmp_path / "models", "paired_unet3d").folder, "cpu")
    path.write_text("[1]")
    with pytest.raises(HydropsError, match="not the metadata of a model bundle"):
        find_bundle(tmp_path / "models", "paired_unet3d")
    assert find_bundle(tmp_path / "models", "paired_unet3d-1.9.0").folder == older


def test_metadata_is_what_monai_expects(tiny: TrainOptions, tmp_path: Path) -> None:
    """What MONAI's own parser builds gives, class by class, what this project's network does."""
    weights = tmp_path / "weights.pt"
    own = DualHeadUNet(tiny.network).eval()
    torch.save(own.state_dict(), weights)
    write_taught(weights, {})
    bundle = write_bundle(tiny, weights, tmp_path / "models")
    image = torch.randn(1, 3, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network_of(bundle.folder)(image), own(image)[0])
    told = json.loads((bundle.folder / "configs" / "metadata.json").read_text())
    classes = told["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert [classes[str(number)] for number in range(len(LABELS))] == list(LABELS)


CONFIGURATIONS = sorted((REPOSITORY / "config" / "models").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_a_bundle_tells_what_its_configuration_says_of_the_version(path: Path) -> None:
    told = yaml.safe_load(path.read_text(encoding="utf-8"))
    folder = REPOSITORY / "models" / told["name"] / told["version"]
    if not folder.is_dir():
        pytest.skip(f"{told['name']} {told['version']} is not shipped")
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["changelog"] == {told["version"]: told["changes"]}


#: What MONAI's schema asks of metadata (meta_schema_20240725.json), as it bears on ours.
STRINGS = (
    "schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description",
    "authors", "copyright", "data_source", "intended_use",
)  # fmt: skip
TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {
        **{key: {"type": "string"} for key in ("type", "format", "dtype")},
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object"},
    },
}
SCHEMA = {
    "type": "object",
    "required": [*STRINGS, "required_packages_version", "network_data_format"],
    "properties": {
        **{key: {"type": "string"} for key in STRINGS},
        **{key: {"type": "object"} for key in ("changelog", "required_packages_version")},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "additionalProperties": {"type": "object", "additionalProperties": TENSOR},
        },
    },
}
SHIPPED = all_bundles(REPOSITORY / "models")


@pytest.mark.parametrize("bundle", SHIPPED, ids=lambda bundle: bundle.identifier)
def test_monai_verifies_a_shipped_bundle(bundle: Bundle) -> None:
    """What MONAI feeds a network by its metadata comes out as the metadata say."""
    from monai.bundle import verify_net_in_out

    configs = bundle.folder / "configs"
    jsonschema.validate(bundle.metadata, SCHEMA)
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
    )
    network_of(bundle.folder)


@pytest.mark.parametrize(("there", "offset"), [(True, 0.6), (False, 0.5)])
def test_levels_are_those_of_real_anatomy_where_there_is_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, offset: float
) -> None:
    options = TrainOptions.load(REPOSITORY / "config" / "models" / "paired_unet3d.yaml")
    (shipped,) = (REPOSITORY / "models" / "paired_unet3d").iterdir()
    copy = tmp_path / "paired_unet3d" / shipped.name
    shutil.copytree(shipped, copy)
    level, noise = np.random.default_rng(0).uniform(0.0, 0.5, (2, 24))

    def evaluated(*_: object, kinds: Sequence[str], scan: object) -> pd.DataFrame:  # noqa: ARG001
        return pd.concat(
            pd.DataFrame(
                {
                    "anatomy": kind, "seed": range(24),
                    **{
                        f"{way}_{name}": value
                        for way in WAYS
                        for name, value in (
                            ("level", level), ("noise", noise),
                            ("network", (0.6 if kind == "specimen" else 0.5) - 0.4 * level),
                            ("moved", 0.0),
                        )
                    },
                    "ratio": 0.3,
                    "ratio_true": (0.6 if kind == "specimen" else 0.5) - 0.4 * level,
                }
            )
            for kind in kinds
        )  # fmt: skip

    monkeypatch.setattr("hydrops.model.calibrate.evaluate", evaluated)
    folder = tmp_path / "specimens"
    if there:
        folder.mkdir()
    fitted = calibrate(read_bundle(copy), options, folder, 1)
    known = Calibration.all_of(fitted.metadata)
    assert set(known) == set(WAYS)
    assert all(tuple(c.voxel_mm for c in known[way]) == CALIBRATED_MM for way in WAYS)
    for calibration in (c for way in WAYS for c in known[way]):
        assert calibration.levels.offset == pytest.approx(offset, abs=1e-3)
        # Phantoms lie 0.1 lower, by signal and network alike; the interval is to hold there too.
        apart, within = (0.1 * (1.0 - calibration.levels.say), 5e-3) if there else (0.0, 1e-3)
        assert calibration.half_width == pytest.approx(apart, abs=within)
        assert calibration.most_noise == pytest.approx(1.25 * noise.max(), abs=1e-4)
    assert fitted.metadata["calibrated_on"]["ears"] == 24 * (1 + there) * len(CALIBRATED_MM)
    both = evaluated(kinds=["specimen"], scan=None)
    half_read = pd.concat([both, both.assign(HYDROPS_level=np.nan)], ignore_index=True)
    plain, other = (
        Calibration.all_of(fit_levels(fitted, options, {(0.5, 0.5, 1.0): ears}).metadata)
        for ears in (both, half_read)
    )
    assert other["HYDROPS"] == plain["HYDROPS"]
    few = evaluated(kinds=["specimen"], scan=None).head(15)
    with pytest.raises(HydropsError, match="15 heads are too few"):
        fit_levels(fitted, options, {(0.5, 0.5, 1.0): few})
    none = few.assign(ratio=np.nan, reason="no inner ear")
    for beside in ([], [evaluated(kinds=["phantom"], scan=None)]):
        with pytest.raises(HydropsError, match=r"all 15 .*\(specimen.*: no inner ear"):
            fit_levels(fitted, options, {(0.5, 0.5, 1.0): pd.concat([none, *beside])})
