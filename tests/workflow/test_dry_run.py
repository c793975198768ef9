"""What every configuration would run: the jobs follow from the cohort's size by hand."""

from __future__ import annotations

import shutil

import pytest
import yaml
from project import Project, set_version

from hydrops.chunks import MOST_ALONE
from hydrops.records import Record, write_record

PREPARE = ("ingest_session", "register_session", "locate_ears")
CHUNKED = ("segment_ears", "measure_ears", "draw_overlays")
ONCE = ("tabulate_cohort", "write_report", "all")


def expected(sessions: int, chunks: int = 1, models: int = 1) -> dict[str, int]:
    counts = dict.fromkeys(PREPARE, sessions)
    counts |= dict.fromkeys(CHUNKED, chunks * models)
    counts |= {"tabulate_cohort": models, "write_report": models, "all": 1}
    return counts


def own_cohort(project: Project, names: list[str], session: str = "1") -> None:
    """Empty folders in place of scans: a dry run reads none of them."""
    lines = ["participant_id\tsession_id\tsource"]
    for name in names:
        folder = project.path(f"scans/{name}")
        folder.mkdir(parents=True)
        lines.append(f"{name}\t{session}\tscans/{name}")
    project.path("cohort.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    project.configure(participants="cohort.tsv", phantom=None, reader_table=None)


def with_specimens(project: Project) -> None:
    """An empty folder in place of real labyrinths: a dry run looks only whether it is there."""
    project.path("bones").mkdir()
    project.configure(training={**project.config["training"], "specimens": "bones"})


def test_the_demo(project: Project) -> None:
    assert project.planned() == expected(9) | {"draw_phantom": 9, "simulate_reader": 1}


@pytest.mark.parametrize("protocol", ["hydrops", "hydrops2", "scanner_hydrops", "mrc_only"])
def test_a_users_cohort_with_every_protocol(project: Project, protocol: str) -> None:
    own_cohort(project, ["A1", "B2", "C3"])
    project.configure(protocol=f"config/protocols/{protocol}.yaml", training=None)
    assert project.planned() == expected(3)


def test_many_sessions_go_in_chunks(project: Project) -> None:
    own_cohort(project, [f"P{n:02d}" for n in range(12)])
    project.configure(chunk_size=4)
    assert project.planned() == expected(12, chunks=4)


def test_beyond_some_number_sessions_share_the_jobs_before_the_models_too(
    project: Project,
) -> None:
    own_cohort(project, [f"P{n:03d}" for n in range(MOST_ALONE + 1)])
    assert project.planned() == expected(16, chunks=16)


def test_two_models_share_what_comes_before_them(project: Project) -> None:
    own_cohort(project, ["A1", "B2"])
    shipped = next(project.path("models/paired_unet3d").iterdir())
    newer = shipped.with_name("99.0.0")
    shipped.rename(newer)
    set_version(newer, "99.0.0")
    other = project.path("models/paired_unet3d/98.0.0")
    shutil.copytree(newer, other)
    set_version(other, "98.0.0")
    project.configure(models=["paired_unet3d-98.0.0", "paired_unet3d-99.0.0"])
    assert project.planned() == expected(2, models=2)


def test_training_and_evaluation_have_targets_of_their_own(project: Project) -> None:
    with_specimens(project)
    assert project.planned("train") == {"train": 1, "train_model": 1}
    assert project.planned("package") == {"package": 1, "train_model": 1, "package_model": 1}
    once = ("evaluate", "evaluate_models", "compare_models", "draw_card", "write_card")
    assert project.planned("evaluate") == dict.fromkeys(once, 1)


def test_models_are_evaluated_together_and_have_a_card_each(project: Project) -> None:
    with_specimens(project)
    shipped = next(project.path("models/paired_unet3d").iterdir())
    other = shipped.with_name("98.0.0")
    shutil.copytree(shipped, other)
    set_version(other, "98.0.0")
    project.configure(models=["paired_unet3d-98.0.0", f"paired_unet3d-{shipped.name}"])
    once = dict.fromkeys(("evaluate", "evaluate_models", "compare_models"), 1)
    assert project.planned("evaluate") == once | {"draw_card": 2, "write_card": 2}


def test_every_model_of_the_configuration_can_be_trained_and_packaged(project: Project) -> None:
    with_specimens(project)
    once = {"package": 1, "train_model": 1, "package_model": 1}
    assert project.planned("package", "--config", "model=inhearit") == once
    folds = {"package": 1, "train_part": 5 + 1, "test_folds": 1, "package_folds": 1}
    assert project.planned("package", "--config", "model=lesion_unet3d") == folds


def test_models_of_ct_are_tested_on_the_same_folds_and_compared(project: Project) -> None:
    with_specimens(project)
    names = "model=[joint_unet3d_ct, autocasnet]"
    each = {"train_part": 2 * (7 + 1), "test_folds": 2, "package_folds": 2}
    once = {"evaluate": 1, "compare_folds": 1}
    assert project.planned("evaluate", "--config", names) == each | once
    assert project.planned("package", "--config", names) == each | {"package": 1}


def test_an_ablation_trains_each_change_on_each_of_its_folds(project: Project) -> None:
    with_specimens(project)
    changes = {name: {"what": name, "set": {}} for name in ("first", "second")}
    grid = {"folds": [0, 4], "steps": 0.1, "changes": changes}
    path = project.path("config/ablation/joint_unet3d_ct.yaml")
    path.write_text(yaml.safe_dump(grid), encoding="utf-8")
    ablate = ("ablate", "--config", "model=joint_unet3d_ct")
    once = {"ablate": 1, "tabulate_changes": 1}
    assert project.planned(*ablate) == once | {"train_change": 2 * (2 + 1)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate", "--config", "model=unet2d"), "--config 'models=[unet2d]'"),
        (("ablate",), "config/ablation/paired_unet3d.yaml is missing; --config model=NAME of: "),
    ],
)
def test_what_a_target_cannot_do_for_a_model_is_said(
    project: Project, arguments: tuple[str, ...], words: str
) -> None:
    done = project.snakemake(*arguments)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert words in said
    assert "Traceback" not in said
    assert list(project.path(".snakemake/locks").glob("*")) == []


