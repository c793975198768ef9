"""Registration and location on whole simulated heads, and on a real ear."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation
from scipy.special import expit

from hydrops.ears import SearchOptions, choose_ears, find_ears, places_of_one, share_outside
from hydrops.errors import ExcludedError
from hydrops.images import (
    affine_of,
    coarsest_voxel_mm,
    crop_affine,
    crop_image,
    cube_affine,
    grid_centre,
    in_cubes,
    load_image,
    read_itk_transform,
    resample,
    save_image,
    write_itk_transform,
)
from hydrops.labels import SIDES
from hydrops.locate import LocateOptions, locate_session
from hydrops.model.contrast import USUAL_PAIR
from hydrops.model.geometry import CROP_SHAPE, CROP_SPACING_MM
from hydrops.paths import Paths, Unit
from hydrops.phantom.anatomy import draw_ear
from hydrops.phantom.cohort import Examination, examine
from hydrops.phantom.head import draw_head, ear_fractions, render, scanner_affine
from hydrops.phantom.motion import draw_motion
from hydrops.phantom.signal import (
    MRC,
    PEI,
    PPI,
    USUAL_FLUIDS,
    as_if_longer_t1,
    null_t1_ms,
)
from hydrops.records import Record, write_record
from hydrops.register import (
    RegisterOptions,
    _averaged,
    check_sign,
    csf_ratio,
    ears_shown,
    match,
    mutual_information,
    near_ears,
    register_rigid,
    register_session,
    sharpness,
)

UNIT = Unit("01", "1")
SMALL = (192, 162, 60)
VOXEL = (1.0, 1.0, 1.2)
COARSE = (1.5, 1.5, 1.5)


def examined(seed: int, **options: object) -> Examination:
    rng = np.random.default_rng(seed)
    return examine(rng, draw_ear(rng, "left"), draw_ear(rng, "right"), **options)


def slab_of(examination: Examination, slices: slice) -> Examination:
    """What a scan of fewer slices shows."""
    images = {role: image[:, :, slices] for role, image in examination.images.items()}
    affine = affine_of((slice(0, None), slice(0, None), slices), examination.affine)
    return replace(examination, affine=affine, images=images)


@pytest.fixture(scope="module")
def examination() -> Examination:
    """As thick as a site's slab of the temporal bones."""
    return slab_of(examined(77), slice(22, 82))


@pytest.fixture(scope="module")
def coarse() -> Examination:
    """The same head in larger voxels, of which whole sessions are registered in less time."""
    return examined(77, voxel_mm=COARSE)


@pytest.mark.parametrize("role", ["PPI", "PEI"])
def test_an_inversion_image_that_kept_its_sign_is_refused(
    examination: Examination, role: str
) -> None:
    mrc, image = examination.images["MRC"], examination.images[role]
    # Brain, whose T1 is short, is positive; all fluid is made negative.
    real = np.where(mrc > 0.3 * mrc.max(), -image, image)
    with pytest.raises(ExcludedError, match=rf"the {role} has negative values .*real image"):
        match(role, mrc, examination.affine, real, examination.affine, RegisterOptions())


def errors_mm(examination: Examination, role: str, found: np.ndarray) -> tuple[float, float]:
    """Error at the landmarks after registration, and without any."""
    head = examination.head
    centre = np.eye(4)
    centre[:3, 3] = head.pose[:3, 3]
    true = centre @ examination.motions[role] @ np.linalg.inv(centre)
    points = np.array([[*p, 1.0] for s in head.ears for p in head.landmarks(s).values()])
    after = np.linalg.norm((points @ (found - true).T)[:, :3], axis=1)
    before = np.linalg.norm((points @ (np.eye(4) - true).T)[:, :3], axis=1)
    return float(after.mean()), float(before.mean())


