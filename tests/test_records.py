"""Status records and chunks: nothing half-written, nothing done twice, no failure spreads."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hydrops.chunks import MOST_ALONE, assign_batches, assign_chunks, run_chunk
from hydrops.errors import ExcludedError, HydropsError
from hydrops.files import write_text_atomically
from hydrops.paths import Paths, Unit
from hydrops.records import (
    StageResult,
    is_current,
    missing_files,
    read_record,
    run_stage,
    whole_part,
)

UNIT = Unit("01", "1")
names = st.lists(st.integers(0, 9999), min_size=1, max_size=60, unique=True)


def writes(text: str, **sides: str) -> Callable[[Path], StageResult]:
    """A stage's work that leaves one file."""

    def work(output: Path) -> StageResult:
        (output / "result.txt").write_text(text)
        return StageResult({"length": len(text)}, dict(sides))

    return work


def excludes(reason: str) -> Callable[[Path], StageResult]:
    def work(output: Path) -> StageResult:
        (output / "half.txt").write_text("half")
        raise ExcludedError(reason)

    return work


@contextmanager
def disk_with(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_same_work_leaves_the_same_record_and_other_work_another(tmp_path: Path) -> None:
    record = tmp_path / "stage" / "unit" / "record.json"
    texts = []
    for content in ("one", "one", "two"):
        run_stage(record, "stage", UNIT, [], writes(content))
        texts.append(record.read_bytes())
        assert (record.parent / "result.txt").read_text() == content
    assert texts[0] == texts[1] != texts[2]


def test_a_crash_leaves_neither_files_nor_record(tmp_path: Path) -> None:
    record = tmp_path / "stage" / "unit" / "record.json"

    def crash(output: Path) -> StageResult:
        (output / "half.txt").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run_stage(record, "stage", UNIT, [], crash)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("end", [SystemExit, RuntimeError, None])
def test_parts_that_were_whole_are_not_made_again(
    tmp_path: Path, end: type[BaseException] | None
) -> None:
    """Whether the job was asked to stop, crashed, or was gone without a word."""
    record = tmp_path / "stage" / "unit" / "record.json"
    made: list[str] = []

    def make(name: str, output: Path) -> None:
        made.append(name)
        (output / f"{name}.txt").write_text(name)
        if name == "right" and made.count(name) == 1:
            if end is not None:
                raise end
            # As SIGKILL leaves it: nothing is tidied up.
            shutil.copytree(record.parent.parent, tmp_path / "killed")
            raise KeyboardInterrupt

    def both(output: Path) -> StageResult:
        parts = [whole_part(output, name, partial(make, name)) for name in ("left", "right")]
        for part in parts:
            (part / f"{part.stem}.txt").rename(output / f"{part.stem}.txt")
            part.rmdir()
        return StageResult()

    with pytest.raises(end or KeyboardInterrupt):
        run_stage(record, "stage", UNIT, [], both, "same")
    if end is None:
        shutil.rmtree(tmp_path / "stage")
        (tmp_path / "killed").rename(tmp_path / "stage")
    run_stage(record, "stage", UNIT, [], both, "same")
    assert made == ["left", "right", "right"]
    assert sorted(read_record(record).files) == ["left.txt", "right.txt"]
    assert sorted(p.name for p in record.parent.parent.iterdir()) == ["unit"]


def test_parts_made_from_something_else_are_made_again(tmp_path: Path) -> None:
    record = tmp_path / "stage" / "unit" / "record.json"

    def make(output: Path) -> None:
        (output / "x.txt").write_text("x")

    def stop(output: Path) -> StageResult:
        whole_part(output, "left", make)
        raise SystemExit

    def look(output: Path) -> StageResult:
        return StageResult({"found": sorted(p.name for p in output.iterdir())})

    for fingerprint, found in (("other", []), ("same", ["left.whole"])):
        with pytest.raises(SystemExit):
            run_stage(record, "stage", UNIT, [], stop, "same")
        assert run_stage(record, "stage", UNIT, [], look, fingerprint).numbers == {"found": found}


def test_a_crash_keeps_the_earlier_result_whole(tmp_path: Path) -> None:
    record = tmp_path / "stage" / "unit" / "record.json"
    run_stage(record, "stage", UNIT, [], writes("good"))

    def crash(output: Path) -> StageResult:
        (output / "result.txt").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        run_stage(record, "stage", UNIT, [], crash)
    assert (record.parent / "result.txt").read_text() == "good"
    assert missing_files(record) == []


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    write_text_atomically(path, "old")
    with disk_with(4096), pytest.raises(OSError, match="too large"):
        write_text_atomically(path, "x" * 100_000)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_up_in_a_stage_leaves_no_record(tmp_path: Path) -> None:
    record = tmp_path / "stage" / "unit" / "record.json"
    with disk_with(4096), pytest.raises(OSError, match="too large"):
        run_stage(record, "stage", UNIT, [], writes("x" * 100_000))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    run_stage(record, "stage", UNIT, [], writes("x" * 100_000))
    assert missing_files(record) == []


def test_an_exclusion_takes_the_old_result_away_and_passes_on_with_its_stage(
    tmp_path: Path,
) -> None:
    first = tmp_path / "first" / "unit" / "record.json"
    second = tmp_path / "second" / "unit" / "record.json"
    run_stage(second, "second", UNIT, [], writes("old"))
    run_stage(first, "first", UNIT, [], excludes("it is dark"))
    record = run_stage(second, "second", UNIT, [first], writes("never"))
    assert (record.stage, record.outcome, record.reason) == ("first", "excluded", "it is dark")
    assert {p.name for p in second.parent.iterdir()} == {"record.json"}


def test_an_excluded_side_is_remembered_with_the_stage_that_excluded_it(tmp_path: Path) -> None:
    first = tmp_path / "first" / "unit" / "record.json"
    second = tmp_path / "second" / "unit" / "record.json"
    run_stage(first, "first", UNIT, [], writes("a", left="cut off"))
    record = run_stage(second, "second", UNIT, [first], writes("b", right="no fluid"))
    assert record.excluded_sides == {
        "left": {"stage": "first", "reason": "cut off"},
        "right": {"stage": "second", "reason": "no fluid"},
    }


def test_an_ear_that_was_excluded_before_the_session_keeps_its_reason(tmp_path: Path) -> None:
    first = tmp_path / "first" / "unit" / "record.json"
    second = tmp_path / "second" / "unit" / "record.json"
    run_stage(first, "first", UNIT, [], writes("a", left="left: cut off"))
    record = run_stage(second, "second", UNIT, [first], excludes("right: no fluid"))
    assert (record.stage, record.reason) == ("second", "left: cut off; right: no fluid")


def test_each_ear_of_an_excluded_session_keeps_its_own_reason(tmp_path: Path) -> None:
    first = tmp_path / "first" / "unit" / "record.json"
    second = tmp_path / "second" / "unit" / "record.json"

    def nothing_left(_: Path) -> StageResult:
        raise ExcludedError.of_ears({"right": "no fluid"}, "no ear was segmented")

    run_stage(first, "first", UNIT, [], writes("a", left="cut off"))
    run_stage(second, "second", UNIT, [first], nothing_left)
    record = read_record(second)
    assert (record.outcome, record.reason) == ("excluded", "cut off; no fluid")
    assert record.excluded_sides == {
        "left": {"stage": "first", "reason": "cut off"},
        "right": {"stage": "second", "reason": "no fluid"},
    }
    assert ExcludedError.of_ears({}, "no ear was segmented").reason == "no ear was segmented"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stage": "x"}', '{"no": "record"}'])
def test_what_is_no_record_is_named_and_never_current(tmp_path: Path, content: str) -> None:
    path = tmp_path / "record.json"
    with pytest.raises(HydropsError, match="no such status record"):
        read_record(path)
    path.write_text(content)
    with pytest.raises(HydropsError, match=r"record\.json: not a status record"):
        read_record(path)
    assert not is_current(path, "")


def test_a_record_is_current_for_its_fingerprint_and_while_its_files_are_there(
    tmp_path: Path,
) -> None:
    record = tmp_path / "stage" / "unit" / "record.json"
    run_stage(record, "stage", UNIT, [], writes("a"), fingerprint="f")
    assert is_current(record, "f")
    assert not is_current(record, "g")
    (record.parent / "result.txt").unlink()
    assert not is_current(record, "f")


@given(names, st.integers(1, 20))
def test_chunks_hold_each_session_once_whatever_the_order(numbers: list[int], size: int) -> None:
    units = [Unit(str(n), "1") for n in numbers]
    chunks = assign_chunks(units, size)
    assert sorted(u.name for c in chunks.values() for u in c) == sorted(u.name for u in units)
    assert assign_chunks(units[::-1], size) == chunks


@given(names, st.integers(1, 8))
def test_a_newcomer_moves_nobody_while_the_number_of_chunks_stays(
    numbers: list[int], size: int
) -> None:
    units = [Unit(str(n), "1") for n in numbers]
    more = [*units, Unit("newcomer", "1")]
    before, after = assign_chunks(units, size), assign_chunks(more, size)
    assume({c.split("-of-")[1] for c in before} == {c.split("-of-")[1] for c in after})
    for chunk, members in before.items():
        assert [u for u in after[chunk] if u in units] == members


def test_a_cohort_of_many_chunks_keeps_them_when_somebody_comes() -> None:
    units = [Unit(f"{n:03d}", "1") for n in range(40)]
    before = assign_chunks(units, 8)
    after = assign_chunks([*units, Unit("newcomer", "1")], 8)
    assert len(before) > 4
    moved = [c for c in after if [u for u in after[c] if u in units] != before.get(c, [])]
    assert moved == []


@given(st.integers(MOST_ALONE - 2, MOST_ALONE + 3))
def test_sessions_are_alone_while_they_are_few_and_share_jobs_when_many(count: int) -> None:
    units = [Unit(str(n), "1") for n in range(count)]
    chunks = assign_chunks(units, 16)
    batches = assign_batches(units, chunks)
    assert sorted(u.name for b in batches.values() for u in b) == sorted(u.name for u in units)
    sizes = {len(members) for members in batches.values()}
    assert sizes == {1} if count <= MOST_ALONE else batches == chunks


class Chunk:
    """A chunk of sessions whose stage writes their names and can be made to fail."""

    def __init__(self, folder: Path, members: list[str]) -> None:
        self.paths = Paths(folder)
        self.units = [Unit(m, "1") for m in members]
        self.manifest = folder / "chunk.json"
        self.ran: list[str] = []
        for unit in self.units:
            run_stage(self.paths.record("locate", unit), "locate", unit, [], writes(unit.name))

    def run(
        self,
        failing: str = "",
        settings: tuple[str, ...] = ("model 1",),
        state: Callable[[Unit], str] | None = None,
    ) -> list[str]:
        self.ran = []

        def work(unit: Unit, output: Path) -> StageResult:
            self.ran.append(unit.participant)
            if unit.participant == failing:
                raise RuntimeError("broken")
            return writes(unit.name)(output)

        run_chunk(
            "segment", ["locate"], "m-1", self.units, self.paths, settings, self.manifest, work,
            state,
        )  # fmt: skip
        return self.ran


def test_a_chunk_does_each_session_once_and_again_only_what_changed(tmp_path: Path) -> None:
    chunk = Chunk(tmp_path, ["01", "02"])
    assert chunk.run() == ["01", "02"]
    first = chunk.manifest.read_bytes()
    assert chunk.run() == []
    assert chunk.manifest.read_bytes() == first
    chunk.units.append(Unit("03", "1"))
    newcomer = chunk.units[-1]
    run_stage(chunk.paths.record("locate", newcomer), "locate", newcomer, [], writes("x"))
    assert chunk.run() == ["03"]
    one = chunk.units[0]
    run_stage(chunk.paths.record("locate", one), "locate", one, [], writes("other"))
    assert chunk.run() == ["01"]
    assert chunk.run(settings=("model 2",)) == ["01", "02", "03"]
    (chunk.paths.unit("segment", one, "m-1") / "result.txt").unlink()
    assert chunk.run(settings=("model 2",)) == ["01"]


def test_a_session_is_done_again_when_its_own_state_changes(tmp_path: Path) -> None:
    chunk = Chunk(tmp_path, ["01", "02"])
    scans = {"01": "a", "02": "b"}
    assert chunk.run(state=lambda unit: scans[unit.participant]) == ["01", "02"]
    scans["02"] = "another scan"
    assert chunk.run(state=lambda unit: scans[unit.participant]) == ["02"]


def test_one_failing_session_costs_no_other_and_is_named(tmp_path: Path) -> None:
    chunk = Chunk(tmp_path, ["01", "02", "03"])
    with pytest.raises(HydropsError, match="segment failed for sub-02_ses-1"):
        chunk.run(failing="02")
    assert chunk.ran == ["01", "02", "03"]
    assert not chunk.manifest.exists()
    assert chunk.run() == ["02"]
    assert set(json.loads(chunk.manifest.read_text())) == {u.name for u in chunk.units}


def test_what_came_out_the_same_does_not_make_later_work_be_done_again(tmp_path: Path) -> None:
    """Other code for the stage before, and the same files of it: the stage after it stands."""
    chunk = Chunk(tmp_path, ["01"])
    (one,) = chunk.units
    record = chunk.paths.record("locate", one)
    run_stage(record, "locate", one, [], writes(one.name), fingerprint="code 1")
    assert chunk.run() == ["01"]
    before, manifest = record.read_bytes(), chunk.manifest.read_bytes()
    run_stage(record, "locate", one, [], writes(one.name), fingerprint="code 2")
    assert record.read_bytes() != before
    assert chunk.run() == []
    assert chunk.manifest.read_bytes() == manifest