def test_a_folder_to_learn_from_that_is_not_there_is_said_before_any_job(
    project: Project,
) -> None:
    def planned(model: str, folder: str) -> tuple[int, str]:
        done = project.snakemake("train", "--dry-run", "--config", f"model={model}",
                                 f"training={{specimens: {folder}}}")  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    status, said = planned("unet2d", "bonez")
    assert status == 0
    warning = "warning: bonez: there is no such folder (training: specimens), so unet2d is trained"
    assert said.count(warning) == 1
    status, said = planned("unet2d", "null")
    assert status == 0
    assert "warning" not in said
    for folder, words in (
        ("bonez", "no such folder to learn"),
        ("null", "learns from labelled CT"),
    ):
        status, said = planned("joint_unet3d_ct", folder)
        assert status == 1
        assert words in said
        assert "Traceback" not in said


def test_specimens_kept_for_the_evaluation_are_not_trained_on(project: Project) -> None:
    path = project.path("config/models/paired_unet3d.yaml")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["train_specimens"].append("T02")
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    done = project.snakemake("train", "--dry-run")
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "paired_unet3d.yaml: would learn from T02, which training: test_specimens" in said
    assert "Traceback" not in said


def test_cuda_asks_for_a_gpu_for_the_segmentation_alone(project: Project) -> None:
    own_cohort(project, ["A1"])
    project.configure(device="cuda", training=None)
    text = project.run("--dry-run", "--printshellcmds")
    jobs = [block for block in text.split("rule ")[1:] if "resources:" in block]
    with_gpu = {block.split(":")[0] for block in jobs if "gpu=1" in block}
    assert with_gpu == {"segment_ears"}


def test_a_missing_folder_is_left_to_ingest_which_records_it(project: Project) -> None:
    own_cohort(project, ["A1", "B2"])
    project.path("scans/B2").rmdir()
    assert project.planned() == expected(2)


def test_a_scan_is_read_again_when_a_file_deep_in_it_is_replaced(project: Project) -> None:
    own_cohort(project, ["A1", "B2"])
    image = project.path("scans/A1/series/1.dcm")
    image.parent.mkdir()
    image.write_text("no image")
    manifests = [f"results/ingest/chunks/sub-{name}_ses-1.json" for name in ("A1", "B2")]
    project.run(*manifests)
    assert project.planned(*manifests) == {}
    image.write_text("none either")
    assert project.planned(*manifests) == {"ingest_session": 1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reslts": "results"}, ["config", "reslts"]),
        ({"chunk_size": "many"}, ["chunk_size"]),
        ({"models": ["unknown_model"]}, ["unknown_model"]),
        ({"participants": "nowhere.tsv"}, ["nowhere.tsv"]),
        ({"protocol": "config/protocols/nothing.yaml"}, ["nothing.yaml"]),
    ],
)
def test_a_mistake_in_the_configuration_is_named(
    project: Project, changes: dict[str, object], words: list[str]
) -> None:
    project.configure(**changes)
    done = project.snakemake("--dry-run")
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "Traceback" not in said
    assert all(word in said for word in words), said


def test_results_that_cannot_be_written_are_noticed_before_the_first_job(project: Project) -> None:
    project.path("results").unlink(missing_ok=True)
    project.path("results").write_text("in the way", encoding="utf-8")
    done = project.snakemake()
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "results" in said
    assert "Traceback" not in said
    assert not project.path("demo").exists()


def test_a_second_start_touches_nothing_of_a_run_under_way(project: Project) -> None:
    own_cohort(project, ["A1"])
    record = project.path("results/ingest/sub-A1/ses-1/record.json")
    write_record(record, Record("ingest", "A1", "1", "done", files={"lost.nii.gz": "0"}))
    lock = project.path(".snakemake/locks/0.output.lock")
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert "snakemake --unlock" in project.run("--dry-run")
    assert record.is_file()
    lock.unlink()
    assert "its files are not whole" in project.run("--dry-run")
    assert not record.is_file()
