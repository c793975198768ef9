"""Status records: what became of one stage of one session, and the way every stage is run.

A record is a small JSON file without time stamps. It lists the sha256 of each file of its stage,
so that what it says of the result (`result_digest`) changes exactly when the result does: later
stages depend on that, and work that came out the same does not make later work be done again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from hydrops.errors import ExcludedError, HydropsError
from hydrops.files import write_text_atomically
from hydrops.paths import Unit

Outcome = Literal["done", "excluded"]
#: End of the name of a folder that `whole_part` leaves.
WHOLE = ".whole"
#: What records of registration, and of the location after it, call `hydrops.register.csf_ratio`.
CSF_RATIO = "csf_ratio"
#: What records of location call the voxel of the coarsest images along the axes of the crops, mm.
VOXEL_MM = "voxel_mm"
#: What they call, by side, `hydrops.sampling.share_kept`.
SHARE_KEPT = "share_kept"
#: What records of segmentation call, in an ear's numbers, `hydrops.model.unfold.Unfolded.nulled`.
NULLED = "endolymph_nulled"
#: What they call `hydrops.model.blur.image_blur` there.
BLUR = "blur"


@dataclass
class StageResult:
    """What a stage's work returns beside the files that it wrote.

    Parameters
    ----------
    numbers
        Figures worth keeping (quality, positions), JSON types only.
    excluded_sides
        Reason by side, for ears that cannot be used while the other can.
    """

    numbers: dict[str, Any] = field(default_factory=dict)
    excluded_sides: dict[str, str] = field(default_factory=dict)


@dataclass
class Record:
    """What became of one stage of one session.

    `stage` is where the outcome arose: an exclusion keeps the name of the stage that excluded,
    however many stages later it is read. `excluded_sides` are stage and reason of each ear that is
    out; of an excluded session too, where each ear has its own. `fingerprint` identifies what the
    result was made from where the stage itself decides what to do again (chunks); it is empty
    elsewhere.
    """

    stage: str
    participant_id: str
    session_id: str
    outcome: Outcome
    reason: str = ""
    excluded_sides: dict[str, dict[str, str]] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON, whole or not at all."""
    write_text_atomically(path, _as_json(record))


def _as_json(record: Record) -> str:
    return json.dumps(asdict(record), indent=1, sort_keys=True) + "\n"


def read_record(path: Path) -> Record:
    """Read a record.

    Raises
    ------
    HydropsError
        If the file is missing or is not a record.
    """
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise HydropsError(f"{path}: no such status record; run its stage first") from None
    except (json.JSONDecodeError, TypeError) as error:
        raise HydropsError(
            f"{path}: not a status record ({error}); delete it and run again"
        ) from error


def result_digest(path: Path) -> str:
    """SHA-256 of what a record says of its stage's result, whatever that was made from.

    Raises
    ------
    HydropsError
        If the file is missing or is not a record.
    """
    result = replace(read_record(path), fingerprint="")
    return hashlib.sha256(_as_json(result).encode()).hexdigest()


def run_stage(
    record_path: Path,
    stage: str,
    unit: Unit,
    upstream: Iterable[Path],
    work: Callable[[Path], StageResult],
    fingerprint: str = "",
) -> Record:
    """Run one stage of one session and leave its record.

    `work` writes its files below the folder that it is given. They are moved beside the record
    only when it has returned, and the record is written last, so that a record stands for files
    that are whole. An exclusion upstream, or an `ExcludedError` from `work`, leaves a record
    with the reason and no files. What `work` had finished with `whole_part` when it failed or
    was killed is in the folder that the next try with the same fingerprint is given.

    Parameters
    ----------
    record_path
        Where the record goes; the stage's files go into the same folder.
    upstream
        Records that this stage depends on.
    work
        Does the work in a temporary folder; a crash in it propagates and leaves nothing.
    fingerprint
        Kept in the record, see `Record`.
    """
    folder = record_path.parent
    folder.mkdir(parents=True, exist_ok=True)
    before = [read_record(path) for path in upstream]
    out = next((record for record in before if record.outcome == "excluded"), None)
    if out is not None:
        _empty(folder)
        record = replace(out, fingerprint=fingerprint)
        write_record(record_path, record)
        return record
    record = Record(stage, unit.participant, unit.session, "done", fingerprint=fingerprint)
    for earlier in before:
        record.excluded_sides |= earlier.excluded_sides
    scratch = _begin(folder, stage, fingerprint)
    try:
        result = work(scratch)
        record = replace(
            record,
            excluded_sides=record.excluded_sides | _by_stage(stage, result.excluded_sides),
            numbers=result.numbers,
            files=_files_in(scratch),
        )
        _empty(folder)
        for child in scratch.iterdir():
            child.replace(folder / child.name)
    except ExcludedError as exclusion:
        _empty(folder)
        # An ear that was excluded before is out for its own reason.
        reasons = [*(side["reason"] for side in record.excluded_sides.values()), exclusion.reason]
        record = replace(
            record,
            outcome="excluded",
            reason="; ".join(reasons),
            excluded_sides=record.excluded_sides | _by_stage(stage, exclusion.sides),
        )
    except BaseException:
        # The next try goes on with what is whole.
        if not any(scratch.glob(f"*{WHOLE}")):
            shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(scratch, ignore_errors=True)
    write_record(record_path, record)
    return record


def _by_stage(stage: str, sides: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {side: {"stage": stage, "reason": reason} for side, reason in sides.items()}


def _files_in(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder, by its name from there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_of_file(path) for path in files}


def _begin(folder: Path, stage: str, fingerprint: str) -> Path:
    """A folder to work in with the whole parts of a try that came to no end, its rest removed."""
    beginning = f".{folder.name}-{stage}-"
    same = f"{beginning}{fingerprint}-"
    left = list(folder.parent.glob(f"{beginning}*"))
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=same))
    for earlier in left:
        if fingerprint and earlier.name.startswith(same):
            for part in earlier.glob(f"*{WHOLE}"):
                part.rename(scratch / part.name)
        shutil.rmtree(earlier, ignore_errors=True)
    return scratch


def whole_part(output: Path, name: str, work: Callable[[Path], None]) -> Path:
    """Folder of a part of a stage's work, made by `work` unless an earlier try made it.

    It has its name only once it is whole.

    Parameters
    ----------
    output
        The folder that `run_stage` gave.
    work
        Writes the part's files into the folder that it is given.
    """
    part = output / f"{name}{WHOLE}"
    if not part.is_dir():
        begun = Path(tempfile.mkdtemp(dir=output, prefix=f".{name}-"))
        work(begun)
        begun.rename(part)
    return part


def is_current(record_path: Path, fingerprint: str) -> bool:
    """Whether a record stands with this fingerprint and with every file that it lists."""
    if not record_path.is_file():
        return False
    try:
        record = read_record(record_path)
    except HydropsError:
        return False
    return record.fingerprint == fingerprint and not missing_files(record_path)


def missing_files(record_path: Path) -> list[str]:
    """Files that a record lists and that are no longer there."""
    return [
        name for name in read_record(record_path).files if not (record_path.parent / name).is_file()
    ]


def digest(*parts: str) -> str:
    """Short SHA-256 of some strings, for fingerprints."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _empty(folder: Path) -> None:
    """Take away an earlier result, its record first, so that no record outlives its files."""
    (folder / "record.json").unlink(missing_ok=True)
    for child in folder.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
        else:
            child.unlink()
