"""A study resolved: configuration, participants, protocol and models, before anything runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hydrops.chunks import CHUNK_STAGES, SHARED_STAGES, assign_batches, assign_chunks
from hydrops.errors import HydropsError
from hydrops.model.bundle import Bundle, find_bundle
from hydrops.participants import read_participants, units_of
from hydrops.paths import Paths, Unit
from hydrops.phantom.specs import load_specs
from hydrops.protocol import Protocol, load_protocol
from hydrops.records import missing_files
from hydrops.sources import source_state
from hydrops.validate import check, from_text, refuse_reversed

DEFAULTS: dict[str, Any] = {
    "results": "results",
    "models_dir": "models",
    "device": "cpu",
    "chunk_size": 16,
    "reader_table": None,
    "phantom": None,
    "register": {},
    "locate": {},
    "measure": {},
    "training": None,
}
#: Options of stages that are a lower and an upper end.
RANGES = (("locate", "distance_mm"), ("measure", "tfs_range_mm3"))


@dataclass(frozen=True)
class Study:
    """Everything that the rules need to know.

    `batches` are the sessions of each job before the models, `chunks` those of each job of a model.
    `phantoms` holds what is to be drawn for each participant, as JSON; it is empty for real scans.
    """

    config: Mapping[str, Any]
    participants: pd.DataFrame
    units: list[Unit]
    paths: Paths
    protocol: Protocol
    bundles: dict[str, Bundle]
    chunks: dict[str, list[Unit]]
    batches: dict[str, list[Unit]]
    sources: dict[Unit, Path]
    phantoms: dict[str, str]

    def source(self, unit: Unit) -> tuple[str, str]:
        """Folder of a session's scan and, unless a rule makes it, how the files in it are.

        Snakemake compares the text, so that a file replaced by an older one is noticed, too.
        """
        folder = self.sources[unit]
        return str(folder), "" if self.phantoms else source_state(folder)

    def batches_of(self, chunk: str) -> list[str]:
        """Names of the batches that a chunk's sessions are in."""
        return [chunk] if chunk in self.batches else [unit.name for unit in self.chunks[chunk]]

    def options(self, stage: str) -> str:
        """Options of a stage as JSON, a string that Snakemake can compare."""
        return json.dumps(self._option_values(stage), sort_keys=True)

    def _option_values(self, stage: str) -> dict[str, Any]:
        values = dict(self.config[stage])
        if stage in ("register", "locate"):
            values["combination"] = self.protocol.combination
        return values

    def told_options(self) -> str:
        """Options that the results depend on, by name, as JSON: for a report."""
        told = {
            f"{stage}: {key}": value
            for stage in ("register", "locate", "measure")
            for key, value in self._option_values(stage).items()
        }
        return json.dumps({"device": self.config["device"], **told}, sort_keys=True)


def resolve(config: Mapping[str, Any]) -> Study:
    """Check a configuration and read what it names.

    Raises
    ------
    HydropsError
        For every mistake that can be found before the first job.
    """
    given = from_text(config, "config")
    check(given, "config", "configuration")
    values = {**DEFAULTS, **given}
    for stage, option in RANGES:
        if option in values[stage]:
            refuse_reversed(values[stage][option], f"configuration: {stage}: {option}")
    participants = read_participants(Path(values["participants"]))
    units = units_of(participants)
    protocol = load_protocol(Path(values["protocol"]))
    bundles = [find_bundle(Path(values["models_dir"]), name) for name in values["models"]]
    if len({b.identifier for b in bundles}) != len(bundles):
        raise HydropsError("configuration: models: the same model is named twice")
    for bundle in bundles:
        _check_images(bundle, protocol)
    chunks = assign_chunks(units, int(values["chunk_size"]))
    return Study(
        values,
        participants,
        units,
        Paths(Path(values["results"])),
        protocol,
        {bundle.identifier: bundle for bundle in bundles},
        chunks,
        assign_batches(units, chunks),
        dict(zip(units, map(Path, participants["source"]))),
        _phantoms(values, units) if values["phantom"] else {},
    )


def _check_images(bundle: Bundle, protocol: Protocol) -> None:
    """Refuse a model that needs an image which the protocol does not give."""
    made = {*protocol.roles, "HYDROPS", "HYDROPSMi2"}
    needed = set(bundle.metadata["roles"]) - set(bundle.metadata["optional_roles"])
    if not needed <= made:
        raise HydropsError(
            f"configuration: models: {bundle.identifier} needs {', '.join(sorted(needed - made))}, "
            f"which the protocol does not give ({', '.join(protocol.roles)}); "
            "`hydrops segment` runs it on single images, --config model=NAME trains and tests it"
        )


def _phantoms(values: Mapping[str, Any], units: list[Unit]) -> dict[str, str]:
    specs = {spec.participant_id: spec for spec in load_specs(Path(values["phantom"]))}
    unknown = sorted({unit.participant for unit in units} - set(specs))
    if unknown:
        raise HydropsError(
            f"{values['phantom']}: no participant {unknown[0]}, "
            f"whom {values['participants']} lists; add it there, or set phantom to null "
            "if the cohort is not one of phantoms"
        )
    return {name: json.dumps(asdict(spec), sort_keys=True) for name, spec in specs.items()}


#: What one session may leave, bytes: with less than that a file system is as good as full.
SESSION_BYTES = 100_000_000


def is_full(folder: Path) -> bool:
    """Whether there is no room for another session's results."""
    return shutil.disk_usage(_nearest(folder)).free < SESSION_BYTES


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(p for p in (folder, *folder.absolute().parents) if p.exists())


def check_writable(folder: Path, setting: str = "`results` in the configuration") -> None:
    """Find out before the work that its results cannot be written.

    Parameters
    ----------
    setting
        What else a person may change.

    Raises
    ------
    HydropsError
        If the folder, or the nearest one above it that exists, is no folder or is read-only.
    """
    there = _nearest(folder)
    if not there.is_dir():
        raise HydropsError(f"{there}: is a file; results need a folder of their own")
    if not os.access(there, os.W_OK | os.X_OK):
        raise HydropsError(f"{there}: cannot be written; change its permissions, or {setting}")


def drop_stale_records(study: Study) -> list[Path]:
    """Remove the records whose files are gone, or that are cut off, and manifests that count them.

    A record stands for its files; once they are deleted it is wrong, and without it they are made
    again. So is a record that was itself deleted.
    """
    dropped = []
    for stage, model, name, units in _jobs(study):
        records = [study.paths.record(stage, unit, model) for unit in units]
        stale = [record for record in records if record.is_file() and _is_stale(record)]
        for record in stale:
            record.unlink()
        if stale or not all(record.is_file() for record in records):
            study.paths.chunk(stage, model, name).unlink(missing_ok=True)
        dropped += stale
    return dropped


def _jobs(study: Study) -> Iterator[tuple[str, str | None, str, list[Unit]]]:
    """Stage, model, name and sessions of each job up to the cohort's."""
    for stage in SHARED_STAGES:
        for name, units in study.batches.items():
            yield stage, None, name, units
    for stage in CHUNK_STAGES:
        for model in study.bundles:
            for name, units in study.chunks.items():
                yield stage, model, name, units


def _is_stale(record: Path) -> bool:
    try:
        return bool(missing_files(record))
    except HydropsError:
        return True
