"""Adapter: compare the models of an evaluation."""

from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.cohort import read_table
    from hydrops.model.compare import write_comparison

    write_comparison(
        read_table(Path(snakemake.input.ears)),
        Path(snakemake.input.slices),
        snakemake.params.reference,
        read_table(Path(snakemake.input.summary)),
        Path(snakemake.output.page).parent,
    )
