"""Adapter: make a bundle of a cross-validated training, with its card."""

import shutil
from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.cohort import read_table
    from hydrops.model.bundle import METADATA
    from hydrops.model.folds import package_folds

    bundle = package_folds(
        Path(snakemake.params.task),
        Path(snakemake.params.specimens),
        Path(snakemake.input.weights),
        Path(snakemake.params.models),
        {n: read_table(Path(snakemake.input[n])) for n in ("summary", "comparison")},
        sorted(Path(snakemake.input.pictures).glob("*.png")),
        "\n".join(Path(path).read_text(encoding="utf-8") for path in snakemake.input.notes),
    )
    shutil.copyfile(bundle.folder / METADATA, snakemake.output.metadata)
