"""Adapter: compare the models of an evaluation."""

from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.cohort import read_table
    from hydrops.model.bundle import read_bundle
    from hydrops.model.compare import write_comparison

    write_comparison(
        [read_bundle(Path(folder)) for folder in snakemake.params.bundles],
        read_table(Path(snakemake.input.ears)),
        Path(snakemake.input.slices),
        read_table(Path(snakemake.input.summary)),
        Path(snakemake.output.page).parent,
    )
