"""Adapter: make a bundle of a training."""

import shutil
from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.model.bundle import METADATA
    from hydrops.model.calibrate import calibrate, learn_novelty
    from hydrops.model.package import write_bundle
    from hydrops.model.train import TrainOptions

    options = TrainOptions.load(Path(snakemake.params.task))
    weights, models = Path(snakemake.input.weights), Path(snakemake.params.models)
    bundle = write_bundle(options, weights, models)
    bundle = calibrate(bundle, options, Path(snakemake.params.specimens), snakemake.threads)
    bundle = learn_novelty(bundle, options, weights.parent)
    shutil.copyfile(bundle.folder / METADATA, snakemake.output.metadata)
