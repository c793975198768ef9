"""The rules of the house, kept by machine."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from hydrops.code import stage_digest
from places import REPOSITORY

SOURCES = sorted((REPOSITORY / "src" / "hydrops").rglob("*.py"))
RULES = sorted((REPOSITORY / "workflow" / "rules").glob("*.smk"))
SCHEMAS = sorted((REPOSITORY / "workflow" / "schemas").glob("*.yaml"))


def rules() -> list[tuple[str, str]]:
    """Name and body of each rule that runs a job."""
    found = []
    for path in RULES:
        parts = re.split(r"^rule (\w+):$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        found += list(zip(parts[1::2], parts[2::2]))
    return [(name, body) for name, body in found if "script:" in body]


@pytest.mark.parametrize(("name", "body"), rules(), ids=[name for name, _ in rules()])
def test_every_rule_has_log_benchmark_environment_resources_and_a_script(
    name: str, body: str
) -> None:
    for part in ("log:", "benchmark:", "conda:", "resources:", "mem_mb", "runtime", "script:"):
        assert part in body, f"{name} lacks {part}"
    assert "stage_digest(" in body, f"{name} would not notice an edited module"
    assert "shell:" not in body
    assert "run:" not in body


def test_rules_compute_nothing_but_by_the_functions_they_share() -> None:
    with_functions = [
        path.name
        for path in [REPOSITORY / "Snakefile", *RULES]
        if re.search(r"^\s*def ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    ]
    assert with_functions == ["common.smk"]


def test_the_science_knows_nothing_of_snakemake() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module]
            assert not any(m.split(".")[0] == "snakemake" for m in modules), path


def test_everything_public_says_what_it_does() -> None:
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if tree.body:
            assert ast.get_docstring(tree), path
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if node.name == "forward":
                continue
            nested = node not in tree.body and isinstance(node, ast.FunctionDef)
            if nested and not any(node in c.body for c in tree.body if isinstance(c, ast.ClassDef)):
                continue
            assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_no_path_of_a_machine_is_in_the_project() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    own = Path(__file__).name
    for name in listed:
        path = REPOSITORY / name
        if not path.is_file() or path.name == own or path.suffix in (".pt", ".png", ".lock"):
            continue
        found = re.search(r"/(home|root|work|Users)/\w+", path.read_text(encoding="utf-8"))
        assert found is None, f"{name}: {found}"


def test_the_environments_agree() -> None:
    """Every pin for conda is the locked one, and everything asked for is locked."""

    def pins(text: str) -> dict[str, str]:
        return {n.lower(): v for n, v in re.findall(r"^\s*(?:- )?([\w.-]+)==([\w.]+)", text, re.M)}

    envs = REPOSITORY / "envs"
    texts = {p.name: p.read_text(encoding="utf-8") for p in envs.iterdir()}
    locked = pins(texts["requirements.lock"]) | pins(texts["torch.txt"])
    conda = pins(texts["hydrops.yaml"])
    assert len(conda) > 10
    assert {n: locked.get(n) for n in conda} == conda
    asked = re.findall(r"^([\w.-]+)", texts["requirements.in"], re.M)
    assert {n.lower() for n in asked} == set(conda)
    tested = pins(texts["requirements-test.lock"])
    assert {n: tested.get(n, v) for n, v in locked.items()} == locked


@pytest.mark.parametrize("path", SCHEMAS, ids=[p.stem for p in SCHEMAS])
def test_schemas_are_schemas_and_refuse_what_they_do_not_know(path: Path) -> None:
    schema = yaml.safe_load(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False


def copy_of_the_library(folder: Path) -> Path:
    import shutil

    target = folder / "hydrops"
    shutil.copytree(REPOSITORY / "src" / "hydrops", target)
    return target


@pytest.mark.parametrize(
    ("edited", "stage", "changes"),
    [
        ("register", "register", True),
        ("images", "register", True),
        ("register", "ingest", False),
        ("statistics", "segment", False),
        ("model/network", "segment", True),
        ("model/train", "segment", False),
        ("labels", "cohort", True),
    ],
)
def test_a_digest_changes_with_the_modules_that_a_stage_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: str, stage: str, changes: bool
) -> None:
    from hydrops import code

    library = copy_of_the_library(tmp_path)
    monkeypatch.setattr(code, "ROOT", library)
    stage_digest.cache_clear()
    before = stage_digest(stage)
    path = library / f"{edited}.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n#\n", encoding="utf-8")
    stage_digest.cache_clear()
    assert (stage_digest(stage) != before) == changes
    stage_digest.cache_clear()


def test_the_licence_and_the_citation_are_there() -> None:
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "title", "authors", "license"} <= set(citation)
