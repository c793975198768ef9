"""Calibrate a bundle: the levels of the pure fluids, and what the model knows."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hydrops.errors import ExcludedError, HydropsError
from hydrops.model.bundle import METADATA, Bundle, read_bundle
from hydrops.model.evaluate import Kind, evaluate
from hydrops.model.novelty import Novelty
from hydrops.model.simulate import draw_images, read_pool
from hydrops.model.train import TrainOptions
from hydrops.model.unmix import (
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
from hydrops.phantom.signal import draw_fluids
from hydrops.records import write_text_atomically
from hydrops.segment import load_segmenter, run_network

LOG = logging.getLogger(__name__)

#: Coverage of the interval that is given with a ratio.
COVERAGE = 0.95
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
    that of the specimens that training and validation have seen.
    """
    if not bundle.endolymph:
        return bundle
    # What is measured comes out higher in real anatomy than in phantoms, and it is a patient's.
    kind: Kind = "specimen" if specimens_folder.is_dir() else "phantom"
    ears = evaluate(
        [bundle.folder],
        specimens_folder,
        options.seen_specimens,
        options.calibration_heads,
        options.calibration_seed,
        processes,
        kinds=(kind,),
        scan=examine_as_people_differ,
    )
    return fit_levels(bundle, options, ears)


def examine_as_people_differ(rng: np.random.Generator, left: Ear, right: Ear) -> Examination:
    """A head of any patient's fluids, by a scanner of any noise."""
    low, high = np.log(CALIBRATED_NOISE)
    noise = float(np.exp(rng.uniform(low, high)))
    return examine(rng, left, right, noise=noise, fluids=draw_fluids(rng))


def fit_levels(bundle: Bundle, options: TrainOptions, evaluated: pd.DataFrame) -> Bundle:
    """Fit the fluid levels and the interval of a bundle to ears that it was evaluated on.

    Parameters
    ----------
    evaluated
        Of `hydrops.model.evaluate.evaluate`; ears without a ratio are passed over.

    Raises
    ------
    HydropsError
        If there are too few of them.
    """
    ears = evaluated.dropna(subset=["ratio"])
    try:
        known = {way: _fit_way(way, ears) for way in WAYS}
    except ValueError as error:
        raise HydropsError(
            f"{bundle.identifier}: {error}; have more calibration_heads in its configuration, "
            f"{options.calibration_heads} were asked for"
        ) from error
    metadata = bundle.metadata | {
        "calibrations": {way: asdict(calibration) for way, calibration in known.items()},
        "calibrated_on": {
            "ears": len(ears),
            "seed": options.calibration_seed,
            "coverage": COVERAGE,
        },
    }
    write_text_atomically(bundle.folder / METADATA, json.dumps(metadata, indent=2) + "\n")
    return read_bundle(bundle.folder)


def _fit_way(way: Way, ears: pd.DataFrame) -> Calibration:
    """Calibrate one way of reading the signal; ValueError if there are too few heads."""
    columns = [f"{way}_{name}" for name in SIGNAL_NAMES]
    signals = [FluidSignal(*row) for row in ears[columns].to_numpy()]
    levels = FluidLevels.fit(signals, ears["ratio_true"])
    reach = half_width(signals, ears["ratio_true"], ears["seed"], COVERAGE)
    LOG.info("%s, %d ears: %s, interval %.4f", way, len(ears), levels, reach)
    most_noise = NOISE_MARGIN * max(signal.noise for signal in signals)
    return Calibration(levels, round(reach, 4), round(most_noise, 4))


def learn_novelty(bundle: Bundle, options: TrainOptions, pool: Path) -> Bundle:
    """Write into a bundle how its ears of training look to it, see `hydrops.model.novelty`.

    Parameters
    ----------
    pool
        Folder of the training's geometries; `NOVELTY_EARS` are drawn from it, in contrasts as wide
        as the widest phase of the training.
    """
    segmenter = load_segmenter(bundle.folder, "cpu")
    # The parts of validation are called otherwise; a fifth of the others is variety enough.
    drawn = read_pool(sorted(pool.glob("[ps]*.npz"))[::5])
    spread = max(phase.spread for phase in options.phases)
    features = []
    for number in range(NOVELTY_EARS):
        rng = np.random.default_rng([options.seed, 17, number])
        fractions = torch.from_numpy(drawn.fractions[int(rng.integers(len(drawn)))]).float() / 255.0
        try:
            channels = draw_images(fractions, rng, options.missing_second_image, spread)
            features.append(run_network(segmenter, channels).features)
        except ExcludedError as exclusion:
            LOG.info("simulated ear %d: %s", number, exclusion.reason)
    known = Novelty.fit(features)
    LOG.info("novelty from %d ears: limit %.2f", len(features), known.limit)
    metadata = bundle.metadata | {"novelty": asdict(known)}
    write_text_atomically(bundle.folder / METADATA, json.dumps(metadata, indent=2) + "\n")
    return read_bundle(bundle.folder)
