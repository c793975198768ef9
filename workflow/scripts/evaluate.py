"""Adapter: evaluate the models on heads that their training never saw."""

from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.cohort import write_table
    from hydrops.model.evaluate import evaluate, refuse_seen, summarise

    test_specimens, test_heads, test_seed = snakemake.params.test
    bundles = [Path(folder) for folder in snakemake.params.bundles]
    specimens = Path(snakemake.params.specimens)
    refuse_seen(bundles, specimens, test_specimens)
    slices = Path(snakemake.output.slices)
    slices.mkdir(parents=True)
    ears = evaluate(
        bundles,
        specimens,
        test_specimens,
        test_heads,
        test_seed,
        snakemake.threads,
        slices,
    )
    write_table(ears, Path(snakemake.output.ears))
    write_table(summarise(ears), Path(snakemake.output.summary))
