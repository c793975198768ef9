"""A scratch copy of the project in which a test may run, break and edit whatever it likes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COPIED = ("Snakefile", "workflow", "config", "src", "models", "envs")


@dataclass(frozen=True)
class Project:
    """The copy's folder; `config` is its config/config.yaml."""

    folder: Path

    @staticmethod
    def create(folder: Path) -> Project:
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source,
                    folder / name,
                    ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
                )
            else:
                shutil.copy(source, folder / name)
        return Project(folder)

    def copy(self, folder: Path) -> Project:
        """This project with its results, times of modification included."""
        shutil.copytree(self.folder, folder, symlinks=True, dirs_exist_ok=True)
        return Project(folder)

    @property
    def config(self) -> dict[str, Any]:
        return dict(yaml.safe_load(self.path("config/config.yaml").read_text(encoding="utf-8")))

    def path(self, name: str) -> Path:
        return self.folder / name

    def configure(self, **changes: Any) -> None:
        text = yaml.safe_dump({**self.config, **changes})
        self.path("config/config.yaml").write_text(text, encoding="utf-8")

    def participants(self, *names: str) -> None:
        """Keep only these participants of the shipped table, and of the shipped phantoms."""
        lines = (ROOT / "config/participants.tsv").read_text(encoding="utf-8").splitlines()
        kept = [lines[0], *(line for line in lines[1:] if line.split("\t")[0] in names)]
        table = self.path("config/participants.tsv")
        table.write_text("\n".join(kept) + "\n", encoding="utf-8")

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run snakemake in the project, with the project's own copy of the library."""
        environment = {**os.environ, "PYTHONPATH": str(self.path("src")), "NO_COLOR": "1"}
        return subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, *arguments: str) -> str:
        """Run to the end and return all that was printed."""
        done = self.snakemake(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def planned(self, *arguments: str) -> dict[str, int]:
        """How many jobs of each rule a dry run plans."""
        return job_counts(self.run(*arguments, "--dry-run", "--quiet", "rules"))


def job_counts(text: str) -> dict[str, int]:
    """The table "Job stats" of snakemake as a dictionary, without its total."""
    if "Job stats" not in text:
        return {}
    table = text.split("Job stats")[1]
    found = re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)
    return {rule: int(count) for rule, count in found if rule != "total"}


def set_version(bundle: Path, version: str) -> None:
    """Give a copied bundle another version; its weights stay."""
    path = bundle / "configs" / "metadata.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["version"] = version
    path.write_text(json.dumps(values), encoding="utf-8")
