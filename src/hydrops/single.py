"""One case from the command line: labels in the image's own grid, landmarks for people and Slicer.

No cohort, no status records: an image in, files out, with any bundle.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine

from hydrops.arrays import Affine, FloatGrid
from hydrops.config import check_writable
from hydrops.ears import (
    MOST_OUTSIDE,
    Found,
    SearchOptions,
    choose_ears,
    ear_candidates,
    places_of_one,
    share_outside,
)
from hydrops.errors import ExcludedError, HydropsError
from hydrops.files import names_told_apart
from hydrops.images import (
    average_onto,
    coarsest_voxel_mm,
    crop_affine,
    crop_image,
    grid_centre,
    image_stem,
    in_two_places,
    majority_labels,
    nifti_header,
    part_under,
    read_image,
    read_placement,
    save_image,
    sidecar_of,
    spacing_mm,
    voxel_mm3,
    why_sides_are_unknown,
)
from hydrops.labels import LABELS, LABYRINTH, ORGANS, SIDES, organ_codes
from hydrops.locate import LocateOptions, image_that_cuts, missing_reason
from hydrops.measure import MeasureOptions, border_share, organ_volumes
from hydrops.model.blur import BLURRED
from hydrops.model.bundle import Bundle
from hydrops.model.contrast import USUAL_PAIR, InversionPair
from hydrops.model.ct_look import odd_distances
from hydrops.model.geometry import CROP_SHAPE
from hydrops.model.precision import choose_device
from hydrops.model.segmenter import EarSegmentation, Segmenter, load_segmenter, segment_ear
from hydrops.model.tasks import CT_KINDS, FOLD_KINDS
from hydrops.model.timing import read_pair, timing_doubt
from hydrops.product import check_lies_on, check_product
from hydrops.register import (
    RegisterOptions,
    check_magnitude,
    check_sign,
    csf_ratio,
    match,
)
from hydrops.sampling import share_kept
from hydrops.scale import check_one_scale
from hydrops.segment import named_landmarks

if TYPE_CHECKING:
    from hydrops.model.ct import CtFinding

LOG = logging.getLogger(__name__)
#: Landmarks of an ear: RAS mm and confidence, by name.
Landmarks = dict[str, dict[str, Any]]
#: Roles of a bundle that takes an examination of hydrops.
MR_ROLES = ["MRC", "HYDROPSMi2"]
#: An MRC that does not show two ears is looked at around so many places, where it matches an ear at
#: least so well (`hydrops.ears`): less than in a cohort, for the model says whether it is one.
PLACES, LEAST_SCORE = 3, 0.42
#: Confidence of a landmark of CT below which it may well be a wrong place: in images of the
#: specimens that were changed as other scanners and tools do, wrong ones had 0.05 to 0.35 for the
#: most part, right ones 0.41 and more.
UNSURE = 0.35
#: What a labyrinth on CT usually holds, mm3; specimens of the bony-labyrinth dataset: 144 to 267.
USUAL_MM3 = (120.0, 350.0)
#: Below it lies more than a hundredth of the voxels of a CT, HU: air is -1000, padding less.
AIR_HU = -200.0
#: Volume of a voxel, as a share of the crop's, below which it counts as finer, and the least fluid
#: of one that is labelled.
FINER, LEAST_FILLED = 0.9, 0.15
#: Slicer's format for points (3D Slicer 5, Markups module).
MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/"
    "Schema/markups-schema-v1.0.3.json#"
)


@dataclass(frozen=True)
class _Case:
    """What was found in a case: labels on the image's grid, measures, landmarks by ear."""

    labels: npt.NDArray[np.uint8]
    affine: Affine
    measures: dict[str, Any]
    ears: dict[str, Landmarks] = field(default_factory=dict)


