"""Calibrate a bundle: the levels of the pure fluids, and what the model knows."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from hydrops.errors import ExcludedError, HydropsError
from hydrops.files import write_text_atomically
from hydrops.model.bundle import METADATA, Bundle, read_bundle
from hydrops.model.evaluate import Kind, evaluate
from hydrops.model.novelty import Novelty
from hydrops.model.segmenter import load_segmenter, run_network
from hydrops.model.simulate import draw_images, read_pool
from hydrops.model.train import TrainOptions, trained_parts
from hydrops.model.unmix import (
    COVERAGE,
    LEAST_HEADS,
    SIGNAL_NAMES,
    WAYS,
    Calibration,
    FluidLevels,
    FluidSignal,
    Way,
    half_width,
)
from hydrops.phantom.anatomy import Ear
from hydrops.phantom.cohort import Examination, examine
from hydrops.phantom.head import VOXEL_MM
from hydrops.phantom.signal import UPTAKE_SD, draw_fluids

LOG = logging.getLogger(__name__)

#: Size of a voxel along its axes, mm.
VoxelMm = tuple[float, float, float]

#: Anatomy that levels are fitted to where there is any: what is measured comes out higher in it
#: than in phantoms, and it is a patient's.
FITTED: Kind = "specimen"
#: Voxels of the images that a model is calibrated for: the published ones, and coarse ones.
CALIBRATED_MM: tuple[VoxelMm, ...] = (VOXEL_MM, (1.0, 1.0, 1.0))
#: Least and most noise of a calibration's heads, times that of `hydrops.phantom.head.NOISE`.
CALIBRATED_NOISE = (0.25, 1.6)
#: Most noise that a ratio is given for, times that of the noisiest ear of a calibration.
NOISE_MARGIN = 1.25
#: Simulated ears that say what a model knows.
NOVELTY_EARS = 500


def calibrate(
    bundle: Bundle, options: TrainOptions, specimens_folder: Path, processes: int
) -> Bundle:
    """Fit the fluid levels of a bundle, and the interval of a ratio, and write them down in it.

    A bundle that does not tell endolymph from perilymph is left as it is.
    The heads are simulated as those of the evaluation are, with other seeds, and real anatomy is
    that of the specimens that training and validation have seen; beside it there are half as many
    phantoms, whose endolymph lies otherwise.

    Raises
    ------
    HydropsError
        If the configuration asks for no heads, or too few of them could be measured.
    """
    if not bundle.endolymph:
        return bundle
    if not options.calibration_heads:
        raise HydropsError(
            f"{bundle.identifier}: tells endolymph, so it needs calibration_heads in its "
            "configuration"
        )
    heads: dict[Kind, int] = {"phantom": options.calibration_heads}
    if specimens_folder.is_dir():
        heads = {FITTED: options.calibration_heads, "phantom": options.calibration_heads // 2}
    if min(heads.values()) < LEAST_HEADS:
        raise HydropsError(
            f"{bundle.identifier}: calibration_heads is {options.calibration_heads}, which makes "
            f"{min(heads.values())} heads of a kind; an interval of {COVERAGE:.0%} needs "
            f"{LEAST_HEADS}, and some more, for a few are refused"
        )
    ears = {
        voxel_mm: pd.concat(
            evaluate(
                [bundle.folder],
                specimens_folder,
                options.seen_specimens,
                count,
                options.calibration_seed,
                processes,
                kinds=(kind,),
                scan=partial(examine_as_people_differ, voxel_mm=voxel_mm),
            )
            for kind, count in heads.items()
        )
        for voxel_mm in CALIBRATED_MM
    }
    return fit_levels(bundle, options, ears)


def examine_as_people_differ(
    rng: np.random.Generator, left: Ear, right: Ear, voxel_mm: VoxelMm
) -> Examination:
    """A head of any patient's fluids, by a scanner of any noise."""
    low, high = np.log(CALIBRATED_NOISE)
    noise = float(np.exp(rng.uniform(low, high)))
    return examine(rng, left, right, noise=noise, fluids=draw_fluids(rng), voxel_mm=voxel_mm)


