"""Evaluate bundles on simulated heads that training never saw, through the whole pipeline."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd

from hydrops.arrays import Affine, FloatGrid, Mask
from hydrops.errors import ExcludedError, HydropsError
from hydrops.images import affine_of, average_onto, save_image, spacing_mm
from hydrops.labels import LABYRINTH, LANDMARKS, ORGANS, SIDES, organ_codes
from hydrops.locate import LocateOptions, locate_session
from hydrops.measure import (
    GRADE_THRESHOLDS,
    MeasureOptions,
    load_fractions,
    measure_session,
    organ_volumes,
)
from hydrops.model.bundle import Bundle, read_bundle
from hydrops.model.metrics import (
    overlap_metrics,
    ratio_errors,
    surface_metrics,
    volume_error_percent,
)
from hydrops.model.segmenter import Segmenter, load_segmenter, segment_ear
from hydrops.model.simulate import Specimen, load_specimens, specimen_ear
from hydrops.model.timing import write_timing
from hydrops.model.unmix import SIGNAL_NAMES, WAYS
from hydrops.paths import SUM_MI2, Paths, Unit
from hydrops.phantom.anatomy import Ear, draw_ear, draw_hydrops
from hydrops.phantom.cohort import SCALE, Examination, examine
from hydrops.phantom.head import ear_fractions, truth_fractions
from hydrops.records import read_record, run_stage
from hydrops.register import RegisterOptions, register_session
from hydrops.segment import inversion_pair, kept_of, scanned_voxel_mm, segment_session
from hydrops.slices import on_acquired_slices
from hydrops.statistics import agreement_of, icc_2_1

LOG = logging.getLogger(__name__)

#: Anatomy of a simulated head: drawn, or a real labyrinth's.
Kind = Literal["phantom", "specimen"]
#: An EH volume ratio and the true one.
RATIO_COLUMNS = ("ratio", "ratio_true")
#: Of agreement after Bland and Altman, as they are shown.
LIMITS = ("bias", "lower", "upper")
#: EH ratio of a labyrinth from which on there is so much endolymph that its Dice is not that of a
#: film's surface.
HYDROPIC = 0.4
#: EH area ratios of an organ that are compared with the true region's, by their words.
AREAS = {
    "": ("area", "area_true"),
    ", three slices": ("area_3", "area_3_true"),
    ", slice given": ("area_given", "area_true"),
}
_OF_A_MASK = ("dice", "jaccard", "hausdorff95_mm", "hausdorff_mm", "surface_distance_mm",
              "volume_error_percent")  # fmt: skip
#: Measures of an ear that models are compared by, in the order in which tables show them.
MEASURES = (
    *(f"{fluid}_{measure}" for fluid in ("tfs", "els") for measure in _OF_A_MASK),
    *(f"{organ}_{measure}" for organ in ORGANS for measure in ("dice", "jaccard")),
    "ratio_error", "landmark_mm", "landmark_max_mm",
)  # fmt: skip
#: Columns of `evaluate`, whatever was measured.
COLUMNS = (
    "model", "anatomy", "seed", "specimen", "side", "ratio_true", "ratio",
    "tfs_mm3", "tfs_mm3_true", *MEASURES,
    *(f"{organ}_{ratio}" for organ in ORGANS for ratio in ("ratio", "ratio_true")),
    *(f"{organ}_{area}" for organ in GRADE_THRESHOLDS
      for area in sorted({column for pair in AREAS.values() for column in pair})),
    "half_width", *(f"{way}_{name}" for way in WAYS for name in SIGNAL_NAMES), "reason",
)  # fmt: skip
#: What the columns of `summarise` are.
AGREEMENT_EXPLAINED = """ICC, mean absolute error, bias and limits of agreement are those of the EH
volume ratio of the labyrinth, area ICC that of the EH area ratio with the one that the true region
gives on the same images, each on the slice that it chooses, or both on the slice that the true
region chooses ("slice given"; so compared Cho et al. 2020, on patients' MRI, and got 0.971, of the
vestibule 0.980 and of the cochlea 0.952); "three slices" counts the pixels of its neighbours as
well. A model without canals cannot see the ring that the slice of the vestibule is chosen by, and
takes another; it has a Dice of its organs, but none of the total fluid (TFS). Dice is that of the
anatomy's majority labels on the voxels that the scanner made (0.5 x 0.5 x 1.0 mm); the 95 %
Hausdorff distance is the percentile of the distances of either surface to the other, all taken
together. Part of the error of an organ's ratio is where that organ ends and the next begins. The
interval of an ICC resamples heads. Endolymph, gadolinium, noise, motion and places in the head are
drawn for each head; the T1 of the fluids, how evenly the organs take up gadolinium and the level of
the noise are the usual ones."""
#: What is told of an organ's EH volume ratio, in one column.
ORGAN_AGREEMENT = "{} ratio: ICC(2,1), bias, mean absolute error"
#: The only session of a simulated head.
UNIT = Unit("1", "1")
#: MRC and the masks of both fluids, true and found, in the slice with most of an ear: (x, y) each.
Slice = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class SimulatedHead:
    """A head to evaluate on: its seed, and whose labyrinths it has; None for a phantom's."""

    seed: int
    specimens: tuple[Specimen, Specimen] | None = None

    @property
    def kind(self) -> Kind:
        """Its anatomy."""
        return "phantom" if self.specimens is None else "specimen"

    @property
    def names(self) -> tuple[str, str]:
        """Of the specimens; empty of a phantom."""
        left, right = self.specimens or (None, None)
        return (left.name if left else "", right.name if right else "")

    def examined(self, scan: Callable[..., Examination]) -> Examination:
        """Its examination, by a scan of a generator and both ears."""
        rng = np.random.default_rng([self.seed, 99])
        if self.specimens is None:
            # Uniform severities, where the training draws a third of its ears normal.
            severities = rng.uniform(0.0, 1.0, 2)
            ears = [
                draw_ear(rng, side, draw_hydrops(rng, float(s)))
                for side, s in zip(SIDES, severities)
            ]
        else:
            ears = [specimen_ear(s, rng, side) for s, side in zip(self.specimens, SIDES)]
        return scan(rng, *ears)


