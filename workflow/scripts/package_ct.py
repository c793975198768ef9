"""Adapter: make a bundle of a CT training, with its card."""

import shutil
from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    import pandas as pd

    from hydrops.model.bundle import METADATA
    from hydrops.model.cases import specimens_in
    from hydrops.model.ct import CtOptions
    from hydrops.model.ct_package import write_ct_bundle, write_ct_card

    options = CtOptions.load(Path(snakemake.params.task))
    names = specimens_in(Path(snakemake.params.specimens))
    models = Path(snakemake.params.models)
    bundle = write_ct_bundle(options, names, Path(snakemake.input.weights), models)
    tables = [pd.read_csv(snakemake.input[n], sep="\t") for n in ("summary", "comparison")]
    pictures = sorted(Path(snakemake.input.pictures).glob("*.png"))
    notes = "\n".join(Path(path).read_text(encoding="utf-8") for path in snakemake.input.notes)
    write_ct_card(bundle, *tables, pictures, notes)
    shutil.copyfile(bundle.folder / METADATA, snakemake.output.metadata)
