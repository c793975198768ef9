"""Adapter: make a bundle of a training."""

import shutil
from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.model.bundle import METADATA
    from hydrops.model.package import write_bundle
    from hydrops.model.train import TrainOptions

    bundle = write_bundle(
        TrainOptions.load(Path(snakemake.params.task)),
        Path(snakemake.input.weights),
        Path(snakemake.params.models),
    )
    shutil.copyfile(bundle.folder / METADATA, snakemake.output.metadata)
