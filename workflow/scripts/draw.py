"""Adapter: draw the sessions of a chunk."""

from pathlib import Path

from hydrops.jobs import logged
from hydrops.paths import Paths, Unit

with logged(snakemake.log[0]):
    from hydrops.chunks import run_chunk
    from hydrops.draw import draw_session

    params, model = snakemake.params, snakemake.wildcards.model
    paths = Paths(Path(params.root))
    run_chunk(
        "draw",
        ["ingest", "locate", "segment", "measure"],
        model,
        [Unit(*member) for member in params.members],
        paths,
        [params.code],
        Path(snakemake.output.manifest),
        lambda unit, output: draw_session(unit, paths, model, output),
    )
