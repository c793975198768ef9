"""Adapter: train a model with one thing changed, on the specimens outside a fold."""

from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.model.ablate import train_change
    from hydrops.model.ablation import Grid

    train_change(
        Grid.load(Path(snakemake.params.grid)),
        Path(snakemake.params.task),
        Path(snakemake.params.specimens),
        snakemake.wildcards.change,
        snakemake.wildcards.part,
        Path(snakemake.output.weights).parent,
        snakemake.params.device,
        snakemake.threads,
    )
