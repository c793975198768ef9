"""INHEARIT: three fronts on slices, either side's classes, and a cohort that it can measure."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ears import fine_affine, made_up_cohort, made_up_fractions, on_crop
from hydrops.arrays import FloatGrid
from hydrops.draw import draw_session
from hydrops.errors import ExcludedError, HydropsError
from hydrops.images import crop_affine, save_image
from hydrops.labels import LABYRINTH, ORGANS, SIDES
from hydrops.measure import MeasureOptions, implausible, measure_session
from hydrops.model.architectures import build_network
from hydrops.model.bundle import Bundle, read_bundle
from hydrops.model.course import Phase, run_course
from hydrops.model.evaluate import AREAS, COLUMNS, summarise
from hydrops.model.geometry import CROP_SHAPE
from hydrops.model.inhearit import (
    CONVOLUTIONS,
    FIELD,
    SLICE_CLASSES,
    Inhearit,
    fractions_of_side,
    in_field,
    out_of_field,
    slice_triple,
)
from hydrops.model.inhearit_task import SliceTask, class_fractions, draw_sample, selected_slices
from hydrops.model.package import write_bundle, write_card
from hydrops.model.pictures import draw_agreement
from hydrops.model.segmenter import Segmenter, load_segmenter, segment_ear
from hydrops.model.simulate import Pool, draw_geometry, onto_crop
from hydrops.model.taught import write_taught
from hydrops.model.train import TrainOptions
from hydrops.paths import Paths, Unit
from hydrops.phantom.anatomy import draw_ear
from hydrops.records import Record, run_stage, write_record
from hydrops.segment import segment_session
from hydrops.statistics import cohort_statistics
from places import REPOSITORY

UNIT = Unit("01", "1")
FUSIONS = ("3into3", "concat3into1")


def small(fusion: str = "3into3") -> TrainOptions:
    options = TrainOptions.load(REPOSITORY / "config" / "models" / "inhearit.yaml")
    channels = (2, 3, 4, 5, 6, 7)
    network = dataclasses.replace(options.network, channels=channels, architecture=fusion)
    return dataclasses.replace(options, network=network, batch=2, validate_every=2)


def network_of(fusion: str) -> Inhearit:
    torch.manual_seed(0)
    network = build_network(small(fusion).network)
    assert isinstance(network, Inhearit)
    return network.eval()


@pytest.fixture(scope="module")
def pool() -> Pool:
    rng = np.random.default_rng(1)
    geometry = draw_geometry(draw_ear(rng, "right"), rng)
    return Pool(geometry.fractions[None], geometry.landmarks[None])


def on_the_crop(pool: Pool) -> torch.Tensor:
    """Fractions of the pool's first ear."""
    fine = torch.from_numpy(pool.fractions[0]).float() / 255.0
    return onto_crop(fine, pool.landmarks[0])[0]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_three_slices_give_every_class_of_the_middle_one(fusion: str) -> None:
    network = network_of(fusion)
    assert network.by_slice(torch.randn(2, 3, FIELD, FIELD)).shape == (2, 5, FIELD, FIELD)
    for front in network.fronts:
        layers = [layer for layer in front.modules() if isinstance(layer, torch.nn.Conv2d)]
        assert len(layers) == sum(CONVOLUTIONS) == 15
    up = [layer for layer in network.modules() if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert len(up) == 3
    with torch.inference_mode():
        logits, heat = network(torch.randn(1, 3, 40, 40, 8))
    assert logits.shape == (1, 5, 40, 40, 8)
    assert heat is None


def test_the_two_fusions_are_the_papers() -> None:
    three, one = (network_of(fusion) for fusion in FUSIONS)
    assert [len(network.further) for network in (three, one)] == [3, 1]
    assert one.further[0][0].in_channels == 3 * three.further[0][0].in_channels


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_reach_every_front(fusion: str) -> None:
    network = network_of(fusion)
    network.by_slice(torch.rand(1, 3, FIELD, FIELD)).square().sum().backward()
    for front in network.fronts:
        first = next(front.parameters())
        assert first.grad is not None
        assert first.grad.abs().sum() > 0


def test_a_slice_sees_its_neighbours_a_millimetre_away_and_no_others() -> None:
    network = network_of("3into3")
    images = torch.rand(1, 3, 40, 40, 12)
    changed = images.clone()
    changed[..., 6] += 0.5
    changed[:, 1:] += 1.0
    with torch.inference_mode():
        same = (network(images)[0] == network(changed)[0]).all(1)[0].all((0, 1))
    assert [z for z in range(12) if not same[z]] == [5, 6, 7]
    assert torch.equal(slice_triple(images, 0)[0, 0, 0], images[0, 0, ..., 0])


def test_a_network_that_the_paper_does_not_have_is_refused() -> None:
    options = small().network
    with pytest.raises(HydropsError, match="a sixth number"):
        build_network(dataclasses.replace(options, channels=(4, 8, 16)))
    with pytest.raises(HydropsError, match="both sides are 5"):
        build_network(dataclasses.replace(options, labels=7))


@pytest.mark.parametrize("shift", [(0, 0), (8, -8)])
def test_a_crop_comes_out_of_its_field_as_it_went_in(shift: tuple[int, int]) -> None:
    crop = torch.rand(3, 64, 64)
    field = in_field(crop, shift)
    assert field.shape == (3, FIELD, FIELD)
    assert field.sum() == pytest.approx(float(crop.sum()), rel=1e-5)
    back = out_of_field(field.roll((-shift[0], -shift[1]), dims=(1, 2)), (64, 64))
    assert torch.equal(back, crop)


def test_a_mirrored_ear_has_the_other_sides_classes(pool: Pool) -> None:
    """The same draw, once as a right and once as a left ear: mirrored, its classes swapped."""
    fractions = on_the_crop(pool)
    mrc = fractions[:6].sum(0)
    z = selected_slices(fractions.numpy())[0]
    seed = next(s for s in range(99) if np.random.default_rng(s).integers(-8, 9) == 0)
    slices, target = draw_sample(mrc, fractions, z, "right", np.random.default_rng(seed))
    mirrored, swapped = draw_sample(mrc, fractions, z, "left", np.random.default_rng(seed))
    assert torch.equal(mirrored, slices.flip(1))
    sides = [[n for n, (s, _) in enumerate(SLICE_CLASSES, 1) if s == side] for side in SIDES]
    left, right = sides
    assert target[right].sum() > 10
    assert target[left].sum() == swapped[right].sum() == 0
    assert torch.equal(swapped[left], target[right].flip(-2))
    assert torch.allclose(target.sum(0), torch.ones(FIELD, FIELD), atol=1e-5)


def test_the_first_phase_shows_representative_slices_only(pool: Pool) -> None:
    """The middle slice's classes are those of a representative slice, wherever it was put."""
    options = small()
    fractions = on_the_crop(pool)
    wanted = selected_slices(fractions.numpy())
    areas = {round(float(class_fractions(fractions[..., z], "right").sum()), 2) for z in wanted}
    seen: dict[float, set[float]] = {}
    for selected in (1.0, 0.0):
        task = SliceTask(options, pool, pool)
        drawn = task.samples(Phase(6, 1e-3, 1.0, 1.0, selected), 0, 6)
        seen[selected] = {round(float(drawn[i][1][1:].sum()), 2) for i in range(6)}
    assert seen[1.0] <= areas
    assert not seen[0.0] <= areas


def test_a_patch_that_its_fronts_do_not_see_is_refused(pool: Pool) -> None:
    options = dataclasses.replace(small(), patch=(64, 64, 3))
    with pytest.raises(HydropsError, match=r"patch: \[64, 64, 3\].*\[100, 100, 3\]"):
        SliceTask(options, pool, pool)


def test_a_training_of_two_phases_ends_in_a_bundle_of_the_contract(
    pool: Pool, tmp_path: Path
) -> None:
    phases = (Phase(2, 1e-3, 1.0, 1.0, 1.0), Phase(2, 1e-3, 1.0, 1.0, 0.5))
    options = dataclasses.replace(small(), phases=phases)
    weights = run_course(SliceTask(options, pool, pool), tmp_path / "run", {}, threads=1)
    history = pd.read_csv(tmp_path / "run" / "history.tsv", sep="\t")
    assert {"cochlea_dice", "vestibule_dice", "cochlea_jaccard"} <= set(history)
    bundle = write_bundle(options, weights, tmp_path / "models")
    assert bundle.organs == ("cochlea", "vestibule")
    assert not bundle.endolymph
    assert bundle.metadata["landmarks"] == []
    assert bundle.metadata["training"]["phases"][0]["selected"] == 1.0
    segmenter = load_segmenter(bundle.folder, "cpu", 1)
    expected = torch.load(weights, weights_only=True)
    for name, value in segmenter.network.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    empty = np.zeros(CROP_SHAPE, np.float32)
    with pytest.raises(ExcludedError, match="no inner ear"):
        segment_ear(segmenter, empty, None, "left")


def test_the_shipped_configuration_stays_under_20_mb() -> None:
    options = TrainOptions.load(REPOSITORY / "config" / "models" / "inhearit.yaml")
    for fusion in FUSIONS:
        network = build_network(dataclasses.replace(options.network, architecture=fusion))
        assert sum(p.numel() * p.element_size() for p in network.parameters()) < 20e6


def test_what_is_taken_for_the_other_side_is_background() -> None:
    probabilities = np.zeros((5, 2), np.float32)
    probabilities[1:, 0] = 0.1, 0.2, 0.3, 0.4
    probabilities[0] = 1.0 - probabilities[1:].sum(0)
    for side, (cochlea, vestibule) in {"left": (0.1, 0.2), "right": (0.3, 0.4)}.items():
        found = fractions_of_side(probabilities, side)
        assert found[[1, 3], 0] == pytest.approx((cochlea, vestibule))
        assert found.sum(0) == pytest.approx([1.0, 1.0])
        assert found[[2, 4, 5, 6]].sum() == 0.0


class Oracle(torch.nn.Module):
    """Answers what `made_up_fractions` holds, as the organs of the side that it was told."""

    def __init__(self, side: str) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, None]:
        truth = torch.from_numpy(on_crop(made_up_fractions()))
        classes = torch.full((1, 5, *images.shape[2:]), -20.0)
        inside = torch.zeros(images.shape[2:], dtype=torch.bool)
        for number, (side, organ) in enumerate(SLICE_CLASSES, start=1):
            code = 2 * ORGANS.index(organ) + 1
            region = truth[code : code + 2].sum(0) > 0.5
            if side == self.side:
                classes[0, number][region] = 20.0
                inside |= region
        classes[0, 0][~inside] = 20.0
        return classes, None


