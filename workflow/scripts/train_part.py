"""Adapter: train on labelled images, on all cases or on those outside a fold."""

from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.model.fold_training import train_part

    train_part(
        Path(snakemake.params.task),
        Path(snakemake.params.specimens),
        snakemake.wildcards.part,
        Path(snakemake.output.weights).parent,
        snakemake.params.device,
        snakemake.threads,
    )
