"""The test cluster, see cluster.sh, and runs of a project on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from project import Project

HERE = Path(__file__).parent
PROFILE = (
    "--profile", "workflow/profiles/slurm", "--jobs", "8", "--latency-wait", "10",
    "--slurm-init-seconds-before-status-checks", "1", "--max-status-checks-per-second", "1",
)  # fmt: skip
#: The lines of a site with accounting, and of one without.
ACCOUNTED = ("--default-resources", "slurm_account=mri", "slurm_partition=cpu", "mem_mb=2000",
             "runtime=30")  # fmt: skip
PLAIN = ("--slurm-status-command", "squeue", "--slurm-no-account")
STAGES = ("segment", "measure", "draw")
#: Folders of a finished project that no test changes.
SHARED = ("demo", "models", "results/ingest", "results/register")


def cluster(*arguments: str) -> None:
    """Run cluster.sh; what it says goes to the terminal."""
    subprocess.run([str(HERE / "cluster.sh"), *arguments], check=True)


def command(*words: str) -> str:
    """Output of a SLURM command."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def wait_until(true: Callable[[], object], what: str, seconds: float = 300) -> None:
    """Wait for something to become true; it must in time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(0.3)


def prepare(project: Project) -> None:
    """Give a copy the default profile, as a user has it, and the means to go wrong."""
    project.path("profiles").symlink_to("workflow/profiles")
    shutil.copy(HERE / "faulty.py", project.path("src/sitecustomize.py"))


def copy_finished(finished: Project, folder: Path) -> Project:
    """Copy a project; images that are only read are linked, which takes no time."""
    heavy = {str(finished.path(name)) for name in SHARED}
    shutil.copytree(
        finished.folder,
        folder,
        symlinks=True,
        dirs_exist_ok=True,
        ignore=lambda where, names: [n for n in names if f"{where}/{n}" in heavy],
    )
    for name in SHARED:
        shutil.copytree(finished.path(name), folder / name, copy_function=os.link)
    project = Project(folder)
    project.path("worked.txt").unlink(missing_ok=True)
    project.path("said.txt").unlink(missing_ok=True)
    return project


def forget(project: Project, *stages: str) -> None:
    """Take a stage's results away, and those of the cohort that are made of them."""
    for stage in (*stages, "cohort", "report"):
        shutil.rmtree(project.path(f"results/{stage}"))


def start(project: Project, *arguments: str) -> subprocess.Popen[str]:
    """Snakemake under way in the project, in a group of processes of its own."""
    environment = {**os.environ, "PYTHONPATH": str(project.path("src")), "NO_COLOR": "1"}
    # Under a scheduler of its own, no job may think that it runs inside one.
    environment = {k: v for k, v in environment.items() if not k.startswith("SLURM_")}
    with project.path("said.txt").open("w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *PROFILE, *arguments],
            cwd=project.folder,
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Where the tests run in the background, an interrupt would be ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def finish(project: Project, running: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for the end of a run, which must have this exit status; return what it said."""
    try:
        running.wait(1200)
    except subprocess.TimeoutExpired:
        running.kill()
    said = project.path("said.txt").read_text()
    assert running.returncode == code, said[-8000:]
    return said


def run(project: Project, *arguments: str, code: int = 0) -> str:
    """One run from its start to its end."""
    return finish(project, start(project, *arguments), code)


def hold(project: Project, stage: str) -> None:
    """Take a stage's results away; its chunk will stand still in its second session."""
    forget(project, *STAGES[STAGES.index(stage) :])
    project.path("hold").write_text(f"{stage} sub-06_ses-1")


def begin_chunk(project: Project, stage: str, *arguments: str) -> subprocess.Popen[str]:
    """A run whose chunk has done its first session and stands still in its second."""
    hold(project, stage)
    running = start(project, *arguments)
    wait_until(lambda: worked(project)[f"{stage} sub-06_ses-1 begun"], "the second session")
    return running


def worked(project: Project) -> Counter[str]:
    """How often each session of each stage was begun and done, e.g. `measure sub-01_ses-1 done`."""
    notes = project.path("worked.txt")
    return Counter(notes.read_text().splitlines() if notes.is_file() else [])


def check_cohort(project: Project) -> None:
    """Both usable participants measured, the broken one excluded, nothing half-written."""
    (ears,) = project.path("results/cohort").glob("*/ears.tsv")
    assert set(pd.read_csv(ears, sep="\t", dtype=str).participant_id) == {"01", "06"}
    (excluded,) = project.path("results/cohort").glob("*/exclusions.tsv")
    assert list(pd.read_csv(excluded, sep="\t", dtype=str).participant_id) == ["09"]
    check_nothing_half_written(project)


def check_nothing_half_written(project: Project) -> None:
    """Temporary files and folders have names that begin with a dot; none is left."""
    assert not [str(p) for p in project.path("results").rglob(".*")]
