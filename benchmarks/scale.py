"""How the workflow around the science grows from ten participants to ten thousand.

    python benchmarks/scale.py [--sizes 10,100,1000,10000] [--execute 10,100] [--window 60]

The stages' bodies are those of stand_ins.py; rules, scripts, records, scheduling, aggregation and
report are the real ones, in a copy of the project. Sizes of `--execute` are run from the first job
to the report. The others are planned, run for `--window` seconds after their first job, and then
filled by the library's own chunks, so that the aggregation is real as well; Snakemake then knows
nothing of the filled jobs, and a run that finds nothing to do is not measured. Leaves scale.tsv and
scale.png in benchmarks/results. CPU seconds stand beside those of the wall clock, because a machine
is seldom free.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
STAGES = ("ingest", "register", "locate", "segment", "measure", "draw")
#: Of the measure stage's module, what others read.
CONSTANTS = ("EAR_COLUMNS", "LANDMARK_COLUMNS", "GRADE_THRESHOLDS")
#: In the place of the module that loads networks.
NO_MODEL = "def load_segmenter(folder, device, threads):\n    return None\n"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Spent:
    """Seconds of wall clock and of CPU of one process itself, and its largest memory, MiB."""

    wall_s: float
    cpu_s: float
    peak_mib: float


@dataclass
class Size:
    """A row of the table; None where it was not measured."""

    participants: int
    executed: str
    jobs: int
    dry_run_s: float
    dry_run_cpu_s: float
    dry_run_mib: float
    first_job_s: float
    first_job_cpu_s: float
    jobs_run: int
    scheduler_cpu_s_per_job: float
    snakemake_mib: float
    files_per_participant: float
    aggregation_s: float
    aggregation_cpu_s: float
    aggregation_mib: float
    nothing_s: float | None
    nothing_cpu_s: float | None
    nothing_mib: float | None
    status_s: float
    status_cpu_s: float


def make_project(folder: Path, count: int) -> None:
    """A copy of the project whose stages do nothing, and a cohort of empty scans."""
    from hydrops import measure

    for name in ("workflow", "config"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("models", "envs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "profiles").symlink_to("workflow/profiles")
    shutil.copy(ROOT / "Snakefile", folder)
    library = folder / "src" / "hydrops"
    shutil.copytree(ROOT / "src" / "hydrops", library, ignore=shutil.ignore_patterns("__pycache__"))
    body = (ROOT / "benchmarks" / "stand_ins.py").read_text(encoding="utf-8")
    body += "".join(f"{name} = {getattr(measure, name)!r}\n" for name in CONSTANTS)
    for stage in STAGES:
        (library / f"{stage}.py").write_text(body, encoding="utf-8")
    (library / "model" / "segmenter.py").write_text(NO_MODEL, encoding="utf-8")
    write_cohort(folder, count)
    path = folder / "config" / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config |= {
        "participants": "participants.tsv", "reader_table": "reader.tsv", "phantom": None,
        "training": None,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(config), encoding="utf-8")


def write_cohort(folder: Path, count: int) -> None:
    """Participants with everything that the statistics use, and a reader of every labyrinth."""
    lot = random.Random(count)
    people, read = [], []
    for number in range(count):
        name = f"P{number:05d}"
        (folder / "scans" / name).mkdir(parents=True)
        people.append(
            [name, f"scans/{name}", lot.choice(("control", "meniere")), lot.randint(20, 80),
             lot.choice("FM"), lot.choice(("left", "right")), lot.randint(5, 80),
             lot.randint(5, 80)]
        )  # fmt: skip
        for side in ("left", "right"):
            ratio = round(lot.betavariate(2.0, 6.0), 3)
            read.append([name, "1", side, "labyrinth", "one", ratio])
    columns = ["participant_id", "source", "group", "age", "sex", "affected_side", "pta_left",
               "pta_right"]  # fmt: skip
    table = pd.DataFrame(people, columns=columns)
    table.to_csv(folder / "participants.tsv", sep="\t", index=False)
    columns = ["participant_id", "session_id", "side", "organ", "reader", "eh_volume_ratio"]
    pd.DataFrame(read, columns=columns).to_csv(folder / "reader.tsv", sep="\t", index=False)


class Running:
    """A command in a project, watched from outside: its own CPU time and memory, no children's."""

    def __init__(self, folder: Path, *command: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "NO_COLOR": "1"}
        self.folder, self.command = folder, command
        self.start = time.monotonic()
        self.cpu_s = self.peak_mib = 0.0
        with (folder / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command], cwd=folder, env=environment, stdout=output,
                stderr=output, start_new_session=True,
            )  # fmt: skip

    @property
    def wall_s(self) -> float:
        return time.monotonic() - self.start

    def look(self) -> bool:
        """Note what the process has used so far; whether it is still there."""
        place = Path("/proc") / str(self.process.pid)
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            peak = re.search(r"VmHWM:\s+(\d+)", (place / "status").read_text())
        except OSError:
            return False
        self.cpu_s = (int(fields[11]) + int(fields[12])) / TICKS
        if peak:
            self.peak_mib = int(peak[1]) / 1024
        return self.process.poll() is None

    def until(self, reached: Callable[[], bool]) -> Spent:
        """Wait for something, or the end of the process."""
        while self.look() and not reached():
            time.sleep(0.1)
        return Spent(self.wall_s, self.cpu_s, self.peak_mib)

    def finish(self) -> Spent:
        """Wait for a good end."""
        spent = self.until(lambda: False)
        if self.process.wait() != 0:
            said = (self.folder / "output.txt").read_text(errors="replace")
            raise SystemExit(f"{' '.join(self.command)} failed:\n{said[-3000:]}")
        return spent

    def kill(self) -> None:
        """End the process and all that it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def snakemake(folder: Path, *arguments: str) -> Running:
    """Snakemake under way on two cores."""
    return Running(folder, "-m", "snakemake", "--cores", "2", *arguments)


def count_files(folder: Path, pattern: str = "*") -> int:
    """Files below a folder."""
    return sum(1 for path in folder.rglob(pattern) if path.is_file())


def execute(folder: Path, window_s: float | None) -> tuple[Spent, int, Spent]:
    """Run, to the end or for some seconds; what it took to the first job, jobs, and after that."""
    logs = folder / "results" / "logs" / "ingest"
    running = snakemake(folder)
    first = running.until(lambda: logs.is_dir() and any(logs.iterdir()))
    if window_s is None:
        whole = running.finish()
    else:
        end = time.monotonic() + window_s
        whole = running.until(lambda: time.monotonic() > end)
        running.kill()
    jobs = count_files(folder / "results" / "benchmarks")
    after = Spent(whole.wall_s - first.wall_s, whole.cpu_s - first.cpu_s, whole.peak_mib)
    return first, jobs, after


def fill(folder: Path) -> None:
    """Leave every record and manifest up to the cohort, by the library's own chunks."""
    for name in ("results", ".snakemake"):
        shutil.rmtree(folder / name, ignore_errors=True)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import scale; scale.fill_here()"
    Running(folder, "-c", code, str(ROOT / "benchmarks")).finish()


