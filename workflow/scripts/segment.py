"""Adapter: segment the sessions of a chunk."""

from pathlib import Path

from hydrops.jobs import logged
from hydrops.paths import Paths, Unit

with logged(snakemake.log[0]):
    from hydrops.chunks import run_chunk
    from hydrops.model.segmenter import load_segmenter
    from hydrops.segment import segment_session

    params, model = snakemake.params, snakemake.wildcards.model
    paths = Paths(Path(params.root))
    segmenter = load_segmenter(Path(params.model), params.device, snakemake.threads)
    run_chunk(
        "segment",
        ["ingest", "locate"],
        model,
        [Unit(*member) for member in params.members],
        paths,
        [params.code, params.sha256],
        Path(snakemake.output.manifest),
        lambda unit, output: segment_session(segmenter, unit, paths, output),
    )