def draw_heads(
    specimens_folder: Path,
    test_specimens: Sequence[str],
    heads: int,
    seed: int,
    kinds: Collection[Kind] = ("phantom", "specimen"),
) -> list[SimulatedHead]:
    """Heads to evaluate on, so many of each kind; see `evaluate`."""
    drawn = [SimulatedHead(seed + number) for number in range(heads) if "phantom" in kinds]
    if "specimen" in kinds and specimens_folder.is_dir():
        known = load_specimens(specimens_folder, test_specimens)
        pairs = [(known[2 * n % len(known)], known[(2 * n + 1) % len(known)]) for n in range(heads)]
        drawn += [SimulatedHead(seed + 10_000 + n, pair) for n, pair in enumerate(pairs)]
    elif "specimen" in kinds:
        LOG.warning("%s is missing: phantoms alone are evaluated", specimens_folder)
    return drawn


def refuse_seen(
    bundles: Sequence[Path], specimens_folder: Path, test_specimens: Sequence[str]
) -> None:
    """Refuse an evaluation on real labyrinths that a model has learned from, by whatever name.

    Raises
    ------
    HydropsError
        Naming the model and them.
    """
    there = load_specimens(specimens_folder, test_specimens) if specimens_folder.is_dir() else []
    tested = dict.fromkeys(test_specimens, "") | {s.name: s.digest for s in there}
    for bundle in map(read_bundle, bundles):
        training = bundle.metadata.get("training", {})
        learned = {*training.get("train_specimens", []), *training.get("validation_specimens", [])}
        # Bundles of before kept names alone.
        digests = set(training.get("digests", {}).values()) - {""}
        seen = sorted(n for n, digest in tested.items() if n in learned or digest in digests)
        if seen:
            raise HydropsError(
                f"{bundle.identifier} has learned from {', '.join(seen)}, which training: "
                "test_specimens names to evaluate it on; name others"
            )


