"""Adapter: train a model, or go on where its training was."""

from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.model.train import TrainOptions, train

    train(
        TrainOptions.load(Path(snakemake.params.task)),
        Path(snakemake.params.specimens),
        Path(snakemake.output.weights).parent,
        snakemake.params.device,
        snakemake.threads,
    )
