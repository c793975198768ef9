"""Calibrate a bundle: the levels of the pure fluids, on simulated heads of their own."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

from hydrops.model.bundle import METADATA, Bundle, read_bundle
from hydrops.model.evaluate import evaluate
from hydrops.model.train import TrainOptions
from hydrops.model.unmix import FluidLevels, half_width
from hydrops.records import write_text_atomically

LOG = logging.getLogger(__name__)

#: Coverage of the interval that is given with a ratio.
COVERAGE = 0.95


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
    ears = evaluate(
        bundle.folder,
        specimens_folder,
        [*options.train_specimens, *options.validation_specimens],
        options.calibration_heads,
        options.calibration_seed,
        processes,
    ).dropna(subset=["ratio"])
    known = (ears["level"], ears["enhancement"], ears["ratio_true"])
    levels = FluidLevels.fit(*known)
    interval = {"coverage": COVERAGE, "half_width": round(half_width(*known, COVERAGE), 4)}
    LOG.info("fluid levels from %d ears: %s, interval %s", len(ears), levels, interval)
    metadata = bundle.metadata | {
        "fluid_levels": asdict(levels),
        "ratio_interval": interval,
        "calibration": {"ears": len(ears), "seed": options.calibration_seed},
    }
    write_text_atomically(bundle.folder / METADATA, json.dumps(metadata, indent=2) + "\n")
    return read_bundle(bundle.folder)