def an_ear(paths: Paths, side: str) -> FloatGrid:
    """One ear as ingest, register and locate leave it; returns its HYDROPS-Mi2."""
    fractions = on_crop(made_up_fractions())
    affine = crop_affine((38.0, -10.0, 5.0))
    rng = np.random.default_rng(3)
    mrc = (1000 * fractions[1:].sum(0) + rng.normal(30, 5, CROP_SHAPE)).astype(np.float32)
    perilymph, endolymph = fractions[1::2].sum(0), fractions[2::2].sum(0)
    mi2 = (1e5 * (perilymph - endolymph)).astype(np.float32)
    for path, image in (
        (paths.image(UNIT, "MRC"), mrc),
        (paths.registered(UNIT, "HYDROPSMi2"), mi2),
        (paths.crop(UNIT, side, "MRC"), mrc),
        (paths.crop(UNIT, side, "HYDROPSMi2"), mi2),
    ):
        save_image(path, image, affine)
    other = next(s for s in SIDES if s != side)
    out = {other: {"stage": "locate", "reason": "not in this test"}}
    write_record(paths.record("locate", UNIT), Record("locate", "01", "1", "done", "", out))
    return mi2


def a_segmenter(side: str) -> Segmenter:
    known = {"organs": ["cochlea", "vestibule"], "endolymph": False, "description": ""}
    bundle = Bundle("inhearit", "1.0.0", Path("models"), "ab" * 32, known)
    return Segmenter(bundle, Oracle(side), torch.device("cpu"), {}, None, False, sided=True)


