"""What a run cost: time, memory and wait by stage, from its benchmarks, its logs and SLURM.

Snakemake leaves a benchmark for each job, and each job a log of the same name that says how many
sessions it did and, on a cluster, in which SLURM job. A job that ran again counts once, as it last
ran; one that found everything done counts with no sessions.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path

import pandas as pd

from hydrops import page
from hydrops.chunks import CHUNK_STAGES, SHARED_STAGES, sessions_done
from hydrops.files import write_text_atomically
from hydrops.jobs import slurm_job, spent
from hydrops.paths import Paths
from hydrops.slurm import answer

#: Stages in the order of the work; others follow by name.
ORDER = (*SHARED_STAGES, *CHUNK_STAGES, "cohort", "report")
COLUMNS = (
    "stage", "model", "jobs", "sessions", "wall_h", "cpu_h", "gpu_h", "wait_h", "reserved_cpu_h",
    "peak_mib", "wall_s_per_session", "cpu_s_per_session", "gpu_s_per_session",
)  # fmt: skip
#: What SLURM is asked for, in this order.
SACCT_FIELDS = ("JobIDRaw", "Submit", "Start", "ElapsedRaw", "AllocCPUS", "AllocTRES")
#: Jobs asked for in one call, for a command line has a limit.
AT_ONCE = 500
#: The cohort that a group plans.
PLANNED = 1000


@dataclass(frozen=True)
class Job:
    """One job as it last ran.

    Parameters
    ----------
    wall_s
        As its benchmark has it.
    cpu_s, peak_mib
        As its log has them: after 15 s a benchmark looks only every 30 s, and misses what lies
        behind its last look. Its figures stand for a job whose log does not tell.
    sessions
        Sessions that it computed, not those that it found done; 0 for a job of the whole cohort.
    slurm
        Number of the SLURM job that it ran in, empty elsewhere; jobs of a group share one.
    """

    stage: str
    model: str
    wall_s: float
    cpu_s: float
    peak_mib: float
    sessions: int = 0
    slurm: str = ""


@dataclass(frozen=True)
class Allocation:
    """What SLURM gave one of its jobs, seconds: in the queue, and cores and GPUs times time."""

    wait_s: float
    cpu_s: float
    gpu_s: float


def read_jobs(paths: Paths) -> list[Job]:
    """Every job of which a benchmark is there."""
    root = paths.benchmarks
    jobs = []
    for table in sorted(root.rglob("*.tsv")):
        job = _read_job(table, table.relative_to(root).parts, paths)
        if job is not None:
            jobs.append(job)
    return jobs


def _read_job(table: Path, place: Sequence[str], paths: Paths) -> Job | None:
    """A job from its benchmark and log; None for a benchmark that a killed job left unfinished."""
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    if not rows or not rows[-1].get("s"):
        return None
    log = paths.log_beside(table)
    said = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    wall, *looked = (_number(rows[-1].get(name)) for name in ("s", "cpu_time", "max_rss"))
    cpu, peak = spent(said) or looked
    stage, *owner, _ = place
    return Job(stage, "/".join(owner), wall, cpu, peak, sessions_done(said), slurm_job(said))


def _number(text: str | None) -> float:
    """A figure of a benchmark; what was not measured is written as words."""
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def ask_sacct(numbers: Iterable[str]) -> dict[str, Allocation]:
    """What SLURM's accounting knows of some jobs; nothing where there is no accounting."""
    wanted = sorted(set(numbers) - {""})
    found: dict[str, Allocation] = {}
    for first in range(0, len(wanted), AT_ONCE):
        listed = ",".join(wanted[first : first + AT_ONCE])
        told = answer("sacct", "-X", "-n", "-P", "-j", listed, "-o", ",".join(SACCT_FIELDS))
        if not told:
            break
        found |= parse_sacct(told)
    return found


def parse_sacct(text: str) -> dict[str, Allocation]:
    """Allocations by job from lines of `SACCT_FIELDS`; of a requeued job, its last line."""
    found = {}
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) != len(SACCT_FIELDS):
            continue
        number, submitted, started, elapsed, cores, resources = parts
        try:
            wait = datetime.fromisoformat(started) - datetime.fromisoformat(submitted)
        except ValueError:  # Unknown, None: it never started
            continue
        gpus = sum(int(n) for n in re.findall(r"\bgres/gpu=(\d+)", resources))
        seconds = float(elapsed or 0)
        found[number] = Allocation(
            max(wait.total_seconds(), 0.0), seconds * int(cores or 0), seconds * gpus
        )
    return found


