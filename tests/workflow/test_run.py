"""A tiny cohort from DICOM to report, and what a change makes run again."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from project import Project, job_counts, set_version

from hydrops.chunks import CHUNK_STAGES, SHARED_STAGES
from hydrops.model.unmix import SIGNAL_NAMES

MODELLED = ("segment_ears", "measure_ears", "draw_overlays", "tabulate_cohort", "write_report")


def table(project: Project, name: str) -> pd.DataFrame:
    (path,) = project.path("results/cohort").glob(f"*/{name}.tsv")
    return pd.read_csv(path, sep="\t", dtype={"participant_id": str})


def written(project: Project, *names: str) -> dict[Path, int]:
    """Time of modification of every result of these participants."""
    return {
        path.relative_to(project.folder): path.stat().st_mtime_ns
        for name in names
        for folder in project.path("results").glob(f"*/**/sub-{name}")
        if folder.is_dir()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def grown(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """The finished cohort, once a third participant has joined; what that run said."""
    project = finished.copy(tmp_path_factory.mktemp("grown"))
    project.participants("01", "06", "09")
    return project, project.run("--quiet", "rules")


def test_the_cohort_is_measured_and_the_broken_scan_excluded(grown: tuple[Project, str]) -> None:
    project, _ = grown
    ears = table(project, "ears")
    assert set(ears.participant_id) == {"01", "06"}
    assert len(ears) == 2 * 2 * 4
    exclusions = table(project, "exclusions")
    (row,) = exclusions.to_dict("records")
    assert row["participant_id"] == "09"
    assert row["stage"] == "ingest"
    assert "slice" in row["reason"]


def test_the_hydropic_ear_stands_out_and_volumes_are_near_the_truth(
    grown: tuple[Project, str],
) -> None:
    project, _ = grown
    ears = (
        table(project, "ears").query("organ == 'labyrinth'").set_index(["participant_id", "side"])
    )
    ratio = ears.eh_volume_ratio
    assert ratio["01", "left"] > ratio["01", "right"] + 0.15
    assert ratio["01", "left"] > ratio.drop(index=[("01", "left")]).max()
    for (participant, side), row in ears.iterrows():
        truth = pd.read_csv(project.path(f"demo/truth/sub-{participant}/ears.tsv"), sep="\t")
        true = truth[(truth.side == side) & (truth.organ == "labyrinth")].tfs_mm3.item()
        assert row.tfs_mm3 == pytest.approx(true, rel=0.05)


def test_an_ear_is_read_from_both_inversion_images(finished: Project) -> None:
    (record,) = finished.path("results/segment").rglob("sub-01/ses-1/record.json")
    for side in ("left", "right"):
        read = json.loads(record.read_text(encoding="utf-8"))["numbers"][side]
        assert read["way"] == "unfolded"
        assert set(read["signal"]) == set(SIGNAL_NAMES)
    (difference,) = finished.path("results/locate").rglob("sub-01*hemi-L_HYDROPSMi2.nii.gz")
    total = difference.with_name(difference.name.replace("HYDROPSMi2", "SUMMi2"))
    images = [nib.load(path).get_fdata() for path in (difference, total)]
    middle = (slice(24, 40), slice(24, 40), slice(12, 20))
    # Of magnitudes no difference is larger than the sum, but where they were interpolated.
    assert np.mean(np.abs(images[0][middle]) <= images[1][middle]) > 0.97


def test_everything_a_study_needs_is_there(finished: Project) -> None:
    (report,) = finished.path("results/report").glob("*/report.html")
    html = report.read_text(encoding="utf-8")
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "<img" in html
    assert "sub-09" in html
    for rule in ("ingest", "register", "locate", "segment", "measure", "draw", "cohort", "report"):
        assert any(finished.path(f"results/logs/{rule}").rglob("*.log")), rule
        assert any(finished.path(f"results/benchmarks/{rule}").rglob("*.tsv")), rule


def test_nothing_is_left_to_do(finished: Project) -> None:
    assert finished.planned() == {}


def test_a_new_subject_runs_its_own_jobs_and_the_aggregation(
    finished: Project, grown: tuple[Project, str]
) -> None:
    project, said = grown
    before = written(finished, "01", "09")
    assert {path.parts[1] for path in before} >= {*SHARED_STAGES, *CHUNK_STAGES}
    once = ("draw_phantom", "ingest_session", "register_session", "locate_ears")
    assert job_counts(said) == dict.fromkeys((*once, *MODELLED, "simulate_reader", "all"), 1)
    assert written(project, "01", "09") == before
    assert set(table(project, "ears").participant_id) == {"01", "06"}


def test_a_new_model_version_repeats_segmentation_and_after(
    finished: Project, tmp_path: Path
) -> None:
    project = finished.copy(tmp_path)
    bundle = max(project.path("models/paired_unet3d").iterdir())
    bundle.rename(bundle.with_name("99.0.0"))
    set_version(bundle.with_name("99.0.0"), "99.0.0")
    assert project.planned() == dict.fromkeys((*MODELLED, "all"), 1)


@pytest.mark.parametrize(
    ("module", "repeated"),
    [
        ("report", {"write_report"}),
        ("statistics", {"tabulate_cohort", "write_report"}),
        ("measure", {"measure_ears", "draw_overlays", "tabulate_cohort", "write_report"}),
        ("segment", set(MODELLED)),
        ("locate", {"locate_ears", *MODELLED}),
        ("register", {"register_session", "locate_ears", *MODELLED}),
    ],
)
def test_an_edited_module_repeats_the_stages_that_use_it(
    finished: Project, tmp_path: Path, module: str, repeated: set[str]
) -> None:
    project = finished.copy(tmp_path)
    with project.path(f"src/hydrops/{module}.py").open("a", encoding="utf-8") as source:
        source.write("\nEDITED = True\n")
    assert set(project.planned()) == repeated | {"all"}


def test_a_result_that_was_lost_is_made_again_and_no_other(
    grown: tuple[Project, str], tmp_path: Path
) -> None:
    project = grown[0].copy(tmp_path)
    lost = next(project.path("results/segment").rglob("*01*hemi-L*dseg.nii.gz"))
    before = written(project, "01", "06")
    lost.unlink()
    assert project.planned() == dict.fromkeys((*MODELLED, "all"), 1)
    project.run()
    assert lost.is_file()
    changed = {p for p, when in written(project, "01", "06").items() if when != before[p]}
    assert lost.relative_to(project.folder) in changed
    assert all("segment" in p.parts and "sub-01" in p.parts for p in changed)