def evaluate(
    bundles: Sequence[Path],
    specimens_folder: Path,
    test_specimens: Sequence[str],
    heads: int,
    seed: int,
    processes: int = 2,
    slices: Path | None = None,
    kinds: Collection[Kind] = ("phantom", "specimen"),
    scan: Callable[..., Examination] = examine,
) -> pd.DataFrame:
    """One row an ear and model, of `COLUMNS`: what the pipeline measured beside the truth.

    Parameters
    ----------
    bundles
        Folders of the models; all are given the same heads, registered and located once.
    test_specimens
        Real labyrinths that no model was trained on; passed over where the folder is not.
    heads
        Simulated heads of each kind, two ears each: phantoms, and the specimens' anatomy.
    seed
        Of anatomies that no training draws.
    slices
        Folder that gets a slice of each ear as it is drawn by `hydrops.model.compare`, or None.
    kinds
        Anatomies that are drawn.
    scan
        Makes the images of a head of its generator and its ears, left and right.
    """
    drawn = draw_heads(specimens_folder, test_specimens, heads, seed, kinds)
    rows = []
    with ProcessPoolExecutor(processes) as executor:
        measured = executor.map(partial(_one_head, bundles, slices, scan), drawn)
        for number, found in enumerate(measured, start=1):
            rows += found
            LOG.info("evaluated %d of %d heads", number, len(drawn))
    return pd.DataFrame(rows, columns=COLUMNS)


def summarise(ears: pd.DataFrame) -> pd.DataFrame:
    """Agreement of the labyrinth's EH volume ratio, Dice and landmark error, by model and anatomy.

    What a model does not measure is NaN.
    """
    rows = []
    for (model, kind), part in ears.groupby(["model", "anatomy"], sort=False):
        measured = part.dropna(subset=["tfs_mm3"])
        with_ratio = measured.dropna(subset=["ratio"])
        errors = ratio_errors(with_ratio)
        few = len(with_ratio) < 2
        (icc, low, high), limits = agreement_of_heads(with_ratio, RATIO_COLUMNS)
        rows.append(
            {
                "model": model,
                "anatomy": kind,
                "ears": len(part),
                "refused": len(part) - len(measured),
                "ICC(2,1)": round(icc, 4),
                "95 % CI": np.nan if few else f"{low:.3f} to {high:.3f}",
                "mean absolute error": np.nan
                if few
                else round(float(errors["absolute"].mean()), 4),
                "bias": round(limits["bias"], 4),
                "limits of agreement": np.nan
                if few
                else f"{limits['lower']:+.3f} to {limits['upper']:+.3f}",
                "interval held": "n/a"
                if few or errors["held"].isna().all()
                else f"{errors['held'].mean():.1%}",
                "TFS Dice": round(float(measured["tfs_dice"].mean()), 4),
                **{
                    f"Dice, {organ.replace('_', ' ')}": round(
                        float(measured[f"{organ}_dice"].mean()), 4
                    )
                    for organ in ORGANS
                },
                "ELS Dice": round(float(measured["els_dice"].mean()), 4),
                f"ELS Dice, true ratio over {HYDROPIC}": round(
                    float(measured.loc[measured["ratio_true"] > HYDROPIC, "els_dice"].mean()), 4
                ),
                **{
                    ORGAN_AGREEMENT.format(organ.replace("_", " ")): _organ_agreement(
                        measured, organ
                    )
                    for organ in ORGANS
                },
                "landmark error, mm": round(float(measured["landmark_mm"].mean()), 3),
                "largest landmark error, mm": round(float(measured["landmark_max_mm"].max()), 3),
                **{
                    f"area ICC(2,1), {organ}{words}": _icc_of_areas(measured, organ, *columns)
                    for organ in GRADE_THRESHOLDS
                    for words, columns in AREAS.items()
                },
            }
        )
    return pd.DataFrame(rows)


