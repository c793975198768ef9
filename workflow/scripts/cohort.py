"""Adapter: tables and statistics of the cohort."""

from pathlib import Path

from hydrops.jobs import logged
from hydrops.paths import Paths

with logged(snakemake.log[0]):
    from hydrops.cohort import build_tables, ratio_intervals, read_table, write_table
    from hydrops.participants import read_participants, units_of
    from hydrops.statistics import cohort_statistics, read_reader_table

    participants = read_participants(Path(snakemake.input.participants))
    reader = snakemake.input.get("reader")
    paths = Paths(Path(snakemake.params.root))
    tables = build_tables(units_of(participants), paths, snakemake.wildcards.model)
    for name in ("ears", "exclusions", "landmarks"):
        write_table(getattr(tables, name), Path(snakemake.output[name]))
    ears = read_table(Path(snakemake.output.ears))
    write_table(ratio_intervals(ears), Path(snakemake.output.intervals))
    statistics = cohort_statistics(
        ears,
        participants,
        read_reader_table(Path(reader)) if reader else None,
    )
    write_table(statistics, Path(snakemake.output.statistics))
