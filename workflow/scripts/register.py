"""Adapter: register the sessions of a batch."""

import json
from pathlib import Path

from hydrops.jobs import logged
from hydrops.paths import Paths, Unit

with logged(snakemake.log[0]):
    from hydrops.chunks import run_chunk
    from hydrops.register import RegisterOptions, register_session

    params = snakemake.params
    paths = Paths(Path(params.root))
    options = RegisterOptions(**json.loads(params.options))
    run_chunk(
        "register",
        ["ingest"],
        None,
        [Unit(*member) for member in params.members],
        paths,
        [params.code, params.options],
        Path(snakemake.output.manifest),
        lambda unit, output: register_session(unit, paths, options, output),
    )
