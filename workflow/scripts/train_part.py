"""Adapter: train on labelled CT, on all specimens or on those outside a fold."""

from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.model.cases import cases_of_part
    from hydrops.model.ct import CtOptions, train_ct

    options = CtOptions.load(Path(snakemake.params.task))
    train_ct(
        options,
        cases_of_part(
            Path(snakemake.params.specimens), options.folds, options.seed, snakemake.wildcards.part
        ),
        Path(snakemake.output.weights).parent,
        snakemake.params.device,
        snakemake.threads,
    )