def cost_table(
    jobs: Sequence[Job], allocations: Mapping[str, Allocation], gpu_stages: Sequence[str] = ()
) -> pd.DataFrame:
    """Cost by stage and model, and of all (`COLUMNS`); hours, seconds a session, MiB.

    Parameters
    ----------
    allocations
        As `ask_sacct` gives them. Jobs that ran in one SLURM job share it by their time.
    gpu_stages
        Stages that hold a GPU while they run, for the jobs that SLURM says nothing of.
    """
    inside: defaultdict[str, float] = defaultdict(float)
    for job in jobs:
        inside[job.slurm] += job.wall_s
    rows = [_row(job, inside[job.slurm], allocations.get(job.slurm), gpu_stages) for job in jobs]
    names = ("wall_s", "cpu_s", "gpu_s", "wait_s", "reserved_s", "peak_mib", "sessions")
    table = pd.DataFrame(rows, columns=["stage", "model", *names])
    summed = [
        _summary(str(stage), str(model), part)
        for (stage, model), part in table.groupby(["stage", "model"])
    ]
    summed.sort(key=lambda row: (_place(str(row["stage"])), row["model"]))
    if summed:
        summed.append(_total(summed, table))
    return pd.DataFrame(summed, columns=list(COLUMNS))


def _row(
    job: Job, inside_s: float, allocation: Allocation | None, gpu_stages: Sequence[str]
) -> list[object]:
    if allocation is None:
        gpu = job.wall_s if job.stage in gpu_stages else 0.0
        shares: list[object] = [gpu, None, None]
    else:
        share = job.wall_s / inside_s if inside_s else 1.0
        shares = [s * share for s in (allocation.gpu_s, allocation.wait_s, allocation.cpu_s)]
    return [
        job.stage, job.model, job.wall_s, job.cpu_s, *shares, job.peak_mib, job.sessions
    ]  # fmt: skip


def _summary(stage: str, model: str, part: pd.DataFrame) -> dict[str, object]:
    """One line of the table."""
    # A job that found everything done says nothing about what a session costs.
    computed = part[part["sessions"] > 0]
    sessions = int(computed["sessions"].sum())
    row: dict[str, object] = {
        "stage": stage,
        "model": model or None,
        "jobs": len(part),
        "sessions": sessions or None,
        "peak_mib": part["peak_mib"].max(),
    }
    for name in ("wall", "cpu", "gpu"):
        row[f"{name}_h"] = part[f"{name}_s"].sum() / 3600
        row[f"{name}_s_per_session"] = computed[f"{name}_s"].sum() / sessions if sessions else None
    row["wait_h"] = part["wait_s"].astype(float).sum(min_count=1) / 3600
    row["reserved_cpu_h"] = part["reserved_s"].astype(float).sum(min_count=1) / 3600
    return row


def _total(summed: Sequence[Mapping[str, object]], table: pd.DataFrame) -> dict[str, object]:
    """The last line: sums, the largest memory, and what one session costs through every stage."""
    parts = pd.DataFrame(summed)
    row: dict[str, object] = {"stage": "all", "model": None, "jobs": len(table)}
    row["sessions"] = parts["sessions"].max()
    row["peak_mib"] = parts["peak_mib"].max()
    for name in COLUMNS:
        if name not in row:
            row[name] = parts[name].astype(float).sum(min_count=1)
    return row


def _place(stage: str) -> tuple[int, str]:
    return (ORDER.index(stage) if stage in ORDER else len(ORDER), stage)


def cost_section(table: pd.DataFrame) -> str:
    """The table for a page, with what a larger cohort would cost; nothing without a job."""
    if table.empty:
        return ""
    total = table.iloc[-1]
    words = (
        f"All jobs together, each as it last ran: {total['cpu_h']:.2f} CPU hours, "
        f"{total['gpu_h']:.2f} GPU hours."
    )
    plan = ""
    if pd.notna(total["cpu_s_per_session"]):
        hours = {n: total[f"{n}_s_per_session"] * PLANNED / 3600 for n in ("cpu", "gpu")}
        plan = page.paragraph(
            f"At what a session cost here, {PLANNED:,} sessions take about {hours['cpu']:.0f} CPU "
            f"hours and {hours['gpu']:.1f} GPU hours; the largest job needs "
            f"{total['peak_mib']:.0f} MiB."
        )
    shown = table.dropna(axis=1, how="all").rename(columns={"peak_mib": "peak MiB"})
    digits = {c: 3 if c.endswith("_h") else 2 for c in shown if str(c).endswith(("_h", "session"))}
    return page.section(
        "cost",
        "What it cost",
        page.paragraph(words),
        plan,
        page.table(shown, "Cost by stage", digits={**digits, "peak MiB": 0}),
        page.paragraph(
            "Wait and reserved CPU hours are those of SLURM's accounting, where there is any.",
            "soft",
        ),
    )


def measured_cost(paths: Paths, gpu_stages: Sequence[str] = ()) -> pd.DataFrame:
    """The table of everything that has run so far; see `cost_table`."""
    jobs = read_jobs(paths)
    return cost_table(jobs, ask_sacct(job.slurm for job in jobs), gpu_stages)


def write_cost(paths: Paths, gpu_stages: Sequence[str] = ()) -> None:
    """Write ``cost.tsv`` and ``cost.html`` among the results."""
    table = measured_cost(paths, gpu_stages)
    write_text_atomically(
        paths.cost("tsv"), table.round(4).to_csv(sep="\t", index=False, na_rep="n/a")
    )
    title = "What the run cost"
    body = [f"<h1>{escape(title)}</h1>", cost_section(table) or page.paragraph("Nothing has run.")]
    write_text_atomically(paths.cost("html"), page.page(f"hydrops: {title.lower()}", "", body))