def test_registration_recovers_real_motion_and_repeats_itself(examination: Examination) -> None:
    box = RegisterOptions().box_mm
    mrc, affine = examination.images["MRC"], examination.affine
    for role in ("PPI", "PEI"):
        found = register_rigid(mrc, affine, examination.images[role], affine, box)
        after, before = errors_mm(examination, role, found)
        assert after < 0.25
        assert after < before
    again = register_rigid(mrc, affine, examination.images["PEI"], affine, box)
    assert np.array_equal(found, again)


@pytest.mark.parametrize("seed", [77, 79])
def test_hydrops_of_the_scanner_is_registered_by_what_is_negative_in_it_too(seed: int) -> None:
    head, rng = examined(seed, voxel_mm=COARSE), np.random.default_rng(seed)
    mrc, affine, motion = head.images["MRC"], head.affine, draw_motion(rng)
    ppi, pei = (render(head.head, s, mrc.shape, affine, rng, motion) for s in (PPI, PEI))
    box = RegisterOptions().box_mm
    found = register_rigid(mrc, affine, np.asarray(ppi - pei, np.float32), affine, box)
    after, _ = errors_mm(replace(head, motions={"HYDROPS": motion}), "HYDROPS", found)
    assert after < 0.12


@pytest.mark.parametrize("large", ["MRC", "PPI"])
def test_a_slab_is_registered_to_an_image_that_reaches_much_further(
    coarse: Examination, large: str
) -> None:
    """The middle of the one lies beyond the other."""
    affine, cut = coarse.affine, slice(14, 42)
    above = np.random.default_rng(1).normal(0.0, 0.002, (*coarse.images["MRC"].shape[:2], 80))
    images = {}
    for role in ("MRC", "PPI"):
        image, slab = coarse.images[role], affine.copy()
        slab[:3, 3] += affine[:3, 2] * cut.start
        whole = np.concatenate([image, np.abs(above)], 2).astype(np.float32)
        images[role] = (whole, affine) if role == large else (image[:, :, cut], slab)
    found = register_rigid(*images["MRC"], *images["PPI"], RegisterOptions().box_mm)
    after, before = errors_mm(coarse, "PPI", found)
    assert after < 0.6 * before


@pytest.mark.parametrize("seed", [0, 1])
def test_layers_that_are_bright_in_one_image_only_do_not_draw_it_away(seed: int) -> None:
    rng = np.random.default_rng(seed)
    affine, shape = np.diag([0.5, 0.5, 1.0, 1.0]), (100, 160, 46)
    x, y, z = (np.indices(shape).T * affine.diagonal()[:3]).T
    above = z - (30 + 2 * np.sin(x / 5) + 3 * np.sin(y / 9))
    brain = expit(above / 0.3)
    # CSF below it, then bone with small spaces of fluid.
    csf = expit((above + 2.5) / 0.3) - brain
    spaces = np.zeros(shape)
    for _ in range(12):
        centre = rng.uniform((10, 20, 8), (40, 60, 22))
        spaces[np.linalg.norm(np.stack([x, y, z], -1) - centre, axis=-1) < rng.uniform(1, 2)] = 1
    fluid = ndimage.gaussian_filter(spaces, (0.8, 0.8, 0.4))

    def seen(signal: np.ndarray) -> np.ndarray:
        noise = rng.normal(0.0, 0.01, (2, *shape))
        return np.asarray(np.hypot(signal + noise[0], noise[1]), np.float32)

    mrc = seen(0.85 * csf + 0.08 * brain + 0.8 * fluid)
    ppi = seen(0.02 * csf + 0.07 * brain + 0.1 * fluid)
    found = register_rigid(mrc, affine, ppi, affine, RegisterOptions().box_mm)
    middle = np.array([25.0, 40.0, 15.0])
    # Nobody moved. Blurred, the CSF draws the brain down by 1.4 and 0.5 mm.
    assert np.linalg.norm(apply_affine(found, middle) - middle) < 0.15


def test_another_patient_is_refused_with_a_reason(coarse: Examination, tmp_path: Path) -> None:
    other = examined(6, voxel_mm=COARSE)
    paths = Paths(tmp_path)
    for role, found in (("MRC", coarse), ("PPI", other), ("PEI", other)):
        save_image(paths.image(UNIT, role), found.images[role], found.affine)
    with pytest.raises(ExcludedError, match=r"PPI (does not match|would have to).*another patient"):
        register_session(UNIT, paths, RegisterOptions(), tmp_path)