def segment_files(
    images: Sequence[Path], bundle: Bundle, output: Path, device: str = "cpu"
) -> list[Path]:
    """Segment one case: ``*_dseg.nii.gz``, ``*_landmarks{,.mrk}.json``, ``*_measures.json``.

    Parameters
    ----------
    images
        One file for each of the bundle's roles, in their order; optional roles may be left out.
        With MR, PPI and PEI may stand for HYDROPS-Mi2: they are registered to the MRC, and their
        sidecars, if there are any beside them, tell their inversion times.
    output
        Folder, made if it is not there.

    Returns
    -------
    The files written, all of them or none; those of landmarks only where the model has landmarks.

    Raises
    ------
    HydropsError
        If there are more or fewer images than roles, the folder cannot be written, an image cannot
        be used, an MR image does not tell which side is left or is no magnitude, or the model finds
        no ear; nothing is written then. An ear of two
        on MR that is refused, not recognised, or cut by the edge of the image, is left out, and one
        on CT that is cut, or has an unusual volume, unsure landmarks or unusual distances between
        them, is not, both with a warning, which its measures keep as well.
    """
    roles = bundle.metadata["roles"]
    needed = [role for role in roles if role not in bundle.metadata["optional_roles"]]
    ways = [roles[:count] for count in range(len(needed), len(roles) + 1)]
    if roles == MR_ROLES and bundle.endolymph:
        ways.append(["MRC", "PPI", "PEI"])
    if len(images) not in map(len, ways):
        raise HydropsError(
            f"{bundle.identifier} takes {', or '.join(map(' '.join, ways))}, "
            f"but {len(images)} images were given"
        )
    check_writable(output, "--output")
    with _warnings_kept() as warnings:
        read = [read_image(path) for path in images]
        for path in images:
            _check_placement(path, bundle)
        try:
            if bundle.metadata["kind"] in FOLD_KINDS:
                case = _segment_one(*read[0], bundle, device)
            else:
                case = _segment_mr(images, read, bundle, device)
        except ExcludedError as exclusion:
            with_others = " and what was given with it" if len(images) > 1 else ""
            hint = _hint_of_ct(read[0][0], bundle) if len(images) == 1 else ""
            raise HydropsError(f"{images[0]}{with_others}: {exclusion.reason}{hint}") from exclusion
    case.measures["warnings"] = warnings
    try:
        return _write_case(case, images[0], bundle, output)
    except OSError as error:
        raise HydropsError(f"{output}: cannot be written ({error.strerror})") from error


def _hint_of_ct(image: FloatGrid, bundle: Bundle) -> str:
    """What to say of an image that a model of MR refuses, but that has the values of a CT."""
    of_mr = bundle.metadata["kind"] not in FOLD_KINDS
    if not of_mr or float(np.percentile(image, 1.0)) > AIR_HU:
        return ""
    return ". If it is a CT, name a model of CT: `hydrops models` lists them"


@contextmanager
def _warnings_kept() -> Iterator[list[str]]:
    """What is warned of here: those who run many cases read their measures, not their words."""
    warnings: list[str] = []
    keeper = logging.Handler(logging.WARNING)
    keeper.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    whole_library = logging.getLogger("hydrops")
    whole_library.addHandler(keeper)
    try:
        yield warnings
    finally:
        whole_library.removeHandler(keeper)


def _write_case(case: _Case, image: Path, bundle: Bundle, output: Path) -> list[Path]:
    """Write a case's files; they come into place together, once all of them are whole."""
    stem = image_stem(image)
    output.mkdir(parents=True, exist_ok=True)
    kinds = ("dseg.nii.gz", "landmarks.json", "landmarks.mrk.json", "measures.json")
    label, *marks, measures = (f"{stem}_{kind}" for kind in kinds)
    texts: dict[str, dict[str, Any]] = {}
    if any(case.ears.values()):
        texts |= dict(zip(marks, (case.ears, markups(case.ears))))
    texts[measures] = {
        "model": bundle.identifier, "weights_sha256": bundle.sha256, **case.measures,
    }  # fmt: skip
    if (output / label).exists():
        LOG.warning("%s: was there before, and is replaced", output / label)
    with tempfile.TemporaryDirectory(dir=output, prefix=f".{stem[:100]}-") as scratch:
        whole = Path(scratch)
        save_image(whole / label, case.labels, case.affine, placement=nifti_header(image))
        for name, text in texts.items():
            (whole / name).write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
        # Those of another model would not go with this label.
        for name in marks:
            (output / name).unlink(missing_ok=True)
        return [(whole / name).replace(output / name) for name in (label, *texts)]


