"""`hydrops scan`: make a participants.tsv from a tree of DICOM."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pandas as pd

from hydrops.dicom import SeriesHeader, files_below, find_series
from hydrops.errors import ExcludedError, HydropsError
from hydrops.ingest import choose_series
from hydrops.protocol import Protocol


def scan_to_participants(root: Path, protocol: Protocol) -> tuple[pd.DataFrame, list[str]]:
    """List the examinations below a folder, under running numbers in place of names.

    Patients are told apart by their DICOM identity, which stays here; where the headers name nobody
    each study is a patient's of its own. A patient's studies are sessions in the order of their
    dates.

    Returns
    -------
    The table (participant_id, session_id, source), and a line on each session: what was found,
    or why it would be excluded.

    Raises
    ------
    HydropsError
        If the folder does not exist, or holds no DICOM.
    """
    if not root.is_dir():
        raise HydropsError(f"{root}: no such folder")
    series, ignored = find_series(files_below(root))
    if not series:
        raise HydropsError(f"{root}: no DICOM image below this folder")
    studies: dict[tuple[str, str, str], list[SeriesHeader]] = defaultdict(list)
    for one in series:
        patient = one.patient or one.study_uid
        studies[patient, one.study_date, one.study_uid].append(one)
    patients = sorted(
        {key[0] for key in studies},
        key=lambda patient: min(
            str(_folder(group)) for key, group in studies.items() if key[0] == patient
        ),
    )
    digits = max(3, len(str(len(patients))))
    rows, messages = [], []
    for number, patient in enumerate(patients, start=1):
        sessions = sorted(key for key in studies if key[0] == patient)
        for session, key in enumerate(sessions, start=1):
            folder = _folder(studies[key])
            row = {
                "participant_id": f"{number:0{digits}d}",
                "session_id": str(session),
                "source": str(folder),
            }
            rows.append(row)
            shared = [k for k in studies if k != key and _holds(folder, _folder(studies[k]))]
            finding = (
                "shares its folder with another study; give each its own"
                if shared
                else _finding(studies[key], protocol)
            )
            messages.append(
                f"sub-{row['participant_id']} ses-{row['session_id']} ({folder}): {finding}"
            )
    nameless = {one.study_uid for one in series if not one.patient}
    if nameless:
        messages.append(
            f"{len(nameless)} studies name no patient, and each was taken for another participant: "
            "where one has several, give them one participant_id and a session_id each"
        )
    if ignored:
        messages.append(f"{len(ignored)} files are no DICOM images and were passed over")
    return pd.DataFrame(rows), messages


def _folder(group: list[SeriesHeader]) -> Path:
    """The deepest folder that holds all files of a study."""
    folders = [set(path.parents) for one in group for path in one.files]
    return max(set.intersection(*folders), key=lambda folder: len(folder.parts))


def _holds(folder: Path, other: Path) -> bool:
    return other == folder or folder in other.parents


def _finding(group: list[SeriesHeader], protocol: Protocol) -> str:
    try:
        chosen = choose_series(group, protocol)
    except ExcludedError as exclusion:
        return f"would be excluded: {exclusion.reason}"
    broken = [fault for fault in (series.geometry_fault() for series in chosen.values()) if fault]
    if broken:
        return f"would be excluded: {broken[0]}"
    return ", ".join(f"{role} is {series.describe()}" for role, series in chosen.items())
