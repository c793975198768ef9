"""Adapter: write a model's card from its evaluation."""

import shutil
from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.cohort import read_table
    from hydrops.model.bundle import read_bundle
    from hydrops.model.package import write_card

    bundle = read_bundle(Path(snakemake.params.bundle))
    card = write_card(bundle, read_table(Path(snakemake.input.summary)), {})
    shutil.copyfile(card, snakemake.output.card)