def _check_placement(path: Path, bundle: Bundle) -> None:
    """Refuse a head that may lie either way; say where a header tells little, or two things."""
    header = read_placement(path)
    fault = why_sides_are_unknown(header)
    if fault is not None and bundle.metadata["kind"] not in FOLD_KINDS:
        raise HydropsError(f"{path}: {fault}")
    if header is None:
        LOG.warning(
            "%s: its header does not say how it lies (qform and sform codes are 0): directions are "
            "made up, and other tools may make up others",
            path,
        )
    elif in_two_places(header):
        LOG.warning(
            "%s: its qform and its sform place it differently; landmarks, left and right are those "
            "of the sform, and the label keeps both",
            path,
        )


def markups(ears: dict[str, Landmarks]) -> dict[str, Any]:
    """Landmarks by ear as a 3D Slicer markups file, RAS mm, described by their confidence."""
    points = [
        {
            "id": str(number),
            "label": " ".join([ear, name]).strip(),
            "description": f"confidence {found['confidence']:.2f}",
            "position": found["ras_mm"],
        }
        for number, (ear, name, found) in enumerate(
            (
                (ear, name, found)
                for ear, landmarks in ears.items()
                for name, found in landmarks.items()
            ),
            start=1,
        )
    ]
    return {
        "@schema": MARKUPS_SCHEMA,
        "markups": [
            {
                "type": "Fiducial",
                "coordinateSystem": "RAS",
                "coordinateUnits": "mm",
                "controlPoints": points,
            }
        ],
    }


def _segment_one(image: FloatGrid, affine: Affine, bundle: Bundle, device: str) -> _Case:
    """One image that is looked at as a whole: a CT of one ear or both, or one with a lesion."""
    from hydrops.model.ct_package import load_ct_bundle
    from hydrops.model.lesion_package import load_lesion_bundle

    where = choose_device(device)
    if bundle.metadata["kind"] not in CT_KINDS:
        lesion = load_lesion_bundle(bundle, where).find(image, affine)
        if not lesion.label.any():
            raise ExcludedError("the model finds no lesion in the image")
        return _Case(
            lesion.label.astype(np.uint8),
            affine,
            {"label_codes": {"1": "lesion"}, "lesion_mm3": _volume_mm3(lesion.label, affine)},
        )
    found = load_ct_bundle(bundle, where).find_all(image, affine)
    names = _names_of_ears(found, affine)
    for name, ear in zip(names, found):
        _doubt_ct(name if name == "ear" else f"{name} ear", ear, affine)
    LOG.info("found %d inner ear%s", len(found), "" if len(found) == 1 else "s")
    label = np.any([ear.label for ear in found], axis=0)
    ears = {
        name: {
            landmark: {"ras_mm": point, "confidence": ear.confidences[landmark]}
            for landmark, point in ear.landmarks.items()
        }
        for name, ear in zip(names, found)
    }
    volumes = {
        name: {"labyrinth_mm3": _volume_mm3(ear.label, affine)} for name, ear in zip(names, found)
    }
    measures = {"label_codes": {"1": LABYRINTH}, "ears": volumes}
    return _Case(label.astype(np.uint8), affine, measures, ears)


def _volume_mm3(label: npt.NDArray[np.bool_], affine: Affine) -> float:
    return round(float(label.sum() * voxel_mm3(affine)), 1)


def _doubt_ct(name: str, ear: CtFinding, affine: Affine) -> None:
    """Say what of an ear of a CT may well be wrong."""
    if border_share(ear.label) > MeasureOptions().max_border_share:
        LOG.warning(
            "%s: the labyrinth is cut by the edge of the image; its volume is that of a part, "
            "and landmarks may be made up",
            name,
        )
    unsure = [n for n, confidence in ear.confidences.items() if confidence < UNSURE]
    if unsure:
        LOG.warning(
            "%s: %s may be a wrong place (confidence below %g), and the label may lack a part or "
            "hold what is no labyrinth: look at both before you use them",
            name,
            " and ".join(n.replace("_", " ") for n in unsure),
            UNSURE,
        )
    odd = odd_distances(ear.landmarks) if ear.landmarks else []
    if odd:
        LOG.warning(
            "%s: its landmarks lie as in hardly any ear (%s): some are wrong places, and the label "
            "may be wrong as well: look at both before you use them",
            name,
            "; ".join(odd),
        )
    volume = _volume_mm3(ear.label, affine)
    low, high = USUAL_MM3
    if not low <= volume <= high:
        LOG.warning(
            "%s: %.0f mm3 is not what a labyrinth holds (%g to %g mm3): are the voxels of %s mm "
            "those of the scanner, and is it all there?",
            name,
            volume,
            low,
            high,
            " x ".join(f"{width:.3g}" for width in spacing_mm(affine)),
        )


