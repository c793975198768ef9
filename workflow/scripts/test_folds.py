"""Adapter: test each fold's network on the specimens that it never saw."""

from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.cohort import write_table
    from hydrops.model.crossval import compare_variants, summarise_folds
    from hydrops.model.ct import CtOptions
    from hydrops.model.ct_package import draw_folds_tested, evaluate_folds

    options = CtOptions.load(Path(snakemake.params.task))
    weights = [Path(path) for path in snakemake.input.weights]
    cases = evaluate_folds(options, Path(snakemake.params.specimens), weights)
    write_table(cases, Path(snakemake.output.cases))
    write_table(summarise_folds(cases), Path(snakemake.output.summary))
    write_table(compare_variants(cases), Path(snakemake.output.comparison))
    draw_folds_tested(
        options, Path(snakemake.params.specimens), weights, cases, Path(snakemake.output.pictures)
    )
