"""What a cohort costs, stage by stage, how that grows, and what scripting it by hand costs.

    python benchmarks/cost.py [--participants 20] [--growth 5,10,20,40] [--by-hand 5]

Draws the phantoms once (not counted), runs the pipeline on the first n of them in a folder of its
own for each n of `--growth`, and the scripted way on `--by-hand` participants. Leaves the tables
stages.tsv and growth.tsv and the picture cost.png in benchmarks/results. All on two cores; let
nothing else run on the machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
STAGES = ("ingest", "register", "locate", "segment", "measure", "draw", "cohort", "report")


@dataclass(frozen=True)
class Cost:
    """Seconds of wall clock and of CPU, and the largest process of a command, MiB."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def run(command: list[str], folder: Path) -> Cost:
    """Run a command to its end; what it started and waited for counts as its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    start = time.monotonic()
    with (folder / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed; see {folder / 'output.txt'}")
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(time.monotonic() - start, cpu, usage.ru_maxrss / 1024)


def draw_cohort(folder: Path, count: int) -> Path:
    """DICOM of `count` phantoms and their participants.tsv."""
    from concurrent.futures import ProcessPoolExecutor

    from hydrops.cohort import write_table
    from hydrops.phantom.cohort import participants_table, write_participant
    from hydrops.phantom.specs import random_specs

    specs = random_specs(count, seed=17)
    with ProcessPoolExecutor(2) as executor:
        drawn = [
            executor.submit(
                write_participant,
                spec,
                folder / "dicom" / f"sub-{spec.participant_id}",
                folder / "truth" / f"sub-{spec.participant_id}",
            )
            for spec in specs
        ]
        for number, one in enumerate(drawn, start=1):
            one.result()
            print(f"drawn {number} of {count}", file=sys.stderr)
    table = folder / "participants.tsv"
    write_table(participants_table(specs, folder / "dicom"), table)
    return table


def run_pipeline(cohort: Path, count: int, folder: Path) -> tuple[Cost, pd.DataFrame]:
    """Run the pipeline on the first `count` participants; its cost and that of each job."""
    from hydrops.cost import read_jobs
    from hydrops.paths import Paths

    for name in ("Snakefile", "workflow", "config", "models", "envs"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    lines = cohort.read_text(encoding="utf-8").splitlines()[: count + 1]
    (folder / "participants.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = folder / "config" / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config |= {
        "participants": "participants.tsv", "phantom": None, "reader_table": None, "training": None,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    cost = run([sys.executable, "-m", "snakemake", "--cores", "2"], folder)
    done = read_jobs(Paths(folder / "results"))
    jobs = [
        {"stage": stage, "wall_s": job.wall_s, "cpu_s": job.cpu_s, "peak_mib": job.peak_mib}
        for stage in STAGES
        for job in done
        if job.stage == stage
    ]
    return cost, pd.DataFrame(jobs)


def run_by_hand(cohort: Path, count: int, bundle: Path, folder: Path) -> pd.DataFrame:
    """The same work, one process a step; one row a step and participant."""
    import dcm2niix

    hand = [sys.executable, str(Path(__file__).parent / "by_hand.py")]
    rows = []
    for number in range(count):
        source = sorted((cohort.parent / "dicom").iterdir())[number]
        scratch = folder / source.name
        scratch.mkdir(parents=True)
        commands = {
            "dcm2niix": [dcm2niix.bin, "-z", "y", "-f", "%s", "-o", str(scratch), str(source)],
            "register PPI": [*hand, "register", "4.nii.gz", "5.nii.gz", "ppi.nii.gz"],
            "register PEI": [*hand, "register", "4.nii.gz", "6.nii.gz", "pei.nii.gz"],
            "HYDROPS-Mi2": [*hand, "hydrops", "4.nii.gz", "ppi.nii.gz", "pei.nii.gz", "mi2.nii.gz"],
            "segment, measure": [*hand, "measure", "4.nii.gz", "mi2.nii.gz", str(bundle)],
        }
        for step, command in commands.items():
            cost = run(command, scratch)
            rows.append(
                {"stage": step, "wall_s": cost.wall_s, "cpu_s": cost.cpu_s,
                 "peak_mib": cost.peak_mib}
            )  # fmt: skip
        print(f"by hand {number + 1} of {count}", file=sys.stderr)
    return pd.DataFrame(rows)


def per_participant(jobs: pd.DataFrame, way: str, count: int) -> pd.DataFrame:
    """Seconds a participant and the peak of each stage, and of all stages together."""
    groups = jobs.groupby("stage", sort=False)
    table = groups[["wall_s", "cpu_s"]].sum() / count
    table["peak_mib"] = groups["peak_mib"].max()
    table.loc["all stages"] = [*table[["wall_s", "cpu_s"]].sum(), table["peak_mib"].max()]
    table.insert(0, "participants", count)
    table.insert(0, "way", way)
    return table.reset_index()


def draw(stages: pd.DataFrame, growth: pd.DataFrame) -> Figure:
    """Stages of both ways as bars, and how the pipeline's cost grows."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    bars, line = figure.subplots(1, 2)
    shown = stages[~stages["stage"].isin(["all stages", "whole run"])]
    for y, way in enumerate(shown["way"].unique()):
        left = 0.0
        for number, row in enumerate(shown[shown["way"] == way].itertuples()):
            bars.barh(y, row.cpu_s, left=left, color=f"C{number}", edgecolor="white")
            if row.cpu_s > 0.12 * shown.groupby("way")["cpu_s"].sum().max():
                bars.text(left + row.cpu_s / 2, y, row.stage.replace(" ", "\n"), ha="center",
                          va="center", fontsize=8, color="white")  # fmt: skip
            left += row.cpu_s
    bars.set_yticks(range(shown["way"].nunique()), shown["way"].unique())
    bars.set(xlabel="CPU seconds a participant", title="Work of each stage")
    line.plot(growth["participants"], growth["wall_s"], "o-", label="whole run, two cores")
    line.plot(growth["participants"], growth["cpu_s"], "s--", label="CPU")
    line.set(xlabel="participants", ylabel="seconds", title="Growth with the cohort",
             xlim=(0, None), ylim=(0, None))  # fmt: skip
    for row in growth.itertuples():
        line.annotate(f"{row.wall_s / row.participants:.1f} s each",
                      (row.participants, row.wall_s), xytext=(4, -14),
                      textcoords="offset points", fontsize=8)  # fmt: skip
    line.set_xticks(growth["participants"])
    line.legend(frameon=False)
    for panel in (bars, line):
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Measure, and leave tables and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--participants", type=int, default=20)
    parser.add_argument("--growth", default="5,10,20,40")
    parser.add_argument("--by-hand", type=int, default=5)
    chosen = parser.parse_args()
    sizes = sorted({chosen.participants, *map(int, chosen.growth.split(","))})
    from hydrops.model.bundle import find_bundle

    bundle = find_bundle(ROOT / "models", "paired_unet3d").folder
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        cohort = draw_cohort(scratch, max(sizes))
        tables, grown = [], []
        for size in sizes:
            folder = scratch / f"run-{size}"
            folder.mkdir()
            cost, jobs = run_pipeline(cohort, size, folder)
            grown.append({"participants": size, **vars(cost)})
            print(f"{size} participants: {cost.wall_s:.0f} s", file=sys.stderr)
            if size == chosen.participants:
                tables.append(per_participant(jobs, "pipeline", size))
                whole = {"stage": "whole run", "way": "pipeline", "participants": size,
                         "wall_s": cost.wall_s / size, "cpu_s": cost.cpu_s / size,
                         "peak_mib": cost.peak_mib}  # fmt: skip
                tables.append(pd.DataFrame([whole]))
            shutil.rmtree(folder)
        by_hand = run_by_hand(cohort, chosen.by_hand, bundle, scratch / "hand")
        tables.append(per_participant(by_hand, "scripted", chosen.by_hand))
    stages, growth = pd.concat(tables, ignore_index=True), pd.DataFrame(grown)
    RESULTS.mkdir(exist_ok=True)
    stages.to_csv(RESULTS / "stages.tsv", sep="\t", index=False, float_format="%.2f")
    growth.to_csv(RESULTS / "growth.tsv", sep="\t", index=False, float_format="%.1f")
    draw(stages, growth).savefig(RESULTS / "cost.png", dpi=100, metadata={"Software": None})
    print(stages.to_string(index=False))
    print(growth.to_string(index=False))


if __name__ == "__main__":
    main()
