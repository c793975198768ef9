"""Adapter: evaluate a model on heads that its training never saw."""

import json
from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.cohort import write_table
    from hydrops.model.bundle import read_bundle
    from hydrops.model.evaluate import evaluate, summarise

    bundle = read_bundle(Path(snakemake.params.bundle))
    training = json.loads(snakemake.params.training)
    ears = evaluate(
        bundle.folder,
        Path(training["specimens"]),
        training["test_specimens"],
        training["test_heads"],
        training["test_seed"],
        snakemake.threads,
    )
    write_table(ears, Path(snakemake.output.ears))
    write_table(summarise(ears, bundle.ratio_half_width), Path(snakemake.output.summary))
