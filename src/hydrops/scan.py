"""`hydrops scan`: make a participants.tsv from a tree of DICOM."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from hydrops.dicom import SeriesHeader, find_series
from hydrops.errors import ExcludedError, HydropsError
from hydrops.ingest import choose_series
from hydrops.protocol import Protocol
from hydrops.sources import look_below

#: The series of one study of one patient.
Group = list[SeriesHeader]


def scan_to_participants(
    root: Path, protocol: Protocol, kept: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """List the examinations below a folder, under running numbers in place of names.

    Patients are told apart by their DICOM identity, which stays here: the number, or the name where
    there is none; where the headers have neither, each study is a patient's of its own. A patient's
    studies are sessions in the order of their dates and times.

    Parameters
    ----------
    kept
        Rows of an earlier table, as text. They stay as they are, and only examinations that lie in
        none of their folders are added: as sessions of the same participants, or under numbers of
        their own.

    Returns
    -------
    The table (participant_id, session_id, source, and the columns that are kept), and a line on
    each session: what was found, or why it would be excluded.

    Raises
    ------
    HydropsError
        If the folder does not exist, or holds no DICOM, or is named in other letters than UTF-8.
    """
    if not root.is_dir():
        raise HydropsError(f"{root}: no such folder")
    files, closed = look_below(root)
    series, ignored = find_series(files)
    if not series:
        denied = f"; {len(closed)} files and folders cannot be read" if closed else ""
        raise HydropsError(f"{root}: no DICOM image below this folder{denied}")
    patients = _by_patient(series)
    old = pd.DataFrame(columns=["participant_id", "session_id", "source"]) if kept is None else kept
    rows = old.to_dict("records")
    labels = _Labels(old, len(patients))
    folders = [labels.place_of(_folder(study)) for studies in patients for study in studies]
    messages = []
    for studies in patients:
        participant = labels.participant_of(map(_folder, studies))
        for study in studies:
            folder = labels.place_of(_folder(study))
            unit = labels.unit_in(folder)
            if unit is None:
                unit = participant, labels.next_session(participant)
                rows.append(_row(old, *unit, folder))
            shared = sum(_holds(folder, other) for other in folders) > 1
            finding = (
                "shares its folder with another study; give each its own"
                if shared
                else _finding(study, protocol)
            )
            messages.append(f"sub-{unit[0]} ses-{unit[1]} ({folder}): {finding}")
        messages += [f"sub-{participant}: {doubt}" for doubt in _doubts(studies)]
    nameless = {one.study_uid for one in series if not one.patient}
    if nameless:
        messages.append(
            f"{len(nameless)} studies name no patient, and each was taken for another participant: "
            "where one has several, give them one participant_id and a session_id each"
        )
    if closed:
        messages.append(
            f"{len(closed)} files and folders cannot be read, the first is {closed[0]}: "
            "permission denied"
        )
    if ignored:
        messages.append(
            f"{len(ignored)} files are no DICOM images and were passed over, the first is "
            f"{ignored[0]}"
        )
    return pd.DataFrame(rows, columns=list(old.columns)), messages


class _Labels:
    """Who has which number, and whose the folders of an earlier table are."""

    def __init__(self, kept: pd.DataFrame, patients: int) -> None:
        self._units: dict[Path, tuple[str, str]] = {}
        self._sources: dict[Path, Path] = {}
        self._sessions: dict[str, list[int]] = defaultdict(list)
        for participant, session, source in zip(
            kept["participant_id"], kept["session_id"], kept["source"]
        ):
            self._units[_real(Path(source))] = participant, session
            self._sources[_real(Path(source))] = Path(source)
            self._sessions[participant].append(_as_number(session))
        self._last = max(map(_as_number, self._sessions), default=0)
        self._digits = max(3, len(str(self._last + patients)))

    def place_of(self, folder: Path) -> Path:
        """The folder of the earlier table that holds this one, or is it; else this one."""
        real = _real(folder)
        holding = (p for p in (real, *real.parents) if p in self._sources)
        return next((self._sources[p] for p in holding), folder)

    def unit_in(self, folder: Path) -> tuple[str, str] | None:
        """Participant and session of a folder in the earlier table."""
        return self._units.get(_real(self.place_of(folder)))

    def participant_of(self, folders: Iterable[Path]) -> str:
        """The participant that one of these folders is of, or the next number."""
        for folder in folders:
            unit = self.unit_in(folder)
            if unit is not None:
                return unit[0]
        self._last += 1
        return f"{self._last:0{self._digits}d}"

    def next_session(self, participant: str) -> str:
        """Take the session after a participant's last."""
        self._sessions[participant].append(max(self._sessions[participant], default=0) + 1)
        return str(self._sessions[participant][-1])


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))


