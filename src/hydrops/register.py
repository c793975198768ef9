"""Register the inversion images to the MRC, rigidly, and make HYDROPS and HYDROPS-Mi2."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hydrops.arrays import Affine, FloatGrid
from hydrops.ears import REACH_MM, SearchOptions, find_ears
from hydrops.errors import ExcludedError
from hydrops.images import (
    affine_of,
    ball_around,
    box_around,
    distance_to_edge,
    grid_centre,
    load_image,
    lps_to_ras,
    part_under,
    resample,
    save_image,
    spacing_mm,
    voxel_mm3,
    write_itk_transform,
)
from hydrops.paths import Paths, Unit
from hydrops.protocol import MOVING_ROLES
from hydrops.records import CSF_RATIO, StageResult
from hydrops.scale import check_one_scale

#: RAS mm.
Point = npt.NDArray[np.float64]

#: How far images are moved apart to see whether they match, mm.
APART_MM = 4.0
#: Bins of each image's intensities in what few voxels share; of more, noise would share as much.
FEW_BINS = 8
#: What a record calls the weight of an MRC that takes the place of the PEI.
MRC_WEIGHT = "mrc_weight"
#: Fluid without its surface that is CSF for the most part, mm3: both ears together have 500 at
#: most, surface and all.
LEAST_CSF_MM3 = 500.0
#: Percentile of the gradients of an MRC above which one is an edge to register by.
EDGE_PERCENTILE = 90.0
#: Voxels from which on to look at more makes a registration hardly better: six images of whole
#: skull bases lie 0.024 mm off with these and 0.023 with twice as many. Of small fields of view, in
#: which there are fewer, a larger share is looked at.
ENOUGH_VOXELS = 180_000
#: How far below zero, as a share of what is bright, interpolation may have taken a magnitude.
MOST_UNDERSHOOT = 0.05


@dataclass(frozen=True)
class RegisterOptions:
    """How to register, and what is too bad to use.

    Parameters
    ----------
    combination
        How HYDROPS is made: PPI-PEI, HYDROPS, MRC-PPI or none.
    box_mm
        Region around the middle of what both images show, along R, A and S, that is registered:
        the skull base.
    max_rotation_deg, max_translation_mm
        More motion than a patient makes between two series in a head coil; of 242 real patients
        none exceeded 2.5 degrees and 1.3 mm. Another patient's head needs more.
    min_similarity
        Least normalised mutual information (Studholme et al., Pattern Recognit 1999;32:71) of
        the registered pair. With less it is registered by the ears alone: an inversion image that
        nulls the CSF, too, shows nothing but their perilymph.
    min_sharpness
        See `sharpness`; least of a pair that is registered by the ears, moved by at most half of
        what is allowed.
    """

    combination: str = "PPI-PEI"
    box_mm: tuple[float, float, float] = (140.0, 110.0, 80.0)
    max_rotation_deg: float = 8.0
    max_translation_mm: float = 8.0
    min_similarity: float = 1.03
    min_sharpness: float = 8.0


def register_session(
    unit: Unit, paths: Paths, options: RegisterOptions, output: Path
) -> StageResult:
    """Register every inversion image of a session to its MRC and combine them.

    Writes the transforms (ITK text, MRC points to the role's), HYDROPS and HYDROPS-Mi2 on the
    grid of the MRC (float32, each made by one interpolation).

    Raises
    ------
    ExcludedError
        If an image cannot be read, see `check_magnitude`, `match`, `csf_ratio`, `check_sign` and
        `hydrops.scale.check_one_scale`.
    """
    mrc, affine = load_image(paths.image(unit, "MRC"))
    check_magnitude(mrc)
    motion: dict[str, dict[str, float]] = {}
    result = StageResult(numbers={"roles": motion})
    own: dict[str, FloatGrid] = {}
    moved: dict[str, FloatGrid] = {}
    for role in MOVING_ROLES[options.combination]:
        own[role], image_affine = load_image(paths.image(unit, role))
        transform, moved[role], motion[role] = match(
            role, mrc, affine, own[role], image_affine, options
        )
        write_itk_transform(output / paths.transform(unit, role).name, transform)
    weight = None
    if options.combination == "MRC-PPI":
        weight = round(mrc_weight(mrc, moved["PPI"]), 5)
        result.numbers[MRC_WEIGHT] = weight
    if options.combination == "PPI-PEI":
        result.numbers[CSF_RATIO] = csf_ratio(mrc, moved["PPI"], moved["PEI"], affine)
        result.numbers["noise_ratio"] = check_one_scale(own["PPI"], own["PEI"])
    hydrops = combine(options.combination, mrc, moved, weight)
    if hydrops is not None:
        # Made with a weight of the MRC, it leaves open which sign CSF has.
        if weight is None:
            check_sign(mrc, hydrops, affine)
        for kind, image in (("HYDROPS", hydrops), ("HYDROPSMi2", hydrops * mrc)):
            save_image(output / paths.registered(unit, kind).name, image, affine)
    return result


def match(
    role: str,
    mrc: FloatGrid,
    affine: Affine,
    image: FloatGrid,
    image_affine: Affine,
    options: RegisterOptions,
) -> tuple[Affine, FloatGrid, dict[str, float]]:
    """Register an image to the MRC: the transform, the image on its grid, and how well it fits.

    Parameters
    ----------
    mrc, image
        (x, y, z), each on its own grid.

    Returns
    -------
    4 x 4 from the MRC's world to the image's, RAS mm; the image on the grid of the MRC; numbers for
    the record: rotation in degrees, translation in mm, similarity.

    Raises
    ------
    ExcludedError
        If it is the MRC once more, a PPI or PEI that is no magnitude, moved further than a patient
        can, or does not match the MRC.
    """
    if np.array_equal(image, mrc):
        raise ExcludedError(f"{role} is the same image as the MRC: was one file given for both?")
    # HYDROPS, made by the scanner, is a difference.
    if role != "HYDROPS":
        check_magnitude(image, role)
    transform = register_rigid(mrc, affine, image, image_affine, options.box_mm)
    moved = resample(image, image_affine, mrc.shape, affine, transform)
    similarity = mutual_information(mrc, moved)
    faint = similarity < options.min_similarity
    ears = ears_shown(mrc, affine, image.shape, image_affine) if faint else []
    if ears:
        transform = register_by_ears(
            mrc, affine, image, image_affine, ears, options.max_translation_mm
        )
        moved = resample(image, image_affine, mrc.shape, affine, transform)
    angle, length = motion_size(transform, grid_centre(mrc.shape, affine))
    if angle > options.max_rotation_deg or length > options.max_translation_mm:
        raise ExcludedError(
            f"{role} would have to be turned by {angle:.1f} degrees and moved by "
            f"{length:.1f} mm to match the MRC: another patient, or a failed registration"
        )
    near = angle <= options.max_rotation_deg / 2 and length <= options.max_translation_mm / 2
    if faint and not (
        near
        and ears
        and sharpness(mrc, moved, affine, near_ears(ears, mrc.shape, affine))
        >= options.min_sharpness
    ):
        raise ExcludedError(
            f"{role} does not match the MRC (similarity {similarity:.3f}, at least "
            f"{options.min_similarity} is needed), nor do its ears: motion, noise, another "
            "patient, or hardly any gadolinium"
        )
    numbers = {
        "rotation_deg": round(angle, 4),
        "translation_mm": round(length, 4),
        "similarity": round(similarity, 4),
    }
    return transform, moved, numbers


def combine(
    combination: str, mrc: FloatGrid, roles: Mapping[str, FloatGrid], weight: float | None = None
) -> FloatGrid | None:
    """HYDROPS from images on one grid; None where the protocol has no inversion image.

    Parameters
    ----------
    weight
        Of the MRC where it takes the place of the PEI (HYDROPS2: Naganawa et al., Magn Reson Med
        Sci 2022;21:401), see `mrc_weight`.
    """
    if combination == "PPI-PEI":
        return roles["PPI"] - roles["PEI"]
    if combination == "HYDROPS":
        return roles["HYDROPS"]
    if combination == "MRC-PPI" and weight is not None:
        return roles["PPI"] - np.float32(weight) * mrc
    return None


def mrc_weight(mrc: FloatGrid, ppi: FloatGrid) -> float:
    """What the MRC is multiplied by so that PPI minus MRC tells perilymph from other fluid.

    The gains of the two images are not the same, and perilymph that gadolinium has reached is the
    brightest of the fluids in the PPI: half of its brightness beside the MRC lies in the middle
    between it and what the PPI nulls.
    """
    fluid = _is_fluid(mrc)
    if not fluid.any():
        return 0.0
    return float(0.5 * np.percentile(ppi[fluid] / mrc[fluid], 99.5))


def csf_ratio(mrc: FloatGrid, ppi: FloatGrid, pei: FloatGrid, affine: Affine) -> float | None:
    """How bright CSF is in the PPI, as a multiple of that in the PEI; None where there is no CSF.

    By images on one grid, the median.

    Raises
    ------
    ExcludedError
        If CSF is not darker in the PPI, or exactly zero in most of its voxels there, as only an
        image can be whose negative values were cut off.
    """
    csf = _inside_csf(mrc, pei, affine)
    if csf is None:
        return None
    nothing = float((ppi[csf] == 0.0).mean())
    if nothing > 0.5:
        raise ExcludedError(
            f"{nothing:.0%} of the CSF is exactly zero in the PPI, as in no magnitude: is it a "
            "subtraction that was cut off at zero, or does it show less of the head than the PEI?"
        )
    ratio = float(np.median(np.abs(ppi[csf] / pei[csf])))
    if ratio >= 1.0:
        raise ExcludedError(
            f"CSF is {ratio:.2f} times as bright in the PPI as in the PEI, but should be darker: "
            "are they swapped, one and the same, scaled differently, or of other inversion times?"
        )
    return round(ratio, 5)


def check_sign(mrc: FloatGrid, hydrops: FloatGrid, affine: Affine) -> bool:
    """Refuse HYDROPS or HYDROPS-Mi2 in which most of the CSF is not negative; images on one grid.

    Returns
    -------
    Whether there is CSF to tell it by.

    Raises
    ------
    ExcludedError
        CSF is negative, as endolymph is (Naganawa et al., Magn Reson Med Sci 2012;11:213).
    """
    csf = _inside_csf(mrc, hydrops, affine)
    if csf is None:
        return False
    positive = float((hydrops[csf] > 0.0).mean())
    if positive >= 0.5:
        raise ExcludedError(
            f"CSF should be negative in HYDROPS, as endolymph is, but {positive:.0%} of it is "
            "positive: was the PPI taken from the PEI, or is this another image altogether?"
        )
    return True


def check_magnitude(image: FloatGrid, role: str = "MRC") -> None:
    """Refuse an image that is no magnitude: one that was normalised, or that kept its sign.

    Raises
    ------
    ExcludedError
        If it has negative values of note; interpolation leaves some next to bright edges.
    """
    lowest, highest = np.percentile(image, (0.1, 99.9))
    if lowest < -MOST_UNDERSHOOT * highest:
        raise ExcludedError(
            f"the {role} has negative values (a thousandth are below {lowest:.4g}), which a "
            "magnitude has not: was it normalised, or is it a real image, which keeps the sign? "
            "Give the magnitude as the scanner made it"
        )


def _inside_csf(mrc: FloatGrid, other: FloatGrid, affine: Affine) -> npt.NDArray[np.bool_] | None:
    """Where CSF is, well within its borders and the field of view of another image; None: nowhere.

    Nearly all fluid of a head lies in its cisterns and ventricles. Where there is less than
    `LEAST_CSF_MM3` of it, it may be that of the ears.
    """
    csf = np.asarray(ndimage.binary_erosion(_is_fluid(mrc)) & (other != 0.0))
    enough = csf.sum() * voxel_mm3(affine) >= LEAST_CSF_MM3
    return csf if enough else None


def register_rigid(
    fixed: FloatGrid,
    fixed_affine: Affine,
    moving: FloatGrid,
    moving_affine: Affine,
    box_mm: Sequence[float],
) -> Affine:
    """Rigid transform from the fixed image's world to the moving one's, 4 x 4, RAS mm.

    ANTs (Avants et al., NeuroImage 2011;54:2033), Mattes mutual information, around the middle of
    what both show, started from no motion: on blurred voxels of about 2 mm, then by the sharpest
    edges of the fixed image on voxels of about 1 mm, blurred and as they are. Tissues that lie side
    by side, bright in one image and dark in the other, draw a blurred match to where they are not,
    in a small field of view by a millimetre and more. One thread and a seed make it repeat itself
    bit for bit.

    Parameters
    ----------
    fixed, moving
        (x, y, z), each on its own grid.
    box_mm
        Size along R, A and S of the box that is matched.
    """
    middle = _middle_of_both(fixed.shape, fixed_affine, moving.shape, moving_affine)
    still, still_affine = _averaged(*_box_around(middle, fixed, fixed_affine, box_mm))
    moved, moved_affine = _averaged(*_box_around(middle, moving, moving_affine, box_mm))
    coarse = _rigid(
        (still, still_affine),
        (moved, moved_affine),
        shrink=2,
        smoothing=(1.0,),
        sampled=min(0.4, ENOUGH_VOXELS / still.size),
    )
    fine = _rigid(
        (_without_extremes(still), still_affine),
        (_without_extremes(moved), np.linalg.inv(coarse) @ moved_affine),
        shrink=1,
        smoothing=(1.0, 0.0),
        sampled=min(0.3, ENOUGH_VOXELS / still.size),
        counts=_at_edges(still),
    )
    return coarse @ fine


def _at_edges(data: FloatGrid) -> npt.NDArray[np.bool_]:
    """Voxels at the sharpest edges of an image, or next to one."""
    steepness = ndimage.gaussian_gradient_magnitude(data, 1.0)
    return np.asarray(
        ndimage.binary_dilation(steepness > np.percentile(steepness, EDGE_PERCENTILE))
    )


def _without_extremes(data: FloatGrid) -> FloatGrid:
    """An image cut off where few voxels are brighter: they would leave few bins to all others.

    So is one with a sign, as HYDROPS has, at its other end; a magnitude ends at zero.
    """
    low, high = np.percentile(data, (0.5, 99.5))
    return np.asarray(np.clip(data, min(0.0, float(low)), high), np.float32)


def ears_shown(
    mrc: FloatGrid, affine: Affine, shape: Sequence[int], image_affine: Affine
) -> list[Point]:
    """Middles (RAS mm) of the inner ears of an MRC that another image, of this grid, shows, too."""
    centres = find_ears(mrc, affine, SearchOptions()).centres.values()
    return [c for c in centres if distance_to_edge(c, shape, image_affine) >= 0.0]


def near_ears(ears: Sequence[Point], shape: Sequence[int], affine: Affine) -> npt.NDArray[np.bool_]:
    """Voxels of a grid that lie in ears or close around them, by their middles (RAS mm)."""
    return np.asarray(np.any([ball_around(c, REACH_MM, shape, affine) for c in ears], axis=0))


def register_by_ears(
    mrc: FloatGrid,
    affine: Affine,
    image: FloatGrid,
    image_affine: Affine,
    ears: Sequence[Point],
    most_mm: float,
) -> Affine:
    """Rigid transform as of `register_rigid`, by what lies in the ears; voxels of about 1 mm.

    Parameters
    ----------
    ears
        See `ears_shown`; one at least.
    most_mm
        How far the image may have to be moved.
    """
    box = box_around(near_ears(ears, mrc.shape, affine), list(most_mm / spacing_mm(affine)))
    around = affine_of(box, affine)
    there, there_affine = part_under(mrc[box].shape, around, image.shape, image_affine)
    fixed, counts = _averaged_ears(mrc[box], around, ears)
    moving, _ = _averaged_ears(image[there], there_affine, ears)
    return _rigid(fixed, moving, shrink=1, smoothing=(0.5,), sampled=1.0, counts=counts)


def _averaged_ears(
    data: FloatGrid, affine: Affine, ears: Sequence[Point]
) -> tuple[tuple[FloatGrid, Affine], npt.NDArray[np.bool_]]:
    """An image in averaged voxels and the range it has in ears, and which of them lie in ears.

    Fat and skin may be brighter than anything in an ear, and would leave few bins to it.
    """
    part, part_affine = _averaged(data, affine)
    inside = near_ears(ears, part.shape, part_affine)
    low, high = np.percentile(part[inside], (1.0, 99.5))
    return (np.asarray(np.clip(part, low, high), np.float32), part_affine), inside


def _rigid(
    fixed: tuple[FloatGrid, Affine],
    moving: tuple[FloatGrid, Affine],
    shrink: int,
    smoothing: Sequence[float],
    sampled: float,
    counts: npt.NDArray[np.bool_] | None = None,
) -> Affine:
    """Rigid transform (RAS mm) by Mattes mutual information, started from no motion.

    Parameters
    ----------
    shrink
        By how many voxels the images are thinned out.
    smoothing
        SD of the blur before, voxels; one for each level.
    sampled
        Share of the voxels that are looked at.
    counts
        Voxels of the fixed image that count; all when None.
    """
    # ITK reads it once, before its first filter.
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    import ants

    masked: dict[str, Any] = {}
    if counts is not None:
        mask = _to_ants(np.asarray(counts, np.float32), fixed[1])
        masked = {"mask": mask, "mask_all_stages": True}
    with tempfile.TemporaryDirectory() as scratch:
        done = ants.registration(
            _to_ants(*fixed),
            _to_ants(*moving),
            type_of_transform="Rigid",
            initial_transform="Identity",
            outprefix=f"{scratch}/",
            aff_metric="mattes",
            aff_sampling=32,
            aff_random_sampling_rate=sampled,
            aff_iterations=(80,) * len(smoothing),
            aff_shrink_factors=(shrink,) * len(smoothing),
            aff_smoothing_sigmas=tuple(smoothing),
            random_seed=1,
            **masked,
        )
        found = ants.read_transform(done["fwdtransforms"][0])
    numbers, centre = np.array(found.parameters), np.array(found.fixed_parameters)
    lps = np.eye(4)
    lps[:3, :3] = numbers[:9].reshape(3, 3)
    lps[:3, 3] = numbers[9:] + centre - lps[:3, :3] @ centre
    return lps_to_ras(lps)


def motion_size(transform: Affine, centre: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Angle (deg) of a rigid transform and how far it moves a point (mm)."""
    angle = float(np.rad2deg(Rotation.from_matrix(transform[:3, :3]).magnitude()))
    moved = transform[:3, :3] @ centre + transform[:3, 3]
    return angle, float(np.linalg.norm(moved - centre))


def mutual_information(
    first: FloatGrid,
    second: FloatGrid,
    where: npt.NDArray[np.bool_] | None = None,
    bins: int = 32,
) -> float:
    """Normalised mutual information (1 to 2) of two images on one grid.

    Intensities fall into bins of one width between the 1st and the 99.5th percentile.

    Parameters
    ----------
    where
        Voxels that count; every second one in plane of the middle of the grid when None.
    """
    counted: Any = where
    if where is None:
        counted = tuple(slice(n // 5, n - n // 5, step) for n, step in zip(first.shape, (2, 2, 1)))
    a, b = (_binned(image[counted], bins) for image in (first, second))
    joint = np.bincount(a * bins + b, minlength=bins * bins).reshape(bins, bins) / a.size
    return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / max(_entropy(joint.ravel()), 1e-9)


def sharpness(
    first: FloatGrid, second: FloatGrid, affine: Affine, where: npt.NDArray[np.bool_]
) -> float:
    """How much of the mutual information of two images is lost where they are `APART_MM` apart.

    What two images of one grid share (`mutual_information` less one) in their places, as a multiple
    of the most that they share once the second is moved along an axis, either way.

    Parameters
    ----------
    where
        Voxels that count.
    """
    steps = np.maximum(1, np.round(APART_MM / spacing_mm(affine))).astype(int)
    box = box_around(where, steps.tolist())
    first, second, where = first[box], second[box], where[box]
    moved = [
        mutual_information(first, np.roll(second, sign * int(step), axis), where, FEW_BINS)
        for axis, step in enumerate(steps)
        for sign in (1, -1)
    ]
    in_place = mutual_information(first, second, where, FEW_BINS)
    return (in_place - 1.0) / max(max(moved) - 1.0, 1e-9)


def _is_fluid(mrc: FloatGrid) -> npt.NDArray[np.bool_]:
    """Where an MRC is as bright as fluid is."""
    return np.asarray(mrc > 0.5 * np.percentile(mrc, 99.9))


def _binned(image: FloatGrid, bins: int) -> npt.NDArray[np.int64]:
    low, high = np.percentile(image, (1.0, 99.5))
    scaled = (image - low) / max(float(high - low), 1e-9)
    return np.asarray(np.clip(scaled * bins, 0, bins - 1), np.int64).ravel()


def _entropy(shares: npt.NDArray[np.float64]) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


def _middle_of_both(
    shape: Sequence[int], affine: Affine, other_shape: Sequence[int], other: Affine
) -> Point:
    """Voxel, as its RAS mm, in the middle of what one image shows of another's field of view.

    The middle of the image where the other shows none of it.
    """
    part, _ = part_under(other_shape, other, shape, affine)
    shown = part if all(side.stop > side.start for side in part) else [slice(0, n) for n in shape]
    return np.asarray(apply_affine(affine, [(side.start + side.stop) // 2 for side in shown]))


def _box_around(
    middle: Point, data: FloatGrid, affine: Affine, box_mm: Sequence[float]
) -> tuple[FloatGrid, Affine]:
    """Part of an image within a box around a point along its axes, which lie closest to R, A, S.

    All of the image where it has nothing there.
    """
    directions = np.abs(affine[:3, :3]) / spacing_mm(affine)
    extent = np.array([box_mm[int(np.argmax(directions[:, axis]))] for axis in range(3)])
    half = np.ceil(extent / 2 / spacing_mm(affine)).astype(int)
    voxel = np.round(apply_affine(np.linalg.inv(affine), middle)).astype(int)
    low = np.maximum(voxel - half, 0)
    high = np.minimum(voxel + half, data.shape)
    if (high <= low).any():
        return data, affine
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high))
    return data[box], affine_of(box, affine)


def _averaged(data: FloatGrid, affine: Affine, target_mm: float = 1.0) -> tuple[FloatGrid, Affine]:
    """Average whole voxels into ones of about `target_mm`."""
    factors = np.maximum(1, np.round(target_mm / spacing_mm(affine))).astype(int)
    size = np.array(data.shape) // factors
    kept = data[tuple(slice(n * f) for n, f in zip(size, factors))]
    blocks = kept.reshape(*(int(v) for pair in zip(size, factors) for v in pair))
    coarse = affine.copy()
    coarse[:3, :3] = affine[:3, :3] * factors
    coarse[:3, 3] = affine[:3, 3] + affine[:3, :3] @ ((factors - 1) / 2)
    return np.asarray(blocks.mean(axis=(1, 3, 5)), np.float32), coarse


def _to_ants(data: FloatGrid, affine: Affine):  # type: ignore[no-untyped-def]
    import ants

    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return ants.from_numpy(
        data,
        origin=lps[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=lps[:3, :3] / spacing,
    )