def fill_here() -> None:
    """The same, inside the project and its own library."""
    from hydrops import draw, ingest, locate, measure, register, segment
    from hydrops.chunks import run_chunk
    from hydrops.config import resolve
    from hydrops.validate import load_yaml

    study = resolve(load_yaml(Path("config/config.yaml"), "config"))
    paths, (model,) = study.paths, study.bundles
    scans, protocol = study.sources, study.protocol
    nothing: Any = None  # neither options nor a network: the bodies read none
    shared = {
        "ingest": lambda u, o: ingest.ingest_session(scans[u], u, protocol, o),
        "register": lambda u, o: register.register_session(u, paths, nothing, o),
        "locate": lambda u, o: locate.locate_session(u, paths, nothing, o),
    }
    modelled = {
        "segment": lambda u, o: segment.segment_session(nothing, u, paths, o),
        "measure": lambda u, o: measure.measure_session(u, paths, model, nothing, o),
        "draw": lambda u, o: draw.draw_session(u, paths, model, o),
    }
    before: list[str] = []
    for bodies, owner, jobs in ((shared, None, study.batches), (modelled, model, study.chunks)):
        for stage, body in bodies.items():
            for name, units in jobs.items():
                manifest = paths.chunk(stage, owner, name)
                run_chunk(stage, before, owner, units, paths, [], manifest, body)
            before = [stage]


def aggregation(folder: Path) -> Spent:
    """What the jobs of the cohort and the report took, by Snakemake's own benchmarks."""
    tables = [
        pd.read_csv(path, sep="\t", na_values=["-", "NA"]).iloc[0]
        for stage in ("cohort", "report")
        for path in (folder / "results" / "benchmarks" / stage).glob("*.tsv")
    ]
    return Spent(
        float(sum(t["s"] for t in tables)), float(sum(t["cpu_time"] for t in tables)),
        float(max(t["max_rss"] for t in tables)),
    )  # fmt: skip


def measure_size(count: int, whole: bool, window_s: float, scratch: Path) -> Size:
    """Everything about one size of cohort."""
    folder = scratch / f"cohort-{count}"
    make_project(folder, count)
    planned = snakemake(folder, "--dry-run", "--quiet", "rules").finish()
    said = (folder / "output.txt").read_text(errors="replace")
    jobs = int(re.findall(r"^total +(\d+)$", said, re.MULTILINE)[-1])
    first, run, after = execute(folder, None if whole else window_s)
    if not whole:
        fill(folder)
        snakemake(folder).finish()
    files = count_files(folder / "results") + count_files(folder / ".snakemake")
    gathered = aggregation(folder)
    nothing = snakemake(folder).finish() if whole else None
    code = "from hydrops.cli import main; main(['status', '--page', 'results/status.html'])"
    status = Running(folder, "-c", code).finish()
    shutil.copy(folder / "output.txt", scratch / f"output-{count}.txt")
    shutil.rmtree(folder)
    return Size(
        participants=count,
        executed="whole" if whole else f"{window_s:.0f} s",
        jobs=jobs,
        dry_run_s=planned.wall_s,
        dry_run_cpu_s=planned.cpu_s,
        dry_run_mib=planned.peak_mib,
        first_job_s=first.wall_s,
        first_job_cpu_s=first.cpu_s,
        jobs_run=run,
        scheduler_cpu_s_per_job=after.cpu_s / max(run, 1),
        snakemake_mib=after.peak_mib,
        files_per_participant=files / count,
        aggregation_s=gathered.wall_s,
        aggregation_cpu_s=gathered.cpu_s,
        aggregation_mib=gathered.peak_mib,
        nothing_s=nothing.wall_s if nothing else None,
        nothing_cpu_s=nothing.cpu_s if nothing else None,
        nothing_mib=nothing.peak_mib if nothing else None,
        status_s=status.wall_s,
        status_cpu_s=status.cpu_s,
    )


