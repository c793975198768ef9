"""Chunks: many sessions in one job, each of them computed once and never again."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hydrops.errors import HydropsError
from hydrops.files import write_text_atomically
from hydrops.paths import Paths, Unit
from hydrops.records import StageResult, digest, is_current, result_digest, run_stage

LOG = logging.getLogger(__name__)
#: Stages of a session before the models, and those of a model.
SHARED_STAGES = ("ingest", "register", "locate")
CHUNK_STAGES = ("segment", "measure", "draw")
#: With more sessions than this, those before the models share jobs, too: what Snakemake spends on
#: a job grows with the number of jobs that are ready.
MOST_ALONE = 200


#: What the log says of a session whose record stands.
AS_BEFORE = "as before"


def sessions_done(log: str) -> int:
    """How many sessions a job computed, from the text of its log."""
    lines = re.findall(r" \w+ \d+ of \d+: sub-\S+ ([\w ]+)$", log, re.MULTILINE)
    return sum(outcome != AS_BEFORE for outcome in lines)


def assign_chunks(units: Sequence[Unit], size: int) -> dict[str, list[Unit]]:
    """Spread sessions over chunks of about `size`, by a hash of their names.

    The number of chunks is a power of two, so a growing cohort seldom changes it, and the order of
    the participants never matters.
    """
    count = 1
    while count * size < len(units):
        count *= 2
    chunks: dict[str, list[Unit]] = {}
    for unit in sorted(units, key=lambda u: u.name):
        number = int(hashlib.sha256(unit.name.encode()).hexdigest()[:8], 16) % count
        chunks.setdefault(f"{number + 1:04d}-of-{count:04d}", []).append(unit)
    return dict(sorted(chunks.items()))


def assign_batches(units: Sequence[Unit], chunks: dict[str, list[Unit]]) -> dict[str, list[Unit]]:
    """Sessions of each job before the models: one while they are few, a chunk when they are many.

    One a job keeps every core of a small study busy. A batch lies within one chunk, so that a
    newcomer touches one batch and one chunk.
    """
    if len(units) > MOST_ALONE:
        return chunks
    return {unit.name: [unit] for unit in units}


def run_chunk(
    stage: str,
    upstream_stages: Sequence[str],
    model: str | None,
    units: Sequence[Unit],
    paths: Paths,
    settings: Sequence[str],
    manifest: Path,
    work: Callable[[Unit, Path], StageResult],
    state: Callable[[Unit], str] | None = None,
) -> None:
    """Run one stage of every session of a chunk and write the chunk's manifest.

    A session whose record stands, made from the same inputs with the same settings, is passed
    over, so a chunk that was killed goes on where it was, and a newcomer costs only itself. A
    session that fails does not cost the others; the failure is raised at the end.

    Parameters
    ----------
    upstream_stages
        Stages of the session that this one reads; those of a model are of the same model.
    model
        None for the stages that all models share.
    settings
        What else the result depends on: code, options, model.
    manifest
        Gets the digest of each session's result.
    state
        What else one session's result depends on, as text: how its scan lies on disk.

    Raises
    ------
    HydropsError
        Naming the sessions that failed; the manifest is then not written.
    """
    failed: list[str] = []
    shas: dict[str, str] = {}
    for number, unit in enumerate(units, start=1):
        record = paths.record(stage, unit, model)
        upstream = [
            paths.record(s, unit, model if s in CHUNK_STAGES else None) for s in upstream_stages
        ]
        try:
            own = [] if state is None else [state(unit)]
            fingerprint = digest(stage, *settings, *own, *(result_digest(p) for p in upstream))
            if is_current(record, fingerprint):
                outcome = AS_BEFORE
            else:
                done = run_stage(record, stage, unit, upstream, partial(work, unit), fingerprint)
                outcome = done.outcome
        except Exception:
            # One session must not cost the others; all failures end the job below.
            LOG.exception("%s: %s failed", unit.name, stage)
            failed.append(unit.name)
            continue
        shas[unit.name] = result_digest(record)
        LOG.info("%s %d of %d: %s %s", stage, number, len(units), unit.name, outcome)
    if failed:
        raise HydropsError(f"{stage} failed for {', '.join(failed)}; see the log above")
    write_text_atomically(manifest, json.dumps(shas, indent=1, sort_keys=True) + "\n")