def test_noise_is_refused_with_a_reason(coarse: Examination, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    noise = rng.random(coarse.images["MRC"].shape).astype(np.float32)
    paths = Paths(tmp_path)
    for role, image in (("MRC", coarse.images["MRC"]), ("PPI", noise), ("PEI", noise)):
        save_image(paths.image(UNIT, role), image, coarse.affine)
    with pytest.raises(ExcludedError, match=r"PPI (does not match|would have to)"):
        register_session(UNIT, paths, RegisterOptions(), tmp_path)


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (("MRC", "PEI", "PPI"), r"CSF is [23]\.\d\d times as bright in the PPI.*swapped"),
        (("MRC", "PEI", "PEI"), r"CSF is 1\.00 times as bright in the PPI.*one and the same"),
        (("PPI", "PPI", "PEI"), "PPI is the same image as the MRC"),
    ],
)
def test_images_in_one_anothers_place_are_refused(
    coarse: Examination, tmp_path: Path, shown: tuple[str, ...], reason: str
) -> None:
    paths = Paths(tmp_path)
    for role, name in zip(("MRC", "PPI", "PEI"), shown):
        save_image(paths.image(UNIT, role), coarse.images[name], coarse.affine)
    with pytest.raises(ExcludedError, match=reason):
        register_session(UNIT, paths, RegisterOptions(), tmp_path)


def test_an_image_that_nulls_the_csf_too_is_registered_by_its_ears() -> None:
    """Nothing but perilymph is brighter in it than noise: most of the head tells nothing."""
    nulled = null_t1_ms(PPI)
    fluids = replace(USUAL_FLUIDS, csf_ms=nulled, endolymph_ms=nulled)
    head, options = examined(77, fluids=fluids, voxel_mm=VOXEL), RegisterOptions()
    mrc, ppi, affine = head.images["MRC"], head.images["PPI"], head.affine
    found, moved, numbers = match("PPI", mrc, affine, ppi, affine, options)
    assert numbers["similarity"] < options.min_similarity
    after, before = errors_mm(head, "PPI", found)
    assert after < 0.2 < before
    ears = near_ears(ears_shown(mrc, affine, mrc.shape, affine), mrc.shape, affine)
    assert sharpness(mrc, moved, affine, ears) > options.min_sharpness
    noise = np.random.default_rng(7).standard_normal(mrc.shape, dtype=np.float32)
    with pytest.raises(ExcludedError, match=r"nor do its ears: .*hardly any gadolinium"):
        match("PPI", mrc, affine, np.abs(noise), affine, options)


@pytest.mark.parametrize("longer", [-0.02, 0.0, 0.015])
def test_the_t1_of_fluids_are_told_by_the_csf_of_a_head(
    examination: Examination, longer: float
) -> None:
    """Of the image as a scanner with a coil, noise and no sign makes it; gains do not matter."""
    rng, affine = np.random.default_rng(9), scanner_affine(SMALL, VOXEL)
    mrc, ppi, pei = (
        render(examination.head, as_if_longer_t1(s, longer), SMALL, affine, rng)
        for s in (MRC, PPI, PEI)
    )
    ratio = csf_ratio(200.0 * mrc, 3.0 * ppi, 3.0 * pei, affine)
    assert ratio is not None
    assert USUAL_PAIR.longer_t1(ratio) == pytest.approx(longer, abs=0.004)


def test_the_perilymph_of_an_ear_is_not_taken_for_csf() -> None:
    """It is brighter in the PPI, as CSF must not be; an image of an ear alone may show no other."""
    fluid = np.zeros((30, 30, 30), np.float32)
    fluid[5:25, 5:25, 5:25] = 1.0
    ear, head = np.diag([0.4, 0.4, 0.4, 1.0]), np.eye(4)
    assert csf_ratio(fluid, 2.0 * fluid, fluid, ear) is None
    with pytest.raises(ExcludedError, match=r"CSF is 2\.00 times as bright"):
        csf_ratio(fluid, 2.0 * fluid, fluid, head)