def whose_anatomy(ears: pd.DataFrame) -> str:
    """What a page says of the real anatomy of its ears; nothing where they have none."""
    names = sorted(set(ears["specimen"]) - {""})
    if not names:
        return ""
    return f"""The real anatomy is that of {len(names)} labyrinths ({", ".join(names)}), drawn again
and again with other endolymph, gadolinium, noise, motion and places in the head: intervals and
tests do not tell of other anatomy.
"""


def agreement_of_heads(
    ears: pd.DataFrame, columns: Sequence[str]
) -> tuple[tuple[float, float, float], dict[str, float]]:
    """ICC(2,1) and limits of agreement of two columns of `evaluate`, with 95 % intervals.

    The ears of a head share its fluids and its noise, so the intervals resample heads
    (`hydrops.statistics.agreement_of`). NaN of fewer than two ears.
    """
    if len(ears) < 2:
        return (np.nan, np.nan, np.nan), dict.fromkeys(LIMITS, np.nan)
    icc, limits, _ = agreement_of(ears, columns, "seed")
    return icc, limits


def _organ_agreement(measured: pd.DataFrame, organ: str) -> str | float:
    """ICC(2,1), bias and mean absolute error of an organ's EH volume ratio; NaN without any."""
    pairs = measured[[f"{organ}_ratio", f"{organ}_ratio_true"]].dropna().to_numpy(float)
    if len(pairs) < 2:
        return np.nan
    icc, _, _ = icc_2_1(*pairs.T)
    errors = pairs[:, 0] - pairs[:, 1]
    return f"{icc:.3f}, {errors.mean():+.3f}, {np.abs(errors).mean():.3f}"


def _icc_of_areas(measured: pd.DataFrame, organ: str, ours: str, true: str) -> float:
    """ICC(2,1) of an organ's EH area ratio with that of its true region."""
    pairs = measured[[f"{organ}_{ours}", f"{organ}_{true}"]].dropna().to_numpy(float)
    return round(icc_2_1(*pairs.T)[0], 4)


def _one_head(
    bundles: Sequence[Path],
    slices: Path | None,
    scan: Callable[..., Examination],
    head: SimulatedHead,
) -> list[dict[str, object]]:
    examination = head.examined(scan)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        paths = Paths(Path(scratch))
        _locate(examination, paths)
        for bundle in bundles:
            model = read_bundle(bundle).identifier
            for name, (row, cut) in zip(head.names, _measured(bundle, examination, paths)):
                known = {"anatomy": head.kind, "seed": head.seed, "specimen": name}
                rows.append({"model": model, **known, **row})
                if slices is not None and cut is not None:
                    target = slices / slice_name(rows[-1])
                    np.savez_compressed(target, allow_pickle=False, **cut)
    return rows


def slice_name(row: Mapping[Any, object]) -> str:
    """File name of the slice of an ear and model, a row of the evaluation."""
    return f"{row['model']}-{row['anatomy']}-{row['seed']}-{row['side']}.npz"


def _locate(examination: Examination, paths: Paths) -> None:
    """Store one examination and run the stages after ingest up to the models."""
    unit = UNIT
    for role, image in examination.images.items():
        # Stored as a scanner stores it: whole numbers.
        stored = np.round(image * SCALE[role]).astype(np.int16)
        save_image(paths.image(unit, role), stored, examination.affine)
        write_timing(examination.sequences[role], paths.sidecar(unit, role))
    run_stage(
        paths.record("register", unit), "register", unit, [],
        lambda out: register_session(unit, paths, RegisterOptions(), out),
    )  # fmt: skip
    run_stage(
        paths.record("locate", unit), "locate", unit, [paths.record("register", unit)],
        lambda out: locate_session(unit, paths, LocateOptions(), out),
    )  # fmt: skip