def _as_number(label: str) -> int:
    return int(label) if re.fullmatch("[0-9]+", label) else 0


def _row(kept: pd.DataFrame, participant: str, session: str, folder: Path) -> dict[str, str]:
    """A row for a scan of which only the folder is known."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise HydropsError(
            f"{str(folder).encode(errors='backslashreplace').decode()}: its name is not UTF-8, so "
            "no table can hold it; rename it"
        ) from None
    if str(folder) != str(folder).strip() or re.search("[\t\r\n]", str(folder)):
        raise HydropsError(
            f"{str(folder)!r}: its name ends in a blank or holds a tab or a line break, which no "
            "table can hold; rename it"
        )
    known = {"participant_id": participant, "session_id": session, "source": str(folder)}
    return dict.fromkeys(kept.columns, "n/a") | known


def _by_patient(series: Iterable[SeriesHeader]) -> list[list[Group]]:
    """The studies of each patient by their time, the patients by their folders."""
    patients: dict[str, dict[str, Group]] = defaultdict(lambda: defaultdict(list))
    for one in series:
        patients[one.patient or f"study {one.study_uid}"][one.study_uid].append(one)
    ordered = [
        sorted(studies.values(), key=lambda group: (*_when(group), str(_folder(group))))
        for studies in patients.values()
    ]
    return sorted(ordered, key=lambda studies: min(str(_folder(group)) for group in studies))


def _when(group: Group) -> tuple[str, str]:
    return min((one.study_date, one.study_time) for one in group)


def _doubts(studies: list[Group]) -> list[str]:
    """Why the studies of one patient may be of several, or in another order."""
    told = []
    series = [one for group in studies for one in group]
    names = [_words(name) for one in series for name in one.names]
    differing = [
        what
        for what, differ in (
            ("name", any(not (a <= b or b <= a) for a in names for b in names)),
            ("date of birth", len(set().union(*(one.births for one in series))) > 1),
            ("sex", len(set().union(*(one.sexes for one in series))) > 1),
        )
        if differ
    ]
    if differing:
        told.append(
            f"its studies have one patient number, but differ in {' and '.join(differing)}; give "
            "each person a participant_id"
        )
    if len(studies) > 1 and any(not _when(group)[0] for group in studies):
        told.append(
            f"the order of its {len(studies)} sessions is not known, for dates are missing; are "
            "they of one person?"
        )
    return told


def _words(name: str) -> set[str]:
    """The words of a name, whatever stands between them."""
    return set(re.findall(r"\w+", name))


def _folder(group: Group) -> Path:
    """The deepest folder that holds all files of a study."""
    folders = [set(path.parents) for one in group for path in one.files]
    return max(set.intersection(*folders), key=lambda folder: len(folder.parts))


def _holds(folder: Path, other: Path) -> bool:
    return other == folder or folder in other.parents


def _finding(group: Group, protocol: Protocol) -> str:
    try:
        chosen = choose_series(group, protocol)
    except ExcludedError as exclusion:
        return f"would be excluded: {exclusion.reason}"
    broken = [fault for fault in (series.geometry_fault() for series in chosen.values()) if fault]
    if broken:
        return f"would be excluded: {broken[0]}"
    return ", ".join(f"{role} is {series.describe()}" for role, series in chosen.items())
