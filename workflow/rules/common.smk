# The study, resolved before the DAG, and the few functions that the rules share.
import json
import os
import shutil
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from hydrops.chunks import CHUNK_STAGES, SHARED_STAGES
from hydrops.code import stage_digest
from hydrops.config import check_writable, drop_stale_records, resolve
from hydrops.cost import write_cost
from hydrops.errors import HydropsError
from hydrops.jobs import prefer_commands_of
from hydrops.model.ablation import Grid
from hydrops.model.tasks import find_trainings
from hydrops.protocol import protocol_text
from hydrops.slurm import cancel_jobs_of_run
from hydrops.sources import source_state
from hydrops.status import LOCK_EXPLAINED, closing_words, words_about_models
from hydrops.status_page import write_status_page

try:
    STUDY = resolve(config)
    TRAININGS = find_trainings(STUDY.config) if STUDY.config["training"] else []
    TRAINING = TRAININGS[0] if TRAININGS else None
    ABLATION = (
        Grid.load(TRAINING.ablation)
        if TRAINING and TRAINING.ablation.is_file()
        else None
    )
    if workflow.is_main_process:
        check_writable(STUDY.paths.root)
        if ABLATION:
            ABLATION.check_for(TRAINING)
except HydropsError as error:
    sys.exit(f"error: {error}")

PATHS = STUDY.paths
# Real labyrinths that models learn from; where there are to be none, what is no folder.
SPECIMENS = str((STUDY.config["training"] or {}).get("specimens") or os.devnull)
MODELS = list(STUDY.bundles)
EVALUATION = PATHS.root / "evaluation"
GPUS = 1 if STUDY.config["device"] == "cuda" else 0
GPU_STAGES = ["segment"] if GPUS else []

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
    batch="sub-[A-Za-z0-9]+_ses-[A-Za-z0-9]+|[0-9]+-of-[0-9]+",
    model="[A-Za-z0-9_.-]+",
    chunk="[0-9]+-of-[0-9]+",
    task="[A-Za-z0-9_.-]+",


def is_about_models():
    """Whether models are to be made or tested, and no session is."""
    targets = set(workflow.dag_settings.targets)
    return bool(targets) and targets <= {"train", "package", "evaluate", "ablate"}


def left_by_models():
    """Where trainings, bundles, and the pages of evaluations are, once they are made."""
    bundles = Path(STUDY.config["models_dir"])
    pages = [EVALUATION, PATHS.root / "cross_validation"]
    return [
        *(Path("training", training.name) for training in TRAININGS),
        *(bundles / training.name / training.version for training in TRAININGS),
        *(page / "README.md" for page in pages),
    ]


def say_how_it_went():
    """Who is missing and why, in the terminal; on pages, with the cost, unless the disk is full."""
    slurm_logs = Path(".snakemake/slurm_logs")
    if is_about_models():
        names = [training.name for training in TRAININGS]
        print(words_about_models(STUDY, names, left_by_models(), slurm_logs))
        return
    print(closing_words(STUDY, slurm_logs))
    with suppress(OSError):
        write_status_page(STUDY, PATHS.root / "status.html")
        write_cost(PATHS, GPU_STAGES)


def log_of(stage, name):
    """Log of a job, named as its benchmark is."""
    return str(PATHS.log(stage, name))


def benchmark_of(stage, name):
    """Time and memory of a job."""
    return str(PATHS.benchmark(stage, name))


def units_of_job(wildcards):
    """Sessions of a batch or a chunk, whichever the job has."""
    if "batch" in wildcards.keys():
        return STUDY.batches[wildcards.batch]
    return STUDY.chunks[wildcards.chunk]


def members_of(wildcards):
    """Sessions of a job as plain strings."""
    return [[u.participant, u.session] for u in units_of_job(wildcards)]


def sources_of(wildcards):
    """Sessions of a job, each with its folder and how its files are, as plain strings."""
    return [[u.participant, u.session, *source_of(u)] for u in units_of_job(wildcards)]


@cache
def source_of(unit):
    """Looked at once, for Snakemake asks again and again and scans have thousands of files."""
    return STUDY.source(unit)


def images_state(training):
    """How the images that a model learns from lie on disk; nothing where none are asked for."""
    specimens = STUDY.config["training"]["specimens"]
    try:
        folder = training.images(specimens and Path(specimens))
    except HydropsError as error:
        sys.exit(f"error: {error}")
    if folder and not folder.is_dir():
        say_once(
            f"warning: {folder}: there is no such folder (training: specimens), so "
            f"{training.name} is trained and evaluated on phantoms alone"
        )
        return ""
    return source_state(folder) if folder else ""


def tested_on():
    """Specimens kept out for an evaluation, its heads and its seed; nothing without training."""
    training = STUDY.config["training"] or {}
    return [training.get(f"test_{what}") for what in ("specimens", "heads", "seed")]


@cache
def say_once(words):
    """What is to be known before the first job; jobs have logs of their own."""
    if workflow.is_main_process:
        print(words, file=sys.stderr)


def phantoms_of(wildcards):
    """Folders of phantoms, which are drawn. Scans are no inputs: each is looked at before each job."""
    if not STUDY.phantoms:
        return []
    return [str(STUDY.sources[u]) for u in units_of_job(wildcards)]


def batches_of_chunk(stage):
    """Input function: manifests of a stage before the models that hold a chunk's sessions."""
    return lambda wc: [
        str(PATHS.chunk(stage, None, b)) for b in STUDY.batches_of(wc.chunk)
    ]


def chunks_of(stage):
    """Input function: the manifests of all chunks of a model."""
    return lambda wc: [str(PATHS.chunk(stage, wc.model, c)) for c in STUDY.chunks]


def pages_of_evaluation(wildcards):
    """Pages of the models of `models`; naming another one to train evaluates nothing of it."""
    names = [bundle.name for bundle in STUDY.bundles.values()]
    if config.get("model", names[0]) not in names:
        sys.exit(
            f"error: models of MR are evaluated by --config 'models=[{config['model']}]', "
            f"not by --config model; models is {', '.join(names)}"
        )
    cards = [str(EVALUATION / model / "card.md") for model in MODELS]
    return [str(EVALUATION / "README.md"), *cards]


def no_ablation(wildcards):
    """Input function: there is nothing to change one by one in the model that is named."""
    grids = sorted(path.stem for path in TRAINING.ablation.parent.glob("*.yaml"))
    sys.exit(
        f"error: {TRAINING.ablation} is missing; --config model=NAME of: {', '.join(grids)}"
    )


def at_attempt(amount):
    """Resource that grows with each attempt."""
    return lambda wc, attempt: attempt * amount


def minutes(start, session):
    """Time of a job: to start it and for each of its sessions; more at each attempt."""
    return lambda wc, attempt: attempt * (start + session * len(units_of_job(wc)))


def for_cohort(start, thousand):
    """Resource that grows with every thousand sessions of the cohort, and with each attempt."""
    thousands = -(-len(STUDY.units) // 1000)
    return lambda wc, attempt: attempt * (start + thousand * thousands)