def test_csf_that_was_cut_off_at_zero_is_refused() -> None:
    """As in the difference of two images, stored without a sign."""
    fluid = np.zeros((30, 30, 30), np.float32)
    fluid[5:25, 5:25, 5:25] = 1.0
    cut = 0.5 * fluid
    cut[:, :, :18] = 0.0
    with pytest.raises(ExcludedError, match=r"CSF is exactly zero in the PPI"):
        csf_ratio(fluid, cut, fluid, np.eye(4))


def test_without_csf_no_t1_is_told() -> None:
    rng = np.random.default_rng(2)
    speckle = (rng.random((20, 20, 20)) > 0.98).astype(np.float32)
    assert csf_ratio(speckle, speckle, speckle, np.eye(4)) is None


def test_hydrops_of_the_other_sign_is_refused(examination: Examination) -> None:
    """Whatever the gains of the images are, multiplied by the MRC or not."""
    mrc, affine = examination.images["MRC"], examination.affine
    hydrops = 3.0 * (examination.images["PPI"] - examination.images["PEI"])
    for right in (hydrops, hydrops * mrc):
        check_sign(200.0 * mrc, right, affine)
        with pytest.raises(ExcludedError, match="was the PPI taken from the PEI"):
            check_sign(200.0 * mrc, -right, affine)