def _measured(
    bundle: Path, examination: Examination, paths: Paths
) -> Iterator[tuple[dict[str, object], Slice | None]]:
    """Run the stages of a model on a located examination; each ear beside its truth, a slice."""
    unit = UNIT
    segmenter = load_segmenter(bundle, "cpu", threads=1)
    model = segmenter.bundle.identifier
    run_stage(
        paths.record("segment", unit, model), "segment", unit, [paths.record("locate", unit)],
        lambda out: segment_session(segmenter, unit, paths, out),
    )  # fmt: skip
    record = run_stage(
        paths.record("measure", unit, model), "measure", unit,
        [paths.record("segment", unit, model)],
        lambda out: measure_session(unit, paths, model, MeasureOptions(), out),
    )  # fmt: skip
    for side in SIDES:
        ear = examination.head.ears[side]
        row: dict[str, object] = {"side": side, "ratio_true": ear.ratios()[LABYRINTH]}
        cut = None
        if record.outcome == "done" and side not in record.excluded_sides:
            compared, cut = _compare(examination, ear, unit, side, paths, segmenter.bundle)
            row |= compared
            found = read_record(paths.record("segment", unit, model)).numbers[side]
            row["half_width"] = found["half_width"]
            row |= _signals(segmenter, unit, side, paths)
        else:
            row["reason"] = record.excluded_sides.get(side, {"reason": record.reason})["reason"]
        yield row, cut


def _signals(segmenter: Segmenter, unit: Unit, side: str, paths: Paths) -> dict[str, float]:
    """What images and network say of an ear, by each way that its signal can be read in.

    An ear that was measured one way may be refused by the other, which then says nothing.
    """
    pair = inversion_pair(unit, paths)
    if pair is None or not segmenter.bundle.endolymph:
        return {}
    mrc, mi2, summed = (
        np.asarray(nib.load(paths.crop(unit, side, role)).dataobj, np.float32)
        for role in ("MRC", "HYDROPSMi2", SUM_MI2)
    )
    voxel_mm, kept = scanned_voxel_mm(unit, paths), kept_of(unit, side, paths)
    bare = replace(segmenter, calibrations={}, novelty=None)
    told: dict[str, float] = {}
    for total in (summed, None):
        try:
            found = segment_ear(bare, mrc, mi2, side, pair, total, voxel_mm, kept)
        except ExcludedError as exclusion:
            LOG.info("%s ear, one way: %s", side, exclusion.reason)
            continue
        if found.signal is not None:
            read = asdict(found.signal)
            told |= {f"{found.way}_{name}": number for name, number in read.items()}
    return told


def _compare(
    examination: Examination, ear: Ear, unit: Unit, side: str, paths: Paths, bundle: Bundle
) -> tuple[dict[str, object], Slice]:
    """One ear beside its truth, of which the organs that the model does not find are left out."""
    model = bundle.identifier
    fractions, affine = load_fractions(paths.segmentation(unit, side, "probseg", model))
    # On the voxels that the scanner made, as published figures are; their labels are majorities.
    shape = examination.images["MRC"].shape
    there, region = ear_fractions(examination.head, side, shape, examination.affine)
    corner = affine_of(region, examination.affine)
    acquired = average_onto(fractions, affine, there.shape[1:], corner)
    truth = truth_fractions(examination.head, side, fractions.shape[1:], affine)
    volumes, ratios = organ_volumes(fractions, affine), ear.ratios()
    measured = {
        name: endolymph / fluid if bundle.endolymph and fluid else np.nan
        for name, (fluid, endolymph) in volumes.items()
    }
    image = examination.images["MRC"][tuple(region)]
    overlaps, cut = _overlaps(
        acquired, _of_organs(there, bundle.organs), image, spacing_mm(examination.affine), bundle
    )
    errors = _landmark_errors(paths.landmarks(unit, side, model), examination.head.landmarks(side))
    return {
        "ratio": measured[LABYRINTH],
        "ratio_error": abs(measured[LABYRINTH] - ratios[LABYRINTH]),
        **{f"{organ}_ratio": measured[organ] for organ in ORGANS},
        **{f"{organ}_ratio_true": ratios[organ] for organ in ORGANS},
        "tfs_mm3": volumes[LABYRINTH][0],
        "tfs_mm3_true": sum(ear.volumes_mm3()[organ][0] for organ in bundle.organs),
        **overlaps,
        "landmark_mm": float(np.mean(errors)) if errors else np.nan,
        "landmark_max_mm": max(errors, default=np.nan),
        **_area_ratios(truth, fractions, affine, unit, paths),
    }, cut


