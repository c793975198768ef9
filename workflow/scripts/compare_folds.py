"""Adapter: compare the models of a cross-validation."""

from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.cohort import read_table
    from hydrops.model.compare_folds import write_fold_comparison
    from hydrops.model.ct_task import CtOptions

    trainings = [CtOptions.load(Path(path)) for path in snakemake.params.tasks]
    write_fold_comparison(
        trainings,
        [read_table(Path(path)) for path in snakemake.input.cases],
        {
            training.name: Path(folder) / "overlays.png"
            for training, folder in zip(trainings, snakemake.input.pictures, strict=True)
        },
        Path(snakemake.output.page).parent,
    )
