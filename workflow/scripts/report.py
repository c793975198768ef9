"""Adapter: figures and report of the cohort."""

import json
from pathlib import Path

from hydrops.jobs import logged
from hydrops.paths import Paths

with logged(snakemake.log[0]):
    from hydrops.model.bundle import read_bundle
    from hydrops.participants import read_participants
    from hydrops.report import write_report
    from hydrops.statistics import read_reader_table

    reader = snakemake.input.get("reader")
    write_report(
        Paths(Path(snakemake.params.root)),
        read_bundle(Path(snakemake.params.bundle)),
        read_participants(Path(snakemake.input.participants)),
        read_reader_table(Path(reader)) if reader else None,
        simulated=snakemake.params.simulated,
        output=Path(snakemake.output.report),
        options=json.loads(snakemake.params.options),
        gpu_stages=snakemake.params.gpu_stages,
    )
