"""Adapter: locate the sessions of a batch."""

import json
from pathlib import Path

from hydrops.jobs import logged
from hydrops.paths import Paths, Unit

with logged(snakemake.log[0]):
    from hydrops.chunks import run_chunk
    from hydrops.locate import LocateOptions, locate_session

    params = snakemake.params
    paths = Paths(Path(params.root))
    options = LocateOptions(**json.loads(params.options))
    run_chunk(
        "locate",
        ["ingest", "register"],
        None,
        [Unit(*member) for member in params.members],
        paths,
        [params.code, params.options],
        Path(snakemake.output.manifest),
        lambda unit, output: locate_session(unit, paths, options, output),
    )
