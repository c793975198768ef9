"""Adapter: simulate a reader of the phantoms."""

from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.cohort import write_table
    from hydrops.phantom.cohort import simulate_reader

    write_table(
        simulate_reader([Path(folder) for folder in snakemake.input.truth]),
        Path(snakemake.output.table),
    )
