"""Adapter: ingest the sessions of a batch."""

import json
from pathlib import Path

from hydrops.jobs import logged
from hydrops.paths import Paths, Unit

with logged(snakemake.log[0]):
    from hydrops.chunks import run_chunk
    from hydrops.ingest import ingest_session
    from hydrops.protocol import protocol_from
    from hydrops.sources import source_state

    params = snakemake.params
    sources = {Unit(p, s): Path(folder) for p, s, folder, _ in params.members}
    protocol = protocol_from(json.loads(params.protocol))
    run_chunk(
        "ingest",
        [],
        None,
        list(sources),
        Paths(Path(params.root)),
        [params.code, params.protocol],
        Path(snakemake.output.manifest),
        lambda unit, output: ingest_session(sources[unit], unit, protocol, output),
        lambda unit: source_state(sources[unit]),
    )