def _names_of_ears(found: Sequence[CtFinding], affine: Affine) -> list[str]:
    """Left and right where there are two, side by side; one alone may be of either side."""
    if len(found) == 1:
        return ["ear"]
    one, other = (apply_affine(affine, np.argwhere(ear.label).mean(0)) for ear in found)
    apart = one - other
    if abs(apart[0]) < 0.5 * np.linalg.norm(apart):
        return ["first", "second"]
    return ["right", "left"] if apart[0] > 0 else ["left", "right"]


@dataclass(frozen=True)
class _Head:
    """An MRC, the other images each with its affine and its transform, and what tells of them.

    `names` are those of the other images: PPI and PEI, or a HYDROPS-Mi2 that was not made here.
    """

    mrc: FloatGrid
    affine: Affine
    pair: InversionPair
    others: Sequence[tuple[FloatGrid, Affine, Affine]]
    names: Sequence[str]


@dataclass(frozen=True)
class _SeenEar:
    """What was found around a place, on its crop, and the labels of that on the MRC's grid."""

    found: EarSegmentation
    grid: Affine
    labels: npt.NDArray[np.uint8]


def _segment_mr(
    paths: Sequence[Path],
    read: Sequence[tuple[FloatGrid, Affine]],
    bundle: Bundle,
    device: str,
) -> _Case:
    mrc, affine = read[0]
    check_magnitude(mrc)
    segmenter = load_segmenter(bundle.folder, device)
    LOG.info("looking for both inner ears in %s", paths[0].name)
    candidates = ear_candidates(mrc, affine, LEAST_SCORE)
    located = choose_ears(candidates, SearchOptions())
    both = len(located.centres) == len(SIDES)
    places = list(located.centres.items()) if both else places_of_one(candidates)[:PLACES]
    if not places:
        raise ExcludedError("no inner ear can be recognised in it")
    pair, others = _other_images(mrc, affine, paths[1:], read[1:])
    head = _Head(mrc, affine, pair, others, names_told_apart(paths[1:]))
    seen, refused = _segment_places(segmenter, head, places)
    if not seen:
        raise ExcludedError("; ".join(refused.values()))
    if not both:
        likest = min(seen, key=lambda side: _strangeness(seen[side]))
        seen = {likest: seen[likest]}
        (other,) = set(SIDES) - {likest}
        if other not in refused or other not in located.centres:
            refused[other] = _why_missing(other, seen[likest], head)
    for side in SIDES:
        if side not in seen:
            LOG.warning("not measured: %s", refused[side])
    labels = np.zeros(mrc.shape, np.uint8)
    for side, ear in seen.items():
        labels[ear.labels > 0] = ear.labels[ear.labels > 0]
        _say_ratio(side, ear)
    measures = {
        "label_codes": {str(code): name for code, name in enumerate(LABELS) if code},
        "ears": {side: _measures_of(ear, bundle) for side, ear in seen.items()},
        "not_measured": {side: refused[side] for side in SIDES if side not in seen},
    }
    marks = {side: named_landmarks(ear.found, ear.grid) for side, ear in seen.items()}
    return _Case(labels, affine, measures, marks)


