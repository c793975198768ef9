"""Adapter: write a model's card from its evaluation."""

import shutil
from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.cohort import read_table
    from hydrops.model.bundle import read_bundle
    from hydrops.model.evaluate import whose_anatomy
    from hydrops.model.package import write_card

    summary = read_table(Path(snakemake.input.summary))
    ears = read_table(Path(snakemake.input.ears))
    card = write_card(
        read_bundle(Path(snakemake.params.bundle)),
        summary[summary["model"] == snakemake.wildcards.model].drop(columns="model"),
        sorted(Path(snakemake.input.pictures).glob("*.png")),
        "".join(Path(notes).read_text(encoding="utf-8") for notes in snakemake.input.notes),
        whose_anatomy(ears[ears["model"] == snakemake.wildcards.model]),
    )
    shutil.copyfile(card, snakemake.output.card)
