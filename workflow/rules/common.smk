# The study, resolved before the DAG, and the few functions that the rules share.
import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from hydrops.code import stage_digest
from hydrops.config import (
    CHUNK_STAGES,
    SHARED_STAGES,
    check_writable,
    drop_stale_records,
    resolve,
)
from hydrops.errors import HydropsError
from hydrops.jobs import prefer_commands_of
from hydrops.model.ablation import Grid
from hydrops.model.tasks import find_training
from hydrops.paths import Unit
from hydrops.protocol import protocol_text
from hydrops.status import LOCK_EXPLAINED, closing_words
from hydrops.status_page import write_status_page

try:
    STUDY = resolve(config)
    TRAINING = find_training(STUDY.config) if STUDY.config["training"] else None
    ABLATION = (
        Grid.load(TRAINING.ablation)
        if TRAINING and TRAINING.ablation.is_file()
        else None
    )
    if workflow.is_main_process:
        check_writable(STUDY.paths.root)
except HydropsError as error:
    sys.exit(f"error: {error}")

PATHS = STUDY.paths
UNIT = Unit("{participant}", "{session}")
PREFIX = "sub-{participant}_ses-{session}"
MODELS = list(STUDY.bundles)
GPUS = 1 if STUDY.config["device"] == "cuda" else 0

# The executor asks SLURM through the scripts of the profile, which say why.
if workflow.is_main_process and shutil.which("squeue"):
    prefer_commands_of(Path(workflow.basedir) / "workflow/profiles/slurm/bin")

# A run that holds the lock may be moving files into place: only the holder looks for stale ones.
LOCKED = any(Path(".snakemake/locks").glob("*.lock"))
if workflow.is_main_process and LOCKED:
    print(LOCK_EXPLAINED, file=sys.stderr)
elif workflow.is_main_process:
    for record in drop_stale_records(STUDY):
        print(
            f"{record}: its files are not whole; they are made again", file=sys.stderr
        )


wildcard_constraints:
    participant="[A-Za-z0-9]+",
    session="[A-Za-z0-9]+",
    model="[A-Za-z0-9_.-]+",
    chunk="[0-9]+-of-[0-9]+",
    task="[A-Za-z0-9_.-]+",


def say_how_it_went():
    """Who is missing and why, in the terminal; and on a page, unless the disk is full."""
    print(closing_words(STUDY, Path(".snakemake/slurm_logs")))
    with suppress(OSError):
        write_status_page(STUDY, PATHS.root / "status.html")


def log_of(stage, name):
    """Log of a job, named as its benchmark is."""
    return str(PATHS.log(stage, name))


def benchmark_of(stage, name):
    """Time and memory of a job."""
    return str(PATHS.root / "benchmarks" / stage / f"{name}.tsv")


def members_of(wildcards):
    """Sessions of a chunk as plain strings."""
    return [[u.participant, u.session] for u in STUDY.chunks[wildcards.chunk]]


def records_of_chunk(stage):
    """Input function: the records of one stage for the sessions of a chunk."""
    return lambda wc: [str(PATHS.record(stage, u)) for u in STUDY.chunks[wc.chunk]]


def chunks_of(stage):
    """Input function: the manifests of all chunks of a model."""
    return lambda wc: [str(PATHS.chunk(stage, wc.model, c)) for c in STUDY.chunks]


def source_of(wildcards):
    """A session's folder, if it is there or will be made; ingest records one that is missing."""
    folder = STUDY.source(wildcards.participant, wildcards.session)
    return [str(folder)] if STUDY.config["phantom"] or folder.is_dir() else []