def draw(table: pd.DataFrame) -> Figure:
    """How each thing grows, beside a line that is exactly linear."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 3)
    times = {
        "dry_run_cpu_s": "dry run", "first_job_cpu_s": "to the first job",
        "nothing_cpu_s": "nothing to do",
    }  # fmt: skip
    _lines(axes[0, 0], table, times, "Snakemake before any job", "CPU seconds", linear=True)
    memory = {
        "dry_run_mib": "dry run", "snakemake_mib": "running", "nothing_mib": "nothing to do"
    }  # fmt: skip
    _lines(axes[0, 1], table, memory, "Memory of Snakemake", "MiB", linear=False)
    axes[0, 1].set_ylim(100, 4000)
    axes[0, 1].axhline(2048, color="0.6", linestyle=":")
    axes[0, 1].text(table["participants"].min(), 2048, "target", va="bottom", color="0.4")
    _lines(axes[0, 2], table, {"scheduler_cpu_s_per_job": ""}, "Scheduling of one job",
           "CPU seconds", linear=False)  # fmt: skip
    both = {"aggregation_s": "wall clock", "aggregation_cpu_s": "CPU"}
    _lines(axes[1, 0], table, both, "Tables, statistics and report", "seconds", linear=True)
    both = {"status_s": "wall clock", "status_cpu_s": "CPU"}
    _lines(axes[1, 1], table, both, "hydrops status, with its page", "seconds", linear=True)
    _lines(axes[1, 2], table, {"jobs": "jobs"}, "Jobs, files for each participant", "", linear=True)
    _lines(axes[1, 2], table, {"files_per_participant": "files a participant"}, None, "",
           linear=False)  # fmt: skip
    return figure


def _lines(
    axes: Axes, table: pd.DataFrame, columns: dict[str, str], title: str | None, unit: str,
    linear: bool,
) -> None:  # fmt: skip
    marks = iter("os^")
    for name, label in columns.items():
        axes.plot(table["participants"], table[name], f"{next(marks)}-", label=label or None,
                  color="C3" if name == "files_per_participant" else None)  # fmt: skip
    if linear:
        count = table["participants"]
        top = np.nanmax(table[list(columns)].to_numpy(float)[-1])
        axes.plot(count, top * count / count.iloc[-1], color="0.8", zorder=0, label="linear")
    axes.set(xscale="log", yscale="log", xlabel="participants")
    shown = table[list(columns)].to_numpy(float)
    low, high = np.floor(np.log10(np.nanmin(shown))), np.ceil(np.log10(1.01 * np.nanmax(shown)))
    old = axes.get_ylim() if title is None else (np.inf, 0.0)
    axes.set_ylim(min(10.0**low, old[0]), max(10.0**high, old[1]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
    if title:
        axes.set(title=title, ylabel=unit)
    axes.spines[["top", "right"]].set_visible(False)
    if any(columns.values()):
        axes.legend(frameon=False, fontsize=8)


def main() -> None:
    """Measure, and leave table and picture; a size that is measured already stays in the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="10,100,1000,10000")
    parser.add_argument("--execute", default="10,100", help="sizes to run to the end")
    parser.add_argument("--window", type=float, default=60.0, help="seconds to run the others")
    chosen = parser.parse_args()
    whole = {int(size) for size in chosen.execute.split(",") if size}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "scale.tsv"
    with tempfile.TemporaryDirectory() as name:
        for size in sorted(int(size) for size in chosen.sizes.split(",")):
            row = measure_size(size, size in whole, chosen.window, Path(name))
            # What was not measured is no number rather than nothing, as in the table on disk.
            table = pd.DataFrame([asdict(row)]).replace({None: np.nan}).round(3)
            if path.is_file():
                old = pd.read_csv(path, sep="\t", na_values=["n/a"])
                table = pd.concat([old[old["participants"] != size], table])
            table = table.sort_values("participants")
            table.to_csv(path, sep="\t", index=False, na_rep="n/a")
            draw(table).savefig(RESULTS / "scale.png", dpi=100, metadata={"Software": None})
            print(table.T.to_string(), file=sys.stderr)


if __name__ == "__main__":
    main()
