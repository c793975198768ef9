"""Adapter: locate one session."""

import json
from pathlib import Path

from hydrops.jobs import logged
from hydrops.paths import Paths, Unit

with logged(snakemake.log[0]):
    from hydrops.locate import LocateOptions, locate_session
    from hydrops.records import run_stage

    unit = Unit(snakemake.wildcards.participant, snakemake.wildcards.session)
    paths = Paths(Path(snakemake.params.root))
    options = LocateOptions(**json.loads(snakemake.params.options))
    run_stage(
        Path(snakemake.output.record),
        "locate",
        unit,
        [Path(record) for record in snakemake.input],
        lambda output: locate_session(unit, paths, options, output),
    )
