"""What a run says last of those it did not finish: why, in words, and never a guess."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from hydrops import config, slurm
from hydrops.chunks import run_chunk
from hydrops.config import is_full, resolve
from hydrops.errors import HydropsError
from hydrops.jobs import logged, slurm_job
from hydrops.paths import Paths, Unit
from hydrops.reasons import what_failed, why_not_done
from hydrops.records import Record, StageResult, run_stage, write_record
from hydrops.status import closing_words, words_about_models
from places import REPOSITORY
from studies import study_in

NO_SLURM = Path("nowhere")


def write_failed(log: Path, error: Exception) -> None:
    """The log of a job whose work stops with an error."""
    with suppress(SystemExit, OSError), logged(str(log)):
        raise error


def ask_to_stop(log: Path) -> None:
    with logged(str(log)):
        os.kill(os.getpid(), signal.SIGTERM)
        logging.info("never reached")


def cut_off(log: Path, number: int | None = None) -> None:
    """The log of a job that was killed by SIGKILL: it ends in the middle."""
    log.parent.mkdir(parents=True, exist_ok=True)
    first = f"2026-01-01 10:00:00,000 INFO SLURM job {number}\n" if number else ""
    log.write_text(first + "2026-01-01 10:00:01,000 INFO segment 1 of 2: sub-01_ses-1 done\n")


def test_a_job_that_did_its_work_or_never_began_has_no_reason(tmp_path: Path) -> None:
    assert why_not_done(tmp_path / "none.log", NO_SLURM) == ""
    with logged(str(tmp_path / "done.log")):
        logging.error("mended on the way")
    assert why_not_done(tmp_path / "done.log", NO_SLURM) == ""


def test_an_error_is_quoted_and_a_traceback_by_its_last_line(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    write_failed(log, OSError(28, "No space left on device"))
    assert why_not_done(log, NO_SLURM) == f"OSError: [Errno 28] No space left on device ({log})"
    write_failed(log, HydropsError("device: no CUDA here"))
    assert why_not_done(log, NO_SLURM) == f"device: no CUDA here ({log})"


def test_each_session_of_a_job_has_the_reason_that_it_failed_for(tmp_path: Path) -> None:
    log, units = tmp_path / "job.log", [Unit(number, "1") for number in ("01", "02", "03")]

    def work(unit: Unit, _: Path) -> StageResult:
        if unit.participant == "03":
            return StageResult()
        raise OSError(f"no room for {unit.participant}")

    with suppress(SystemExit), logged(str(log)):
        run_chunk("ingest", [], None, units, Paths(tmp_path), [], tmp_path / "m.json", work)
    assert [what_failed(log, unit) for unit in units] == [
        f"OSError: no room for 01 ({log})", f"OSError: no room for 02 ({log})", "",
    ]  # fmt: skip


def test_a_job_that_is_asked_to_stop_says_so(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        ask_to_stop(log)
    assert end.value.code == 143
    assert "ended from outside" in why_not_done(log, NO_SLURM)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (
            "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01 DUE TO TIME LIMIT ***",
            "time",
        ),
        ("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01 DUE TO PREEMPTION ***", "pre"),
        ("slurmstepd: error: StepId=7.0 exceeded memory limit (9 > 5), being killed", "memory"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.", "memory"),
        ("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T10:00:00 ***", "cancelled"),
        ("the log of a tool that was CANCELLED AT noon", "without a word"),
    ],
)
def test_slurm_says_how_it_ended_its_job(tmp_path: Path, said: str, word: str) -> None:
    log, slurm_logs = tmp_path / "job.log", tmp_path / "slurm_logs"
    cut_off(log, 7)
    (slurm_logs / "rule_segment").mkdir(parents=True)
    (slurm_logs / "rule_segment" / "7.log").write_text(f"{said}\n")
    (slurm_logs / "rule_segment" / "77.log").write_text("slurmstepd: oom_kill DUE TO TIME LIMIT\n")
    assert word in why_not_done(log, slurm_logs)


def command_that_says(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("name", "says", "word"),
    [
        ("scontrol", "echo JobId=7 JobState=NODE_FAIL Reason=None", "the node of its job failed"),
        ("sacct", "echo NODE_FAIL", "the node of its job failed"),
        ("sacct", "echo 'CANCELLED by 0'", "cancelled"),
        ("sacct", "echo RUNNING", "without a word"),
        ("sacct", "echo NODE_FAIL; exit 1", "without a word"),
    ],
)
def test_slurm_is_asked_how_a_silent_job_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str, word: str
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    command_that_says(tmp_path / "bin", "scontrol", "exit 1")
    command_that_says(tmp_path / "bin", name, says)
    log = tmp_path / "job.log"
    cut_off(log, 7)
    assert word in why_not_done(log, NO_SLURM)


def test_a_job_waits_for_an_earlier_one_that_does_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = tmp_path / "queue"
    queue.write_text("7\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    command_that_says(tmp_path / "bin", "squeue", f"cat {queue}")
    monkeypatch.setattr(slurm.time, "sleep", lambda _: queue.write_text(""))
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    log, claim = tmp_path / "job.log", tmp_path / "job.running"
    claim.write_text("7")  # a job of a killed run, whose log Snakemake has removed
    with logged(str(log)):
        assert queue.read_text() == ""
        assert claim.read_text() == "8"
    assert slurm_job(log.read_text()) == "8"
    assert not claim.exists()
    queue.write_text("8\n")
    claim.write_text("8")
    with logged(str(log)):  # its own number, after a requeue, is nothing to wait for
        assert queue.read_text() == "8\n"
    with pytest.raises(SystemExit), logged(str(log)):
        raise HydropsError("broken")
    assert not claim.exists()


def test_a_controller_that_does_not_answer_has_not_said_that_a_job_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = tmp_path / "answers"
    answers.write_text("exit 1\nexit 1\necho 7\nexit 1\necho 17\nleft over\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    one_a_call = f'line=$(head -n 1 {answers}); sed -i 1d {answers}; eval "$line"'
    command_that_says(tmp_path / "bin", "squeue", one_a_call)
    monkeypatch.setattr(slurm, "PATIENCE_S", 0.0)
    slurm.wait_for_end("7")
    assert answers.read_text() == "left over\n"
    command_that_says(tmp_path / "bin", "squeue", "exit 1")
    monkeypatch.setattr(slurm, "SILENCE_S", 0.0)
    (tmp_path / "job.running").write_text("7")
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    with pytest.raises(SystemExit, match="has ended"), logged(str(tmp_path / "job.log")):
        pytest.fail("the work must not begin")


def test_jobs_left_of_a_run_are_cancelled_by_its_name_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked, log = tmp_path / "asked", tmp_path / "run.log"
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    command_that_says(tmp_path / "bin", "scancel", f'echo "$@" >> {asked}')
    log.write_text("host: laptop\nBuilding DAG of jobs...\n")
    slurm.cancel_jobs_of_run(log)
    assert not asked.exists()
    log.write_text("host: login\nSLURM run ID: hydrops_0a1b-2c\nBuilding DAG of jobs...\n")
    slurm.cancel_jobs_of_run(log)
    assert asked.read_text() == "--name=hydrops_0a1b-2c\n"
    assert not caplog.messages
    command_that_says(tmp_path / "bin", "scancel", "exit 1")
    slurm.cancel_jobs_of_run(log)
    assert "squeue --me" in caplog.messages[0]


def test_the_last_words_name_each_missing_session_and_why(tmp_path: Path) -> None:
    study = resolve(study_in(tmp_path))
    (model,) = study.bundles
    (chunk,) = study.chunks
    first, second = study.units
    for unit in study.units:
        for stage in ("ingest", "register", "locate"):
            write_record(
                study.paths.record(stage, unit), Record(stage, unit.participant, "1", "done")
            )
    write_record(study.paths.record("segment", first, model), Record("segment", "01", "1", "done"))
    log = study.paths.log("segment", f"{model}/{chunk}")
    cut_off(log)
    said = closing_words(study, NO_SLURM)
    assert f"missing {second.name}: segment is not done ({model}): its job was cut off" in said
    assert str(log) in said
    assert f"missing {first.name}: measure is not done ({model}): its chunk waits for" in said
    log.unlink()
    assert f"segment is not done ({model}): its job was not begun" in closing_words(study, NO_SLURM)
    cut_off(study.paths.log("cohort", model))
    assert "report.html: its job was cut off" in closing_words(study, NO_SLURM)


def test_the_last_words_about_models_name_no_session(tmp_path: Path) -> None:
    study = resolve(study_in(tmp_path))
    cut_off(study.paths.log("train", "autocasnet_3"))
    cut_off(study.paths.log("train", "another"))
    made = [tmp_path, tmp_path / "not_yet"]
    said = words_about_models(study, ["autocasnet"], made, NO_SLURM).splitlines()
    assert said[0].startswith("  train autocasnet_3 is not done: its job was cut off")
    assert said[1:] == [f"there is: {tmp_path}", f"logs: {study.paths.root / 'logs'}"]


def test_every_job_that_makes_models_is_told_and_none_of_a_model_of_a_longer_name(
    tmp_path: Path,
) -> None:
    study = resolve(study_in(tmp_path))
    for stage, name in (
        ("tabulate_changes", "joint_unet3d"),
        ("compare", "folds"),
        ("ablate", "joint_unet3d_no_noise_4"),
        ("train", "joint_unet3d_ct_0"),
    ):
        cut_off(study.paths.log(stage, name))
    said = words_about_models(study, ["joint_unet3d"], [], NO_SLURM)
    for told in ("tabulate_changes joint_unet3d is", "compare folds is", "joint_unet3d_no_noise_4"):
        assert told in said
    assert "joint_unet3d_ct" not in said


def test_a_phantom_that_was_not_drawn_is_why_its_session_is_missing(tmp_path: Path) -> None:
    told = study_in(tmp_path, phantom=str(REPOSITORY / "config" / "phantom.yaml"))
    study = resolve(told)
    write_failed(study.paths.log("phantom", "sub-01"), HydropsError("no room for phantoms"))
    said = closing_words(study, NO_SLURM)
    assert "missing sub-01_ses-1: ingest is not done" in said
    assert "no room for phantoms" in said


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = resolve(study_in(tmp_path))
    assert "is full" not in closing_words(study, NO_SLURM)
    monkeypatch.setattr(config, "SESSION_BYTES", 2**62)
    assert is_full(tmp_path / "not" / "there" / "yet")
    assert "is full" in closing_words(study, NO_SLURM)


def test_what_a_killed_job_left_is_swept_by_the_next(tmp_path: Path) -> None:
    paths, unit = Paths(tmp_path), Unit("01", "1")
    record = paths.record("segment", unit, "m")
    left = record.parent.parent / ".ses-1-segment-abc"
    others = record.parent.parent / ".ses-1-measure-abc"
    for folder in (left, others):
        folder.mkdir(parents=True)
        (folder / "half.nii.gz").write_text("half")
    run_stage(record, "segment", unit, [], lambda _: StageResult())
    assert not left.exists()
    assert others.exists()