def _segment_places(
    segmenter: Segmenter, head: _Head, places: Sequence[tuple[str, npt.NDArray[np.float64]]]
) -> tuple[dict[str, _SeenEar], dict[str, str]]:
    """The likest ear of each side, and why the first place of a side was refused, if any was."""
    seen: dict[str, _SeenEar] = {}
    refused: dict[str, str] = {}
    for side, centre in places:
        LOG.info("segmenting the %s ear", side)
        try:
            ear = _segment_at(segmenter, head, side, centre)
        except ExcludedError as exclusion:
            refused.setdefault(side, f"{side} ear: {exclusion.reason}")
            continue
        if side not in seen or _strangeness(ear) < _strangeness(seen[side]):
            seen[side] = ear
    return seen, refused


def _why_missing(side: str, ear: _SeenEar, head: _Head) -> str:
    """Why an ear is not in an image that shows the other one."""
    (other,) = set(SIDES) - {side}
    known = Found({other: grid_centre(ear.found.fractions.shape[1:], ear.grid)}, {other: 1.0})
    return str(missing_reason(side, known, head.mrc.shape, head.affine, LocateOptions()))


def _segment_at(
    segmenter: Segmenter, head: _Head, side: str, centre: npt.NDArray[np.float64]
) -> _SeenEar:
    """Segment the ear of a side around a place, RAS mm.

    Raises
    ------
    ExcludedError
        If there is none, it is cut by the edge of the image, or HYDROPS-Mi2 does not lie on it.
    """
    outside = share_outside(side, centre, head.mrc.shape, head.affine)
    if outside > MOST_OUTSIDE:
        raise ExcludedError("the labyrinth is cut by the edge of the image")
    grids = [np.linalg.inv(transform) @ own for _, own, transform in head.others]
    shapes = [image.shape for image, _, _ in head.others]
    if cutting := image_that_cuts(side, centre, zip(head.names, shapes, grids)):
        raise ExcludedError(f"{cutting} does not cover it, or cuts a part of it off")
    if outside > 0.0:
        LOG.warning(
            "%s ear: lies so near to the edge of the image that a part of it may be missing", side
        )
    grid = crop_affine(centre.tolist(), head.affine)
    crop = crop_image(head.mrc, head.affine, grid)
    moved = [crop_image(image, own, grid, transform) for image, own, transform in head.others]
    if len(moved) == 1:
        check_lies_on(head.names[0], crop, moved[0], spacing_mm(grid))
    mi2, summed = next(iter(moved), None), None
    if len(moved) == 2:
        mi2, summed = (moved[0] - moved[1]) * crop, (moved[0] + moved[1]) * crop
    voxel_mm = coarsest_voxel_mm(grid, head.affine, *(own for _, own, _ in head.others))
    kept = share_kept(head.mrc, head.affine, grid, grids)
    found = segment_ear(segmenter, crop, mi2, side, head.pair, summed, voxel_mm, kept)
    if found.nulled is False:
        LOG.warning(
            "%s ear: the PPI does not null its endolymph (is the inversion time that of the "
            "protocol?), so it is less dark in HYDROPS than it should be; look at its label",
            side,
        )
    if found.blur is not None and found.blur >= BLURRED:
        LOG.warning(
            "%s ear: the images are more blurred than their voxels tell, so the interval of its "
            "ratio is wider",
            side,
        )
    labels = np.zeros(head.mrc.shape, np.uint8)
    paint(labels, head.affine, found.fractions, grid)
    if border_share(labels > 0) > MeasureOptions().max_border_share:
        raise ExcludedError("the labyrinth is cut by the edge of the image")
    return _SeenEar(found, grid, labels)


def _strangeness(ear: _SeenEar) -> float:
    """How unlike the model's training an ear is; of a model that cannot tell, the same for all."""
    return 0.0 if ear.found.novelty is None else ear.found.novelty


def _say_ratio(side: str, ear: _SeenEar) -> None:
    """Say the EH volume ratio of an ear and its interval, where there is one."""
    reach = ear.found.half_width
    if reach is None:
        return
    total, endolymph = organ_volumes(ear.found.fractions, ear.grid)[LABYRINTH]
    ratio = endolymph / total
    low, high = _within(ratio, reach)
    LOG.info(
        "%s ear: EH volume ratio %.2f (%.2f to %.2f), fluid %.0f mm3", side, ratio, low, high, total
    )