def test_csf_beyond_the_field_of_view_of_hydrops_is_passed_over(examination: Examination) -> None:
    mrc, affine = examination.images["MRC"], examination.affine
    hydrops = -mrc
    hydrops[..., : mrc.shape[2] * 3 // 4] = 0.0
    check_sign(mrc, hydrops, affine)
    with pytest.raises(ExcludedError, match="100% of it"):
        check_sign(mrc, -hydrops, affine)


def test_a_session_of_hydrops_of_the_other_sign_is_excluded(
    coarse: Examination, tmp_path: Path
) -> None:
    paths, affine = Paths(tmp_path), coarse.affine
    hydrops = coarse.images["PPI"] - coarse.images["PEI"]
    output = paths.registered(UNIT, "HYDROPS").parent
    output.mkdir(parents=True)
    save_image(paths.image(UNIT, "MRC"), coarse.images["MRC"], affine)
    options = RegisterOptions(combination="HYDROPS")
    save_image(paths.image(UNIT, "HYDROPS"), hydrops, affine)
    register_session(UNIT, paths, options, output)
    save_image(paths.image(UNIT, "HYDROPS"), -hydrops, affine)
    with pytest.raises(ExcludedError, match="of it is positive"):
        register_session(UNIT, paths, options, output)


def test_an_mrc_in_place_of_the_pei_leaves_perilymph_positive_and_endolymph_negative(
    examination: Examination, tmp_path: Path
) -> None:
    paths, affine = Paths(tmp_path), examination.affine
    for role, gain in (("MRC", 5000.0), ("PPI", 800.0)):
        save_image(paths.image(UNIT, role), gain * examination.images[role], affine)
    output = paths.registered(UNIT, "HYDROPS").parent
    output.mkdir(parents=True)
    register_session(UNIT, paths, RegisterOptions(combination="MRC-PPI"), output)
    hydrops, _ = load_image(paths.registered(UNIT, "HYDROPS"))
    for side in examination.head.ears:
        there, region = ear_fractions(examination.head, side, hydrops.shape, affine)
        perilymph, endolymph = (there[first::2].sum(0) > 0.98 for first in (1, 2))
        assert (hydrops[region][perilymph] > 0).mean() > 0.9
        assert (hydrops[region][endolymph] < 0).mean() > 0.9


def test_mutual_information_ignores_scale_and_prefers_itself(examination: Examination) -> None:
    mrc, ppi = examination.images["MRC"], examination.images["PPI"]
    assert mutual_information(mrc, 7.0 * ppi) == pytest.approx(mutual_information(mrc, ppi))
    assert mutual_information(mrc, mrc) == pytest.approx(2.0)
    assert mutual_information(mrc, ppi) > mutual_information(mrc, ppi[::-1])


def test_transform_text_comes_back_and_ants_reads_it(tmp_path: Path) -> None:
    ants = pytest.importorskip("ants")
    motion = draw_motion(np.random.default_rng(3))
    write_itk_transform(tmp_path / "x.txt", motion)
    assert np.allclose(read_itk_transform(tmp_path / "x.txt"), motion, atol=1e-9)
    point = np.array([10.0, -20.0, 30.0])
    lps = ants.apply_ants_transform_to_point(
        ants.read_transform(str(tmp_path / "x.txt")), point * [-1, -1, 1]
    )
    moved = motion[:3, :3] @ point + motion[:3, 3]
    assert np.allclose(np.array(lps) * [-1, -1, 1], moved, atol=1e-4)


def small_mrc(tilt: tuple[float, float, float], offset: tuple[float, float, float], seed: int = 1):
    rng = np.random.default_rng(seed)
    ears = {side: draw_ear(rng, side) for side in ("left", "right")}
    head = draw_head(rng, ears["left"], ears["right"], tilt, offset)
    affine = scanner_affine(SMALL, VOXEL)
    return head, render(head, MRC, SMALL, affine, rng), affine


@pytest.mark.parametrize(
    ("tilt", "offset"),
    [((0, 0, 0), (0, 0, 0)), ((30, 0, 0), (4, 6, -3)), ((0, 20, 0), (0, 0, 0)),
     ((0, 0, 20), (-9, 12, 5)), ((-12, -10, -12), (8, -10, 4))],
)  # fmt: skip
def test_both_ears_are_found_in_tilted_and_shifted_heads(
    tilt: tuple[float, float, float], offset: tuple[float, float, float]
) -> None:
    head, image, affine = small_mrc(tilt, offset)
    found = find_ears(image, affine, SearchOptions())
    for side in ("left", "right"):
        true = head.to_scanner(head.places[side])
        assert np.linalg.norm(found.centres[side] - true) < 2.0


def test_a_real_ear_is_the_best_match_however_its_head_is_turned(shared_data: Path) -> None:
    image, affine = load_image(shared_data / "inner-ear-t2" / "left.nii.gz")
    middle = grid_centre(image.shape, affine)
    places = []
    for axis, degrees in (("x", 0), ("x", 30), ("x", -30), ("y", -20), ("y", 20), ("z", -20)):
        turn = Rotation.from_euler(axis, degrees, degrees=True)
        there = np.eye(4)
        there[:3, :3] = turn.as_matrix()
        there[:3, 3] = middle - turn.apply(middle)
        found = find_ears(image, there @ affine, SearchOptions()).centres
        assert list(found) == ["left"]
        places.append(turn.inv().apply(found["left"] - middle))
        assert np.linalg.norm(places[-1] - places[0]) < 1.5


def test_an_ear_may_match_less_beside_one_that_matches_well() -> None:
    options = SearchOptions()
    here, there, far = (np.array([x, 0.0, 0.0]) for x in (-37.0, 37.0, 120.0))
    weak, good = options.min_score_beside + 0.01, options.min_score + 0.01
    pair = {"left": [(here, good)], "right": [(there, weak)]}
    assert set(choose_ears(pair, options).centres) == {"left", "right"}
    assert set(choose_ears({"left": [(here, good)], "right": [(far, weak)]}, options).centres) == {
        "left"
    }
    assert not choose_ears({"left": [(here, weak)], "right": [(there, weak)]}, options).centres
    assert not choose_ears({"left": [], "right": [(there, weak)]}, options).centres
    swapped = {"left": [(there, good)], "right": [(here, good)]}
    assert len(choose_ears(swapped, options).centres) == 1


def test_one_ear_is_looked_for_where_it_matches_nearly_as_well_as_best() -> None:
    here, there, far = (np.array([x, 0.0, 0.0]) for x in (0.0, 10.0, 20.0))
    found = places_of_one({"left": [(here, 0.60), (far, 0.45)], "right": [(there, 0.55)]})
    assert [(side, float(point[0])) for side, point in found] == [("left", 0.0), ("right", 10.0)]
    assert places_of_one({"left": [], "right": []}) == []


def test_mirrored_head_swaps_its_ears_and_gain_does_not_matter() -> None:
    _, image, affine = small_mrc((3, -2, 4), (0, 0, 0))
    plain = find_ears(image, affine, SearchOptions())
    scaled = find_ears(image * 321.0, affine, SearchOptions())
    mirrored = find_ears(np.ascontiguousarray(image[::-1]), affine, SearchOptions())
    for side, other in (("left", "right"), ("right", "left")):
        assert np.allclose(plain.centres[side], scaled.centres[side], atol=0.05)
        reflected = plain.centres[other] * [-1.0, 1.0, 1.0]
        assert np.linalg.norm(mirrored.centres[side] - reflected) < 1.0


def locate(image: np.ndarray, affine: np.ndarray, tmp_path: Path):
    paths = Paths(tmp_path)
    save_image(paths.image(UNIT, "MRC"), image.astype(np.float32), affine)
    registered = Record("register", UNIT.participant, UNIT.session, "done")
    write_record(paths.record("register", UNIT), registered)
    output = tmp_path / "crops"
    output.mkdir()
    return locate_session(UNIT, paths, LocateOptions(combination="none"), output)


def test_an_ear_beyond_the_edge_is_excluded_alone(tmp_path: Path) -> None:
    head, image, affine = small_mrc((2, 0, 0), (0, 0, 0))
    edge = round(96 - head.to_scanner(head.places["right"])[0])  # rows run to the left
    cut = affine.copy()
    cut[:3, 3] += affine[:3, 0] * (edge + 20)
    result = locate(image[edge + 20 :], cut, tmp_path)
    assert list(result.excluded_sides) == ["right"]
    assert "outside the MRC's field of view" in result.excluded_sides["right"]
    assert list(result.numbers["centres_ras_mm"]) == ["left"]
    assert result.numbers["voxel_mm"] == pytest.approx(VOXEL)


def test_an_ear_that_another_image_cuts_is_excluded_alone(tmp_path: Path) -> None:
    """The PPI reaches from left to right only to two millimetres beyond the left vestibule."""
    head, image, affine = small_mrc((0, 0, 0), (0, 0, 0))
    paths = Paths(tmp_path)
    reached = round(96 - head.to_scanner(head.places["left"])[0]) + 2  # rows run to the left
    images = {"MRC": image, "PPI": 0.5 * image[:reached], "PEI": image}
    for role, shown in images.items():
        save_image(paths.image(UNIT, role), shown.astype(np.float32), affine)
        paths.transform(UNIT, role).parent.mkdir(parents=True, exist_ok=True)
        write_itk_transform(paths.transform(UNIT, role), np.eye(4))
    registered = Record("register", UNIT.participant, UNIT.session, "done")
    write_record(paths.record("register", UNIT), registered)
    output = tmp_path / "crops"
    output.mkdir()
    result = locate_session(UNIT, paths, LocateOptions(), output)
    assert result.excluded_sides == {
        "left": "the left inner ear is cut by the edge of the PPI's field of view"
    }
    assert list(result.numbers["centres_ras_mm"]) == ["right"]
    first = round(96 - head.to_scanner(head.places["right"])[0]) - 2
    beyond = affine.copy()
    beyond[:3, 3] += affine[:3, 0] * first
    save_image(paths.image(UNIT, "PEI"), image[first:].astype(np.float32), beyond)
    with pytest.raises(ExcludedError, match=r"edge of the PPI's .*; .* of the PEI's"):
        locate_session(UNIT, paths, LocateOptions(), output)


def test_an_image_with_nothing_above_zero_shows_no_ears() -> None:
    image = -np.ones((24, 24, 24), np.float32)
    assert not find_ears(image, np.eye(4), SearchOptions()).centres


def test_a_head_without_ears_is_excluded(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    head = draw_head(rng, None, None)
    affine = scanner_affine(SMALL, VOXEL)
    with pytest.raises(ExcludedError, match="no left inner ear can be recognised"):
        locate(render(head, MRC, SMALL, affine, rng), affine, tmp_path)


def test_a_real_ear_is_found_on_its_side(shared_data: Path) -> None:
    image, affine = load_image(shared_data / "inner-ear-t2" / "left.nii.gz")
    found = find_ears(image, affine, SearchOptions())
    assert list(found.centres) == ["left"]
    # The crop was cut around the ear.
    middle = affine[:3] @ [*(np.array(image.shape) - 1) / 2, 1.0]
    assert np.linalg.norm(found.centres["left"] - middle) < 4.0


@given(st.permutations(range(3)), st.integers(0, 2**16))
def test_a_voxel_reaches_as_far_along_a_grid_as_its_box_blurs(order: list[int], seed: int) -> None:
    sizes, turn = np.array([0.4, 0.7, 1.2]), np.eye(4)
    stored = np.diag([*sizes, 1.0])[:, [*order, 3]] @ np.diag([-1.0, 1.0, -1.0, 1.0])
    grid = np.diag([0.5, 0.5, 1.0, 1.0])
    assert coarsest_voxel_mm(grid, stored) == pytest.approx(sizes)
    assert coarsest_voxel_mm(grid, stored, np.eye(4)) == pytest.approx([1.0, 1.0, 1.2])
    turn[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    # Against the spread of points that fill the voxel, whichever way it lies.
    points = np.random.default_rng(seed).uniform(-0.5, 0.5, (20_000, 3)) @ (turn @ stored)[:3, :3].T
    found = coarsest_voxel_mm(grid, turn @ stored)
    assert found == pytest.approx(points.std(0) * 12**0.5, rel=0.03)
    assert coarsest_voxel_mm(turn, turn @ stored) == pytest.approx(sizes)


def test_resampling_moves_by_the_transform_and_keeps_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = nib.Nifti1Image(rng.random((30, 30, 30)).astype(np.float32), np.eye(4))
    shifted = np.eye(4)
    shifted[:3, 3] = (2.0, -1.0, 3.0)
    data = np.asarray(smooth.dataobj)
    out = resample(data, np.eye(4), (10, 10, 10), np.eye(4) + 0.0, shifted)
    assert np.allclose(out[:, 1:, :], data[2:12, 0:9, 3:13], atol=1e-4)
    middle = crop_affine([1.0, 2.0, 3.0]) @ [*(np.array(CROP_SHAPE) - 1) / 2, 1.0]
    assert np.allclose(middle[:3], [1.0, 2.0, 3.0])
    save_image(tmp_path / "a.nii.gz", np.array([[[0, 255]] * 2] * 2, np.uint8), np.eye(4), 1 / 255)
    assert np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj).max() == pytest.approx(1.0)


@settings(max_examples=20, deadline=None)
@given(
    st.permutations([0, 1, 2]),
    st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    st.lists(st.floats(-12.0, 12.0), min_size=3, max_size=3),
    st.lists(st.floats(-4.0, 4.0), min_size=3, max_size=3),
)
def test_a_crop_of_the_published_voxels_is_not_interpolated(
    order: list[int], signs: tuple[float, ...], tilt: list[float], centre: list[float]
) -> None:
    """However the image is stored, its own values come out, nearest to R, A, S."""
    rng = np.random.default_rng(0)
    turn = Rotation.from_euler("xyz", tilt, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = (turn @ np.diag(np.array(CROP_SPACING_MM) * signs))[:, order]
    shape = tuple(np.array((90, 90, 50))[order])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) / 2)
    image = rng.random(shape).astype(np.float32)
    grid = crop_affine(centre, affine)
    assert np.abs(grid[:3, :3] / CROP_SPACING_MM - np.eye(3)).max() < 0.5
    middle = grid @ [*(np.array(CROP_SHAPE) - 1) / 2, 1.0]
    assert (np.abs(np.linalg.inv(grid)[:3, :3] @ (middle[:3] - centre)) <= 0.5 + 1e-6).all()
    everywhere = np.moveaxis(np.indices(CROP_SHAPE), 0, -1)
    places = apply_affine(np.linalg.inv(affine) @ grid, everywhere)
    assert np.allclose(places, np.round(places), atol=1e-6)
    own = image[tuple(np.moveaxis(np.round(places).astype(int), -1, 0))]
    assert np.allclose(crop_image(image, affine, grid), own, atol=1e-4)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("edge_mm", [-2.0, 2.0])
def test_of_an_ear_at_the_edge_as_much_lies_outside_as_a_drawn_one_has_there(
    side: str, edge_mm: float
) -> None:
    """The right edge of an image, which cuts off other parts of a right ear than of a left."""
    ear = draw_ear(np.random.default_rng(3), side, variation=0.0)
    right = (np.argwhere(ear.labels > 0) * ear.spacing_mm + ear.origin_mm)[:, 0]
    shape, affine = (80, 100, 100), np.diag([0.5, 0.5, 0.5, 1.0])
    centre = np.array([39.75 - edge_mm, 25.0, 25.0])
    found = share_outside(side, centre, shape, affine)
    assert found == pytest.approx((right > edge_mm).mean(), abs=0.005)
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    other = SIDES[1 - SIDES.index(side)]
    there = share_outside(other, mirror[:3, :3] @ centre, shape, mirror @ affine)
    assert there == pytest.approx(found, abs=1e-3)
    assert abs(share_outside(other, centre, shape, affine) - found) > 0.03


def test_averaged_voxels_lie_where_those_did_that_they_are_made_of() -> None:
    """Voxels that hold their own place: what is made of them holds its own too."""
    affine = np.diag([0.3, 0.5, 1.2, 1.0])
    affine[:3, :3] = (
        Rotation.from_euler("xyz", (10, -20, 30), degrees=True).as_matrix() @ (affine[:3, :3])
    )
    affine[:3, 3] = [5.0, -7.0, 11.0]
    for axis in range(3):
        places = apply_affine(affine, np.moveaxis(np.indices((20, 14, 6)), 0, -1))[..., axis]
        data, coarse = _averaged(places.astype(np.float32), affine)
        assert data.shape == (6, 7, 6)
        expected = apply_affine(coarse, np.moveaxis(np.indices(data.shape), 0, -1))[..., axis]
        assert np.allclose(data, expected, atol=1e-4)


def test_finer_voxels_are_averaged_into_those_of_the_crop() -> None:
    """Fluid keeps its volume whatever the voxel; nothing is picked out and the rest dropped."""
    rng = np.random.default_rng(1)
    affine = np.diag([0.25, 0.25, 0.25, 1.0])
    image = np.zeros((140, 140, 140), np.float32)
    image[20:120, 20:120, 20:120] = rng.random((100, 100, 100))
    grid = crop_affine([17.5, 17.5, 17.5], affine)
    total = crop_image(image, affine, grid).sum() * np.prod(CROP_SPACING_MM)
    assert total == pytest.approx(image.sum() * 0.25**3, rel=0.02)


def test_a_crop_in_cubes_lies_where_the_crop_lies() -> None:
    grid = crop_affine([3.0, -2.0, 7.0])
    z = np.broadcast_to(np.arange(CROP_SHAPE[2], dtype=np.float32), CROP_SHAPE)
    heights = grid[2, 3] + CROP_SPACING_MM[2] * z
    cubes, affine = in_cubes(np.asarray(heights, np.float32)), cube_affine(grid)
    inside = slice(1, -1)
    expected = affine[2, 3] + 0.5 * np.arange(cubes.shape[2])
    assert np.allclose(cubes[5, 5, inside], expected[inside], atol=1e-3)
