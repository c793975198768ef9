"""Adapter: test each fold's network on the cases that it never saw."""

from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.cohort import write_table
    from hydrops.model.folds import evaluate_parts

    tables = evaluate_parts(
        Path(snakemake.params.task),
        Path(snakemake.params.specimens),
        [Path(path) for path in snakemake.input.weights],
        Path(snakemake.output.pictures),
    )
    for name, table in tables.items():
        write_table(table, Path(snakemake.output[name]))
