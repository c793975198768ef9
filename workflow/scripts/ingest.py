"""Adapter: ingest one session."""

import json
from pathlib import Path

from hydrops.jobs import logged
from hydrops.paths import Unit

with logged(snakemake.log[0]):
    from hydrops.ingest import ingest_session
    from hydrops.protocol import protocol_from
    from hydrops.records import run_stage

    unit = Unit(snakemake.wildcards.participant, snakemake.wildcards.session)
    protocol = protocol_from(json.loads(snakemake.params.protocol))
    source = Path(snakemake.params.source)
    run_stage(
        Path(snakemake.output.record),
        "ingest",
        unit,
        [],
        lambda output: ingest_session(source, unit, protocol, output),
    )
