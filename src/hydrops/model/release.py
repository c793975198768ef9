"""From the weights of an MR training to a model that cohorts can be run with."""

from __future__ import annotations

from pathlib import Path

from hydrops.model.bundle import Bundle
from hydrops.model.calibrate import calibrate, learn_novelty
from hydrops.model.package import publish_bundle, write_bundle
from hydrops.model.train import TrainOptions


def release(
    options: TrainOptions, weights: Path, specimens_folder: Path, models_dir: Path, processes: int
) -> Bundle:
    """Make a bundle, calibrate it, tell what it knows, and only then put it among the models.

    Until then it lies beside its weights: a model that is there already stays as it is, and one
    without its interval and its refusals is never met by a cohort.

    Raises
    ------
    HydropsError
        See `hydrops.model.calibrate`.
    """
    bundle = write_bundle(options, weights, weights.parent / "bundle")
    bundle = calibrate(bundle, options, specimens_folder, processes)
    bundle = learn_novelty(bundle, options, weights.parent)
    return publish_bundle(bundle, models_dir)
