"""The SLURM profile as far as it can be tried without SLURM; tests/slurm has the rest."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from project import ROOT, Project

PROFILE = "workflow/profiles/slurm"


@pytest.mark.parametrize("name", ["sacct", "squeue"])
def test_the_executor_is_told_of_every_end_in_a_word_that_it_knows(
    tmp_path: Path, name: str
) -> None:
    real = tmp_path / name
    real.write_text(
        '#!/bin/sh\n[ "$1" = --name ] || exit 3\n'
        'printf "%s\\n" "1|COMPLETED" "2|CANCELLED by 1000" "3|PREEMPTED" "4|RUNNING" "$2"\n'
    )
    real.chmod(0o755)
    answers = ROOT / PROFILE / "bin"
    path = {"PATH": f"{answers}:{tmp_path}:{os.environ['PATH']}"}
    asked = [str(answers / name), "--name", "a run | of mine"]
    said = subprocess.run(asked, env=path, capture_output=True, text=True, check=True).stdout
    expected = ["1|COMPLETED", "2|CANCELLED", "3|CANCELLED", "4|RUNNING", "a run | of mine"]
    assert said.splitlines() == expected
    assert subprocess.run(asked[:1], env=path, check=False).returncode == 3


def examples() -> list[dict[str, object]]:
    """The sites in the profile's comments."""
    text = (ROOT / PROFILE / "config.yaml").read_text(encoding="utf-8")
    parts = re.split(r"^# \d\. ", text, flags=re.MULTILINE)[1:]
    return [
        yaml.safe_load("\n".join(re.findall("^#   (.*)$", part, re.MULTILINE))) for part in parts
    ]


@pytest.mark.parametrize("site", examples(), ids=["accounts", "constraints"])
def test_the_examples_of_sites_are_taken_and_one_stage_asks_for_a_gpu(
    project: Project, site: dict[str, object]
) -> None:
    project.configure(device="cuda")
    profile = project.path(f"{PROFILE}/config.yaml")
    settings = {**yaml.safe_load(profile.read_text(encoding="utf-8")), **site}
    profile.write_text(yaml.safe_dump(settings), encoding="utf-8")
    said = project.run("--dry-run", "--profile", PROFILE)
    asked = dict(re.findall(r"^ *rule (\w+):\n(?:.+\n)*? +resources: (.*)$", said, re.MULTILINE))
    assert {rule for rule, resources in asked.items() if "gpu=1" in resources} == {"segment_ears"}
    (wanted,) = [
        r for r in site["set-resources"]["segment_ears"].items() if r[0] != "slurm_partition"
    ]
    assert "=".join(wanted) in asked["segment_ears"]
    assert "=".join(wanted) not in asked["measure_ears"]
    assert all("slurm_partition=" in asked[rule] for rule in ("ingest_session", "segment_ears"))


def test_every_job_asks_for_more_when_it_is_tried_again() -> None:
    """Memory and time of each come from a function, and each of those grows with the attempt."""
    common = (ROOT / "workflow/rules/common.smk").read_text(encoding="utf-8")
    growing = set(re.findall(r"def (\w+)\([^)]*\):\n(?:    .*\n)*?    return lambda wc, attempt: "
                             r"attempt \*", common))  # fmt: skip
    assert growing == {"at_attempt", "minutes", "for_cohort"}
    for stage in ("ingest", "register", "locate", "segment", "measure", "cohort", "report"):
        text = (ROOT / f"workflow/rules/{stage}.smk").read_text(encoding="utf-8")
        asked = re.findall(r"(mem_mb|runtime)=(\w+)\(", text)
        assert {name for name, _ in asked} == {"mem_mb", "runtime"}, stage
        assert len(asked) == len(re.findall(r"mem_mb=|runtime=", text)), stage
        assert {function for _, function in asked} <= growing, stage
