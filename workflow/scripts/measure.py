"""Adapter: measure the sessions of a chunk."""

import json
from pathlib import Path

from hydrops.jobs import logged
from hydrops.paths import Paths, Unit

with logged(snakemake.log[0]):
    from hydrops.chunks import run_chunk
    from hydrops.measure import MeasureOptions, measure_session

    params, model = snakemake.params, snakemake.wildcards.model
    paths = Paths(Path(params.root))
    options = MeasureOptions(**json.loads(params.options))
    run_chunk(
        "measure",
        ["ingest", "register", "segment"],
        model,
        [Unit(*member) for member in params.members],
        paths,
        [params.code, params.options],
        Path(snakemake.output.manifest),
        lambda unit, output: measure_session(unit, paths, model, options, output),
    )