def _overlaps(
    found: FloatGrid, there: FloatGrid, image: FloatGrid, spacing: FloatGrid, bundle: Bundle
) -> tuple[dict[str, float], Slice]:
    """Metrics of the masks that a model gives, and the slice with most of the ear.

    Parameters
    ----------
    found, there
        (7, x, y, z) fractions of the model and of the truth, on the scanner's voxels.
    image
        (x, y, z), MRC.
    spacing
        Of its voxels, mm.
    """
    masks: dict[str, slice | list[int]] = {"tfs": slice(1, None), "els": slice(2, None, 2)}
    measures = {"tfs": len(bundle.organs) == len(ORGANS), "els": bundle.endolymph}
    overlaps: dict[str, float] = {}
    place = int(there[1:].sum(0).sum((0, 1)).argmax())
    cut: Slice = {}
    for name, codes in masks.items():
        ours, truly = (part[codes].sum(0) > 0.5 for part in (found, there))
        if measures[name]:
            metrics = _mask_metrics(ours, truly, spacing.tolist())
            overlaps |= {f"{name}_{measure}": value for measure, value in metrics.items()}
        cut[f"{name}_true"] = truly[..., place]
        if name == "tfs" or bundle.endolymph:
            cut[name] = ours[..., place]
    for organ in bundle.organs:
        ours, truly = (part[organ_codes(organ)].sum(0) > 0.5 for part in (found, there))
        overlap = overlap_metrics(ours, truly)
        overlaps |= {f"{organ}_{measure}": overlap[measure] for measure in ("dice", "jaccard")}
    cut["image"] = image[..., place].astype(np.float32)
    return overlaps, cut


def _landmark_errors(path: Path, marks: Mapping[str, npt.NDArray[np.float64]]) -> list[float]:
    """Distances, mm, of the landmarks that a file holds from where they are."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return [
        float(np.linalg.norm(np.array(found[name]["ras_mm"]) - marks[name]))
        for name in LANDMARKS
        if name in found
    ]


def _mask_metrics(ours: Mask, truth: Mask, spacing: Sequence[float]) -> dict[str, float]:
    """Overlap, distance and volume of a mask on the scanner's voxels."""
    overlap = overlap_metrics(ours, truth)
    return {
        "dice": overlap["dice"],
        "jaccard": overlap["jaccard"],
        **surface_metrics(ours, truth, spacing),
        "volume_error_percent": volume_error_percent(ours, truth),
    }


def _area_ratios(
    truth: FloatGrid, found: FloatGrid, affine: Affine, unit: Unit, paths: Paths
) -> dict[str, float | None]:
    """EH area ratios by the true regions of an ear and by those that were found.

    The latter on the slices that they choose, and on those that the true regions choose: readers
    were compared on slices that a person had chosen (Cho et al. 2020, Methods).
    """
    mrc = nib.load(paths.image(unit, "MRC"))
    true, ours = (on_acquired_slices(part, affine, mrc, unit, paths) for part in (truth, found))
    ratios: dict[str, float | None] = {}
    for organ in GRADE_THRESHOLDS:
        chosen, given = (part.representative(organ) for part in (ours, true))
        ratios |= {
            f"{organ}_area": ours.area_ratio(organ, chosen),
            f"{organ}_area_given": ours.area_ratio(organ, given),
            f"{organ}_area_true": true.area_ratio(organ, given),
            f"{organ}_area_3": ours.area_ratio(organ, chosen, beside=1),
            f"{organ}_area_3_true": true.area_ratio(organ, given, beside=1),
        }
    return ratios


def _of_organs(fractions: FloatGrid, organs: Sequence[str]) -> FloatGrid:
    """Fractions (7, ...) in which all but some organs is background."""
    codes = [code for organ in organs for code in organ_codes(organ)]
    kept = np.zeros_like(fractions)
    kept[codes] = fractions[codes]
    kept[0] = 1.0 - kept[1:].sum(0)
    return kept