@pytest.mark.parametrize("side", SIDES)
def test_a_cohort_has_area_ratios_and_leaves_the_rest_empty(tmp_path: Path, side: str) -> None:
    paths = Paths(tmp_path)
    mi2 = an_ear(paths, side)
    model = "inhearit-1.0.0"
    segmented = run_stage(
        paths.record("segment", UNIT, model), "segment", UNIT, [paths.record("locate", UNIT)],
        lambda out: segment_session(a_segmenter(side), UNIT, paths, out),
    )  # fmt: skip
    measured = run_stage(
        paths.record("measure", UNIT, model), "measure", UNIT,
        [paths.record("segment", UNIT, model)],
        lambda out: measure_session(UNIT, paths, model, MeasureOptions(), out),
    )  # fmt: skip
    assert segmented.outcome == measured.outcome == "done"
    table = pd.read_csv(paths.measures(UNIT, model), sep="\t", dtype=str, keep_default_na=False)
    assert table["representative_slice"].map(lambda told: told == "n/a" or told.isdigit()).all()
    table = pd.read_csv(paths.measures(UNIT, model), sep="\t", na_values=["n/a"]).set_index("organ")
    assert list(table.index) == [*ORGANS, LABYRINTH]
    assert table[["els_mm3", "eh_volume_ratio"]].isna().all(axis=None)
    for organ in ORGANS[:2]:
        row = table.loc[organ]
        code = 2 * ORGANS.index(organ) + 1
        organ_share = on_crop(made_up_fractions())[code : code + 2].sum(0)
        region = organ_share[..., int(row.representative_slice)]
        below = mi2[..., int(row.representative_slice)][region > 0.5] < 0
        assert row.eh_area_ratio == pytest.approx(below.mean(), abs=1e-3)
        assert row.tfs_mm3 > 20
        assert isinstance(row.grade, str)
    assert table.loc["vestibule", "eh_area_ratio"] > 0.1
    assert table.loc[["semicircular_canals", LABYRINTH]].drop(
        columns=["participant_id", "session_id", "side", "model"]
    ).isna().all(axis=None)  # fmt: skip
    marks = pd.read_csv(paths.measured_landmarks(UNIT, model), sep="\t")
    assert marks.empty
    draw_session(UNIT, paths, model, tmp_path)
    assert list(tmp_path.glob("*_overlay.png"))


