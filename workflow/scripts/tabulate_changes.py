"""Adapter: test every changed model, and the one as it is, on the same specimens."""

from pathlib import Path

from hydrops.jobs import logged

with logged(snakemake.log[0]):
    from hydrops.cohort import write_table
    from hydrops.model.ablation import Grid
    from hydrops.model.ablation_table import evaluate_changes

    folder = Path(snakemake.output.table).parent / "ablation"
    table = evaluate_changes(
        Grid.load(Path(snakemake.params.grid)),
        Path(snakemake.params.task),
        Path(snakemake.params.specimens),
        lambda change, fold: folder / change / str(fold) / "weights.pt",
    )
    write_table(table, Path(snakemake.output.table))