def _within(ratio: float, reach: float) -> tuple[float, float]:
    """Both ends of a ratio's interval, none beyond 0 and 1."""
    return max(0.0, ratio - reach), min(1.0, ratio + reach)


def _measures_of(ear: _SeenEar, bundle: Bundle) -> dict[str, Any]:
    """What is to be kept of an ear: volumes in mm3 by organ, the EH volume ratio, its interval."""
    reach = ear.found.half_width
    told: dict[str, Any] = {}
    volumes = organ_volumes(ear.found.fractions, ear.grid)
    whole = [LABYRINTH] if set(bundle.organs) == set(ORGANS) else []
    for organ in (*bundle.organs, *whole):
        total, endolymph = volumes[organ]
        told[organ] = {"tfs_mm3": round(total, 1)}
        if reach is not None:
            told[organ] |= {"els_mm3": round(endolymph, 1)}
            told[organ] |= {"eh_volume_ratio": round(endolymph / total, 4)} if total else {}
    if reach is not None:
        low, high = _within(told[LABYRINTH]["eh_volume_ratio"], reach)
        told[LABYRINTH] |= {"ci_low": round(low, 4), "ci_high": round(high, 4)}
    return told


def _other_images(
    mrc: FloatGrid,
    affine: Affine,
    paths: Sequence[Path],
    images: Sequence[tuple[FloatGrid, Affine]],
) -> tuple[InversionPair, list[tuple[FloatGrid, Affine, Affine]]]:
    """HYDROPS-Mi2 as it is, or PPI and PEI registered; each with its affine and its transform."""
    if len(images) < 2:
        for path, (product, own) in zip(paths, images):
            check_product(path.name, product, own, mrc, affine)
        return USUAL_PAIR, [(image, own, np.eye(4)) for image, own in images]
    sidecars = sidecar_of(paths[0]), sidecar_of(paths[1])
    if doubt := timing_doubt(*sidecars):
        LOG.warning("%s: the published inversion times are assumed", doubt)
    others, on_grid = [], []
    for path, (image, own) in zip(paths, images):
        LOG.info("registering %s to the MRC", path.name)
        transform, moved, _ = match(path.name, mrc, affine, image, own, RegisterOptions())
        others.append((image, own, transform))
        on_grid.append(moved)
    ppi, pei = on_grid
    ratio = csf_ratio(mrc, ppi, pei, affine)
    if ratio is None:
        LOG.warning(
            "no cerebrospinal fluid is shown, by which it would be seen if %s and %s were swapped: "
            "a ratio is right only if they are not",
            *(path.name for path in paths),
        )
    check_sign(mrc, ppi - pei, affine)
    check_one_scale(images[0][0], images[1][0])
    return read_pair(*sidecars, ratio), others


def paint(
    labels: npt.NDArray[np.uint8], affine: Affine, fractions: FloatGrid, grid: Affine
) -> None:
    """Write the likeliest class of each voxel of an image that a crop covers.

    What fills no half of a crop's voxels, as the canals, may fill finer ones: of those are taken,
    the fullest first, so many that each organ has the volume that was found.
    """
    covered, part = part_under(CROP_SHAPE, grid, labels.shape, affine)
    region = labels[covered]
    inside = average_onto(fractions[1:], grid, region.shape, part)
    finer = voxel_mm3(affine) < FINER * voxel_mm3(grid)
    found = _labels_of_volume(inside) if finer else majority_labels(inside)
    region[found > 0] = found[found > 0]


def _labels_of_volume(inside: FloatGrid) -> npt.NDArray[np.uint8]:
    """Classes, from one, of voxels (6, x, y, z), as many of each organ as it would fill; else 0."""
    likeliest, fluid = inside.argmax(0) + 1, inside.sum(0)
    labels = np.zeros(fluid.shape, np.uint8)
    for organ in ORGANS:
        codes = organ_codes(organ)
        there = np.isin(likeliest, codes) & (fluid > LEAST_FILLED)
        count = round(float(inside[[code - 1 for code in codes]].sum()))
        fullest = np.argsort(-fluid[there], kind="stable")[:count]
        chosen = tuple(axis[fullest] for axis in np.nonzero(there))
        labels[chosen] = likeliest[chosen]
    return labels
