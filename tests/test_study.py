"""A study's configuration and tables: every mistake is named before anything runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ears import made_up_cohort
from hydrops.cli import main
from hydrops.cohort import build_tables, ratio_intervals, read_table, write_table
from hydrops.config import check_writable, drop_stale_records, resolve
from hydrops.errors import HydropsError
from hydrops.files import write_text_atomically
from hydrops.measure import EAR_COLUMNS, LANDMARK_COLUMNS
from hydrops.participants import read_participants, units_of
from hydrops.paths import BIDS_SUFFIX, Paths, Unit
from hydrops.phantom.specs import load_specs, random_specs
from hydrops.records import Record, StageResult, run_stage, write_record
from hydrops.status import present_words, status_lines, unit_status
from hydrops.status_page import time_left, write_status_page
from places import REPOSITORY
from studies import GOOD, study_in, table_of

labels = st.text("abcXYZ019", min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["not a tab-separated table"]),
        ("participant_id\tsource\n", ["lists no participants"]),
        ("participant_id,source\n01,a\n", ["participant_id is missing", "tab-separated"]),
        ("participant_id\n01\n", ["column source is missing"]),
        (GOOD.replace("source", "source\tweight").replace("scans/01", "a\t1"), ["weight"]),
        (GOOD + "01\tscans/01b\n", ["line 4", "participant 01, session 1", "twice"]),
        (GOOD + "03\tscans/../scans/01\n", ["line 4", "column source", "another row"]),
        (GOOD + "03\tscans/03\tx\n", ["line 4", "more fields than the header's 2"]),
        ("participant_id\tsource\tage\n01\ta\t4\n02\tb\tc\t5\n", ["line 3", "more fields"]),
        ("participant_id\tsource\tsource\n01\ta\tb\n", ["source is there twice"]),
        (GOOD.replace("02\t", "0 2\t"), ["line 3", "participant_id", "'0 2'"]),
        (GOOD.replace("scans/02", ""), ["line 3", "column source"]),
        ("participant_id\tsource\tage\n01\ta\told\n", ["line 2", "column age", "'old'"]),
        ("participant_id\tsource\taffected_side\n01\ta\tboth ears\n", ["affected_side", "line 2"]),
    ],
)
def test_a_mistake_in_the_table_is_named_with_its_line(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    with pytest.raises(HydropsError) as error:
        read_participants(table_of(tmp_path, text))
    for word in (*words, "participants.tsv"):
        assert word in str(error.value)


def test_a_missing_table_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(HydropsError, match="hydrops scan"):
        read_participants(tmp_path / "nowhere.tsv")


def test_what_spreadsheets_leave_at_the_ends_is_passed_over(tmp_path: Path) -> None:
    text = "participant_id\tsource\tage\t\r\n\t\t\t\r\n01\ta\t4\t\r\n02\tb\r\n\t\t\r\n\r\n"
    table = read_participants(table_of(tmp_path, text))
    assert table["participant_id"].tolist() == ["01", "02"]
    assert table["age"].isna().tolist() == [False, True]
    with pytest.raises(HydropsError, match=r"line 4.*participant_id"):
        read_participants(table_of(tmp_path, text.replace("02\tb", "0 2\tb")))


def test_identifiers_stay_text_and_prefixes_go(tmp_path: Path) -> None:
    text = "participant_id\tsession_id\tsource\tage\nsub-007\tses-02\ta\t40.5\n0010\tn/a\tb\tn/a\n"
    table = read_participants(table_of(tmp_path, "\ufeff" + text))
    assert units_of(table) == [Unit("007", "02"), Unit("0010", "1")]
    assert table["age"].tolist()[0] == 40.5
    assert table["age"].isna().tolist() == [False, True]


@given(labels, labels, st.sampled_from(["ingest", "register"]))
def test_no_two_sessions_share_a_path(first: str, second: str, stage: str) -> None:
    paths = Paths(Path("results"))
    a, b = Unit(first, second), Unit(second, first)
    places = [{paths.record(stage, u), *(paths.image(u, r) for r in BIDS_SUFFIX)} for u in (a, b)]
    assert bool(places[0] & places[1]) == (a == b)
    for place in places[0]:
        assert a.name in str(place) or f"sub-{first}/ses-{second}" in str(place)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threads": 4}, "threads"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"device": "tpu"}, "device"),
        ({"models": []}, "models"),
        ({"models": ["paired_unet3d"] * 2}, "models"),
        ({"register": {"min_nmi": "high"}}, "register"),
        ({"register": {"no_such_option": 1}}, "no_such_option"),
        ({"phantom": str(REPOSITORY / "config" / "config.yaml")}, "does not fit its schema"),
        ({"locate": {"distance_mm": [95, 58]}}, "locate: distance_mm is 95 to 58"),
        ({"measure": {"tfs_range_mm3": [420, 70]}}, "measure: tfs_range_mm3 is 420 to 70"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(HydropsError, match=words):
        resolve(study_in(tmp_path, **changes))


def test_a_cohort_of_phantoms_must_know_its_participants(tmp_path: Path) -> None:
    phantoms = study_in(tmp_path, phantom=str(REPOSITORY / "config" / "phantom.yaml"))
    assert resolve(phantoms).phantoms
    table_of(tmp_path, GOOD + "77\tscans/77\n")
    with pytest.raises(HydropsError, match="no participant 77"):
        resolve(phantoms)


@pytest.mark.parametrize("word", ["null", "None", "~"])
def test_nothing_may_be_said_on_the_command_line(tmp_path: Path, word: str) -> None:
    """Snakemake hands on text: --config phantom=null is the word, not nothing."""
    study = resolve(study_in(tmp_path, phantom=word, reader_table=word))
    assert study.config["phantom"] is None
    assert study.config["reader_table"] is None
    assert not study.phantoms


def test_numbers_within_braces_may_be_said_on_the_command_line(tmp_path: Path) -> None:
    """Snakemake reads what lies within braces as text: --config 'measure={...: 5}'."""
    said = {
        "measure": {"tfs_range_mm3": ["70", "4.5e2"], "max_border_share": "0.01"},
        "training": {**study_in(tmp_path)["training"], "test_heads": "5", "real_ear": "null"},
    }
    study = resolve(study_in(tmp_path, **said))
    assert study.config["measure"] == {"tfs_range_mm3": [70, 450], "max_border_share": 0.01}
    assert study.config["training"]["test_heads"] == 5
    assert study.config["training"]["real_ear"] is None


@pytest.mark.parametrize("text", ["many", "1.5", "nan", "inf", ""])
def test_text_that_is_no_number_is_refused_as_text(tmp_path: Path, text: str) -> None:
    training = {**study_in(tmp_path)["training"], "test_heads": text}
    with pytest.raises(HydropsError, match=r"training\.test_heads: .*not of type 'integer'"):
        resolve(study_in(tmp_path, training=training))


def test_a_results_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "results")
    (tmp_path / "file").write_text("")
    with pytest.raises(HydropsError, match="file: is a file"):
        check_writable(tmp_path / "file" / "results")
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere: the rest of this test needs a plain user")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(HydropsError, match="cannot be written"):
        check_writable(locked / "results")


def leave_sessions(paths: Paths, model: str) -> None:
    """01 measured on both sides but for the right ear, 02 excluded at ingest."""

    def measure(output: Path) -> StageResult:
        row = {
            "participant_id": "01", "session_id": "1", "side": "left", "organ": "labyrinth",
            "tfs_mm3": 200.0, "els_mm3": 50.0, "eh_volume_ratio": 0.25, "model": model,
        }  # fmt: skip
        table = pd.DataFrame([row], columns=list(EAR_COLUMNS))
        table.to_csv(output / "sub-01_ses-1_ears.tsv", sep="\t", index=False, na_rep="n/a")
        marks = pd.DataFrame([], columns=list(LANDMARK_COLUMNS))
        marks.to_csv(output / "sub-01_ses-1_landmarks.tsv", sep="\t", index=False)
        return StageResult(excluded_sides={"right": "right ear: cut off"})

    one = Unit("01", "1")
    for stage in ("ingest", "register", "locate", "segment", "measure", "draw"):
        owner = model if stage in ("segment", "measure", "draw") else None
        work = measure if stage == "measure" else lambda _: StageResult()
        before = [paths.record("measure", one, model)] if stage == "draw" else []
        run_stage(paths.record(stage, one, owner), stage, one, before, work)
        write_record(
            paths.record(stage, Unit("02", "1"), owner),
            Record("ingest", "02", "1", "excluded", "series 6: slice 51 is missing"),
        )


def test_every_ear_is_measured_or_excluded_with_its_stage(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    leave_sessions(paths, "m-1")
    tables = build_tables([Unit("02", "1"), Unit("01", "1")], paths, "m-1")
    assert list(tables.ears.columns) == list(EAR_COLUMNS)
    assert tables.ears[["participant_id", "side"]].to_numpy().tolist() == [["01", "left"]]
    assert tables.exclusions.to_numpy().tolist() == [
        ["01", "1", "right", "measure", "right ear: cut off"],
        ["02", "1", "both", "ingest", "series 6: slice 51 is missing"],
    ]
    write_table(tables.exclusions, tmp_path / "exclusions.tsv")
    again = read_table(tmp_path / "exclusions.tsv")
    assert again["participant_id"].tolist() == ["01", "02"]


def test_intervals_are_those_of_measured_labyrinths(tmp_path: Path) -> None:
    _, ears = made_up_cohort(3)
    whole = ears["organ"] == "labyrinth"
    ears["ci_low"] = ears["eh_volume_ratio"].where(whole) - 0.1
    ears["ci_high"] = ears["eh_volume_ratio"].where(whole) + 0.1
    ears.loc[3, ["ci_low", "ci_high"]] = None
    found = ratio_intervals(ears)
    assert len(found) == 5
    assert (found["ci_high"] - found["eh_volume_ratio"]).round(4).tolist() == [0.1] * 5
    write_table(found, tmp_path / "intervals.tsv")
    assert read_table(tmp_path / "intervals.tsv")["participant_id"].tolist()[0] == "01"


def test_status_counts_and_gives_reasons_and_lost_files_are_noticed(tmp_path: Path) -> None:
    study = resolve(study_in(tmp_path))
    (model,) = study.bundles
    assert "2 waiting" in status_lines(study)[0]
    leave_sessions(study.paths, model)
    lines = status_lines(study)
    assert "1 complete" in lines[0]
    assert "1 excluded" in lines[0]
    assert any("sub-02_ses-1: ingest: series 6" in line for line in lines)
    assert any("sub-01_ses-1, right ear" in line for line in lines)
    assert "report" in present_words(study)
    assert drop_stale_records(study) == []
    study.paths.measures(Unit("01", "1"), model).unlink()
    assert drop_stale_records(study) == [study.paths.record("measure", Unit("01", "1"), model)]


def test_a_manifest_goes_with_any_record_that_it_counts(tmp_path: Path) -> None:
    study = resolve(study_in(tmp_path))
    (model,) = study.bundles
    leave_sessions(study.paths, model)
    manifests = {
        (stage, unit): study.paths.chunk(stage, None, unit.name)
        for stage in ("ingest", "locate")
        for unit in study.units
    }
    for manifest in manifests.values():
        write_text_atomically(manifest, "{}")
    study.paths.record("locate", study.units[0]).unlink()
    assert drop_stale_records(study) == []
    kept = {key for key, manifest in manifests.items() if manifest.is_file()}
    assert kept == set(manifests) - {("locate", study.units[0])}


def test_the_status_page_shows_what_the_records_say(tmp_path: Path) -> None:
    study = resolve(study_in(tmp_path))
    (model,) = study.bundles
    page = tmp_path / "status.html"
    write_status_page(study, page, now=1000.0)
    assert "http-equiv=refresh" in page.read_text()
    assert "not known" in page.read_text()
    leave_sessions(study.paths, model)
    write_status_page(study, page)
    text = page.read_text()
    assert "2 of 2" in text
    assert "series 6: slice 51 is missing" in text
    assert "<b>nothing</b>" in text
    assert "http://" not in text


def test_the_time_left_follows_from_the_pace(tmp_path: Path) -> None:
    """Three of six stages of one session in 30 s: the other three, and a session, take 90 s."""
    study = resolve(study_in(tmp_path))
    (model,) = study.bundles
    for number, stage in enumerate(("ingest", "register", "locate")):
        path = study.paths.record(stage, Unit("01", "1"))
        write_record(path, Record(stage, "01", "1", "done"))
        os.utime(path, (1000.0 + 10 * number, 1000.0 + 10 * number))
    found = [unit_status(study.paths, unit, model) for unit in study.units]
    assert time_left(study, model, found, 1030.0) == pytest.approx(9 * 30 / 3)
    assert time_left(study, model, found, 1e6) is None
    # A week ago the study had a session more, which tells nothing of the pace now.
    path = study.paths.record("ingest", Unit("02", "1"))
    write_record(path, Record("ingest", "02", "1", "done"))
    os.utime(path, (1000.0 - 7e5, 1000.0 - 7e5))
    found = [unit_status(study.paths, unit, model) for unit in study.units]
    assert time_left(study, model, found, 1030.0) == pytest.approx(8 * 30 / 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--every", "5"], "--every needs --page"),
        (["--every", "-1", "--page", "status.html"], "--every: invalid"),
        (["--every", "nan", "--page", "status.html"], "--every: invalid"),
    ],
)
def test_a_page_cannot_be_written_again_in_no_time_or_without_a_name(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as wrong:
        main(["status", *arguments])
    assert wrong.value.code == 2
    assert words in capsys.readouterr().err


def test_a_record_that_was_cut_off_counts_as_none(tmp_path: Path) -> None:
    study = resolve(study_in(tmp_path))
    (model,) = study.bundles
    path = study.paths.record("ingest", Unit("01", "1"))
    path.parent.mkdir(parents=True)
    path.write_text('{"stage": "ingest", "outc')
    assert unit_status(study.paths, Unit("01", "1"), model).stage == "waiting"
    assert any("waiting" in line for line in status_lines(study))


def test_phantoms_are_who_they_are_said_to_be(tmp_path: Path) -> None:
    specs = load_specs(REPOSITORY / "config" / "phantom.yaml")
    assert len(specs) >= 8
    assert {s.group for s in specs} >= {"meniere", "control"}
    assert {s.fault for s in specs} >= {"missing_slice", "one_ear"}
    assert random_specs(6, 1) == random_specs(6, 1) != random_specs(6, 2)
    text = (REPOSITORY / "config" / "phantom.yaml").read_text()
    twice = tmp_path / "twice.yaml"
    values = yaml.safe_load(text)
    values["participants"].append(values["participants"][0])
    twice.write_text(yaml.safe_dump(values))
    with pytest.raises(HydropsError, match="appears twice"):
        load_specs(twice)


def test_the_command_line_says_what_is_wrong_and_how_it_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--models-dir", str(REPOSITORY / "models")]) == 0
    assert "paired_unet3d-" in capsys.readouterr().out
    protocol = str(REPOSITORY / "config" / "protocols" / "hydrops.yaml")
    assert main(["scan", str(tmp_path / "nowhere"), "--protocol", protocol]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error:")
    assert "no such folder" in said.err
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(study_in(tmp_path)))
    assert main(["status", "--config", str(config)]) == 0
    assert "2 sessions" in capsys.readouterr().out
    with pytest.raises(SystemExit) as wrong:
        main(["no-such-command"])
    assert wrong.value.code == 2
