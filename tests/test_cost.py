"""What a run cost, from benchmarks, logs and what sacct says."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from hydrops import cost
from hydrops.chunks import run_chunk
from hydrops.cost import Allocation, Job, ask_sacct, cost_table, parse_sacct, read_jobs, write_cost
from hydrops.jobs import logged
from hydrops.paths import Paths, Unit
from hydrops.records import StageResult

BENCHMARK = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
#: As `sacct -X -n -P -o JobIDRaw,Submit,Start,ElapsedRaw,AllocCPUS,AllocTRES` prints it.
SACCT = """\
11|2026-03-01T10:00:00|2026-03-01T10:00:30|120|2|billing=2,cpu=2,mem=3000M,node=1
12|2026-03-01T10:00:00|2026-03-01T10:10:00|60|4|billing=4,cpu=4,gres/gpu:a100=1,gres/gpu=1,mem=6G
13|2026-03-01T10:00:00|Unknown|0|0|
"""


def leave_job(paths: Paths, stage: str, name: str, figures: str, log: str = "") -> None:
    """The benchmark of a job and, if it said something, its log."""
    benchmark = paths.benchmark(stage, name)
    benchmark.parent.mkdir(parents=True, exist_ok=True)
    benchmark.write_text(BENCHMARK + figures, encoding="utf-8")
    if log:
        path = paths.log(stage, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(log, encoding="utf-8")


def done(wall: float, cpu: float, peak: float = 100.0) -> str:
    return f"{wall}\t0:00:01\t{peak}\t1\t1\t1\t0\t0\t0\t{cpu}\n"


def test_sessions_are_counted_as_the_chunk_says_and_the_slurm_job_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is written by the code that a job runs, not by this test."""
    paths, units = Paths(tmp_path), [Unit("01", "1"), Unit("02", "1")]

    def chunk(members: list[Unit]) -> Job:
        log = paths.log("ingest", "0001-of-0001")
        with logged(str(log)):
            run_chunk(
                "ingest", [], None, members, paths, ["code"],
                paths.chunk("ingest", None, "0001-of-0001"), lambda *_: worked(0.3),
            )  # fmt: skip
        logging.getLogger().handlers.clear()
        leave_job(paths, "ingest", "0001-of-0001", done(10, 500, 9))
        (job,) = read_jobs(paths)
        return job

    first = chunk(units[:1])
    assert first == Job("ingest", "", 10.0, first.cpu_s, first.peak_mib, sessions=1)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    second = chunk(units)
    assert second == replace(first, cpu_s=second.cpu_s, peak_mib=second.peak_mib, slurm="4711")
    assert chunk(units).sessions == 0
    # Not the 500 s and the 9 MiB that the benchmark saw when it last looked.
    assert all(0.3 <= job.cpu_s < 100.0 and job.peak_mib > 50.0 for job in (first, second))


def worked(seconds: float) -> StageResult:
    """Nothing but work for a processor."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return StageResult()


def test_what_a_benchmark_lacks_is_nothing_and_an_unfinished_one_no_job(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    leave_job(paths, "draw", "m-1.0/0001-of-0001", "0.1\t0:00:00\tNA\tNA\tNA\tNA\t-\t-\tNA\tNA\n")
    leave_job(paths, "draw", "m-1.0/0002-of-0002", "")
    assert read_jobs(paths) == [Job("draw", "m-1.0", 0.1, 0.0, 0.0)]
    assert read_jobs(Paths(tmp_path / "nowhere")) == []


def test_sacct_is_read_and_what_never_started_left_out() -> None:
    assert parse_sacct(SACCT) == {
        "11": Allocation(30.0, 240.0, 0.0),
        "12": Allocation(600.0, 240.0, 60.0),
    }
    assert parse_sacct("sacct: error: no accounting\n") == {}


def test_without_sacct_or_jobs_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert ask_sacct(["11"]) == {}
    monkeypatch.setattr(cost, "answer", lambda *_: pytest.fail("asked"))
    assert ask_sacct(["", ""]) == {}


def test_the_table_adds_up_by_stage_and_shares_what_a_group_had() -> None:
    jobs = [
        Job("ingest", "", 30.0, 20.0, 150.0, 1, "11"),
        Job("register", "", 90.0, 80.0, 800.0, 1, "11"),
        Job("segment", "m-1.0", 60.0, 100.0, 600.0, 4, "12"),
        Job("segment", "m-1.0", 5.0, 2.0, 300.0, 0),
    ]
    table = cost_table(jobs, parse_sacct(SACCT)).set_index("stage")
    assert table.index.tolist() == ["ingest", "register", "segment", "all"]
    assert table.loc["ingest", "wait_h"] * 3600 == pytest.approx(30 * 30 / 120)
    assert table.loc["register", "reserved_cpu_h"] * 3600 == pytest.approx(240 * 90 / 120)
    segment = table.loc["segment"]
    assert segment["jobs"] == 2
    assert segment["cpu_h"] * 3600 == pytest.approx(102.0)
    # The job that found everything done does not make a session cheaper.
    assert segment["cpu_s_per_session"] == pytest.approx(25.0)
    assert segment["gpu_s_per_session"] == pytest.approx(15.0)
    total = table.loc["all"]
    assert total["wall_h"] * 3600 == pytest.approx(185.0)
    assert total["wait_h"] * 3600 == pytest.approx(630.0)
    assert total["peak_mib"] == 800.0
    assert total["cpu_s_per_session"] == pytest.approx(20 + 80 + 25)


def test_a_gpu_without_accounting_is_held_while_its_stage_runs() -> None:
    jobs = [Job("segment", "m-1.0", 3600.0, 1.0, 1.0, 2), Job("draw", "m-1.0", 60.0, 1.0, 1.0, 2)]
    table = cost_table(jobs, {}, ["segment"]).set_index("stage")
    assert table.loc["segment", "gpu_h"] == pytest.approx(1.0)
    assert table.loc["draw", "gpu_h"] == 0.0
    assert pd.isna(table.loc["all", "wait_h"])


def test_table_and_page_are_left_among_the_results(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    write_cost(paths)
    assert "Nothing has run" in paths.cost("html").read_text()
    said = "x INFO ingest 1 of 2: sub-01_ses-1 done\nx INFO ingest 2 of 2: sub-02_ses-1 excluded\n"
    leave_job(paths, "ingest", "0001-of-0001", done(72, 36), said)
    write_cost(paths)
    table = pd.read_csv(paths.cost("tsv"), sep="\t", na_values=["n/a"])
    assert table["stage"].tolist() == ["ingest", "all"]
    assert table["cpu_s_per_session"].tolist() == [18.0, 18.0]
    # 1,000 sessions of 18 s each.
    assert "about 5 CPU hours" in paths.cost("html").read_text()
