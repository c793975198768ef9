"""Chunks: many sessions in one job, each of them computed once and never again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hydrops.errors import HydropsError
from hydrops.paths import Paths, Unit
from hydrops.records import (
    StageResult,
    digest,
    is_current,
    run_stage,
    sha256_of_file,
    write_text_atomically,
)

LOG = logging.getLogger(__name__)


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


def run_chunk(
    stage: str,
    upstream_stages: Sequence[str],
    model: str,
    units: Sequence[Unit],
    paths: Paths,
    settings: Sequence[str],
    manifest: Path,
    work: Callable[[Unit, Path], StageResult],
) -> None:
    """Run one stage of every session of a chunk and write the chunk's manifest.

    A session whose record stands, made from the same inputs with the same settings, is passed
    over, so a chunk that was killed goes on where it was, and a newcomer costs only itself. A
    session that fails does not cost the others; the failure is raised at the end.

    Parameters
    ----------
    upstream_stages
        Stages of the session that this one reads; those of a model are of the same model.
    settings
        What else the result depends on: code, options, model.
    manifest
        Gets the sha256 of each session's record.

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
            paths.record(s, unit, model if s in ("segment", "measure") else None)
            for s in upstream_stages
        ]
        try:
            fingerprint = digest(stage, *settings, *(sha256_of_file(p) for p in upstream))
            if is_current(record, fingerprint):
                outcome = "as before"
            else:
                done = run_stage(record, stage, unit, upstream, partial(work, unit), fingerprint)
                outcome = done.outcome
        except Exception:
            # One session must not cost the others; all failures end the job below.
            LOG.exception("%s: %s failed", unit.name, stage)
            failed.append(unit.name)
            continue
        shas[unit.name] = sha256_of_file(record)
        LOG.info("%s %d of %d: %s %s", stage, number, len(units), unit.name, outcome)
    if failed:
        raise HydropsError(f"{stage} failed for {', '.join(failed)}; see the log above")
    write_text_atomically(manifest, json.dumps(shas, indent=1, sort_keys=True) + "\n")
