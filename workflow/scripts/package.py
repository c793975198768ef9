"""Adapter: make a bundle of a training."""

import shutil
from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.model.bundle import METADATA
    from hydrops.model.release import release
    from hydrops.model.train import TrainOptions

    bundle = release(
        TrainOptions.load(Path(snakemake.params.task)),
        Path(snakemake.input.weights),
        Path(snakemake.params.specimens),
        Path(snakemake.params.models),
        snakemake.threads,
    )
    shutil.copyfile(bundle.folder / METADATA, snakemake.output.metadata)
