"""Adapter: draw the pictures of a model's card."""

from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.cohort import read_table
    from hydrops.model.pictures import write_pictures
    from hydrops.model.segmenter import load_segmenter

    real_ear = snakemake.params.real_ear
    ears = read_table(Path(snakemake.input.ears))
    write_pictures(
        ears[ears["model"] == snakemake.wildcards.model],
        load_segmenter(Path(snakemake.params.bundle), "cpu", threads=1),
        Path(real_ear) if real_ear else None,
        Path(snakemake.output.pictures),
    )