def fit_levels(
    bundle: Bundle, options: TrainOptions, evaluated: Mapping[VoxelMm, pd.DataFrame]
) -> Bundle:
    """Fit the fluid levels and the intervals of a bundle to ears that it was evaluated on.

    Parameters
    ----------
    evaluated
        Of `hydrops.model.evaluate.evaluate`, by the voxels of the images; ears without a ratio are
        passed over, and for a way to read the signal those that could not be read that way.

    Raises
    ------
    HydropsError
        If there are too few of them, or none.
    """
    calibrations: dict[Way, list[dict[str, object]]] = {way: [] for way in WAYS}
    count = 0
    for voxel_mm, every in evaluated.items():
        ears = every.dropna(subset=["ratio"])
        for kind, part in every.groupby("anatomy"):
            if part["ratio"].isna().all():
                raise HydropsError(
                    f"{bundle.identifier}: all {len(part)} simulated ears ({kind}, voxels of "
                    f"{' x '.join(map(str, voxel_mm))} mm) were refused, so that nothing can be "
                    f"calibrated; most often: {part['reason'].mode()[0]}. Train it for longer"
                )
        count += len(ears)
        try:
            for way in WAYS:
                read = ears.dropna(subset=[f"{way}_level"])
                calibrations[way].append(asdict(_fit_way(way, voxel_mm, read)))
        except ValueError as error:
            raise HydropsError(
                f"{bundle.identifier}: {error}; have more calibration_heads in its configuration, "
                f"{options.calibration_heads} were asked for"
            ) from error
    metadata = bundle.metadata | {
        "calibrations": calibrations,
        "calibrated_on": {
            "ears": count,
            "seed": options.calibration_seed,
            "coverage": COVERAGE,
            "uptake_sd": UPTAKE_SD,
        },
    }
    write_text_atomically(bundle.folder / METADATA, json.dumps(metadata, indent=2) + "\n")
    return read_bundle(bundle.folder)


def _fit_way(way: Way, voxel_mm: VoxelMm, ears: pd.DataFrame) -> Calibration:
    """Calibrate one way of reading the signal; ValueError if there are too few heads.

    The interval is to hold in either anatomy: that of the one in which it has to be wider.
    """
    by_kind = dict(list(ears.groupby("anatomy")))
    signals = {kind: _signals(way, part) for kind, part in by_kind.items()}
    first = FITTED if FITTED in by_kind else "phantom"
    levels = FluidLevels.fit(signals[first], by_kind[first]["ratio_true"])
    reaches = {
        kind: half_width(
            signals[kind],
            part["ratio_true"],
            part["seed"],
            COVERAGE,
            None if kind == first else levels,
        )
        for kind, part in by_kind.items()
    }
    LOG.info("%s, %s mm, %d ears: %s, interval %s", way, voxel_mm, len(ears), levels, reaches)
    most_noise = NOISE_MARGIN * max(each.noise for told in signals.values() for each in told)
    return Calibration(voxel_mm, levels, round(max(reaches.values()), 4), round(most_noise, 4))


def _signals(way: Way, ears: pd.DataFrame) -> list[FluidSignal]:
    """What was read of each ear in one way."""
    columns = [f"{way}_{name}" for name in SIGNAL_NAMES]
    return [FluidSignal(*row) for row in ears[columns].to_numpy(float).tolist()]


def learn_novelty(bundle: Bundle, options: TrainOptions, training: Path) -> Bundle:
    """Write into a bundle how its ears of training look to it, see `hydrops.model.novelty`.

    Parameters
    ----------
    training
        Folder of the training; `NOVELTY_EARS` are drawn from its geometries, in contrasts as wide
        as the widest phase of the training.

    Raises
    ------
    HydropsError
        If the network finds too few of them to tell what it knows.
    """
    segmenter = load_segmenter(bundle.folder, "cpu")
    # A fifth of them is variety enough.
    drawn = read_pool(trained_parts(options, training)[::5])
    spread = max(phase.spread for phase in options.phases)
    features = []
    for number in range(NOVELTY_EARS):
        rng = np.random.default_rng([options.seed, 17, number])
        fractions = drawn.shares(int(rng.integers(len(drawn))))
        try:
            channels = draw_images(fractions, rng, options.missing_second_image, spread)
            features.append(run_network(segmenter, channels).features)
        except ExcludedError as exclusion:
            LOG.info("simulated ear %d: %s", number, exclusion.reason)
    try:
        known = Novelty.fit(features)
    except ValueError as error:
        raise HydropsError(
            f"{bundle.identifier}: found {len(features)} of {NOVELTY_EARS} simulated ears, too few "
            "to tell what it knows; train it for longer"
        ) from error
    LOG.info("novelty from %d ears: limit %.2f", len(features), known.limit)
    metadata = bundle.metadata | {"novelty": asdict(known)}
    write_text_atomically(bundle.folder / METADATA, json.dumps(metadata, indent=2) + "\n")
    return read_bundle(bundle.folder)