def test_an_ear_taken_for_the_other_side_is_excluded(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    an_ear(paths, "left")
    with pytest.raises(ExcludedError, match="left ear: the model finds no inner ear"):
        segment_session(a_segmenter("right"), UNIT, paths, tmp_path)


def test_a_part_of_the_labyrinth_is_not_held_to_the_volume_of_the_whole() -> None:
    fractions, affine = made_up_fractions(), fine_affine((38.0, -10.0, 5.0))
    fractions[5:] = 0.0
    options = MeasureOptions(tfs_range_mm3=(130.0, 420.0))
    known = ("cochlea", "vestibule")
    assert implausible(fractions, affine, options, known) is None
    assert "not plausible" in str(implausible(fractions, affine, options))
    fractions[3:5] = 0.0
    assert implausible(fractions, affine, options, known) == "no vestibule was found"


def test_a_cohort_of_area_ratios_has_statistics_of_them_alone() -> None:
    people, ears = made_up_cohort(8)
    ears[["els_mm3", "eh_volume_ratio"]] = np.nan
    ears.loc[ears["organ"].isin(["semicircular_canals", LABYRINTH]), "tfs_mm3"] = np.nan
    found = cohort_statistics(ears, people, None)
    given = found[found["estimate"].notna()]
    assert set(given["measure"]) == {"eh_area_ratio"}
    assert {"group summary", "group comparison", "side comparison"} <= set(given["analysis"])


def test_an_older_bundle_gives_everything() -> None:
    (folder,) = (REPOSITORY / "models" / "paired_unet3d").iterdir()
    bundle = read_bundle(folder)
    assert bundle.organs == ORGANS
    assert bundle.endolymph


def test_an_evaluation_of_areas_says_nothing_of_volumes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ears = pd.DataFrame(
        {"model": "m-1", "anatomy": ["phantom"] * 8, "ratio_true": 0.3, "tfs_mm3": 90.0}
    )
    ears = ears.reindex(columns=list(COLUMNS))
    for organ in ("cochlea", "vestibule"):
        truth = np.linspace(0.1, 0.6, 8)
        for ours, true in AREAS.values():
            ears[f"{organ}_{true}"] = truth
            ears[f"{organ}_{ours}"] = truth + rng.normal(0, 0.005, 8)
    summary = summarise(ears)
    given = set(summary.columns[summary.notna().all()])
    assert {"area ICC(2,1), cochlea", "area ICC(2,1), vestibule"} <= given
    assert not {"ICC(2,1)", "bias", "ELS Dice", "limits of agreement"} & given
    assert not any("ratio: ICC" in column for column in given)
    assert summary["area ICC(2,1), cochlea"].item() > 0.99
    figure = draw_agreement(ears)
    assert "area ratio of the vestibule" in figure.axes[0].get_xlabel()
    options = small()
    weights = tmp_path / "weights.pt"
    torch.save(build_network(options.network).state_dict(), weights)
    write_taught(weights, dict.fromkeys(options.seen_specimens, "1a"))
    card = write_card(
        write_bundle(options, weights, tmp_path / "models"), summary.drop(columns="model"), [], ""
    )
    text = card.read_text(encoding="utf-8")
    assert "cochlea, vestibule, for the EH area ratio" in text
    assert "nan" not in text
