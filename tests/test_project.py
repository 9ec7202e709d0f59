"""Versions, pins, sizes and the build: what is true of the repository as a whole."""

from __future__ import annotations

import ast
import fnmatch
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from llava_scissor._version import __version__

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "llava_scissor"
SOURCES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
DATA = [
    "demo/model/config.json",
    "demo/model/model.safetensors",
    "demo/model/tokenizer.json",
    "demo/videos/clips.json",
]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def num_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads(read("pyproject.toml"))


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = [line for line in read("constraints.txt").splitlines() if line and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    assert len({canonicalize_name(name) for name, _ in pairs}) == len(pairs)
    return {canonicalize_name(name): version for name, version in pairs}


def test_one_version_everywhere(project) -> None:
    assert project["tool"]["hatch"]["version"]["path"] == "llava_scissor/_version.py"
    assert yaml.safe_load(read("CITATION.cff"))["version"] == __version__
    newest = re.search(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert newest[1] == __version__


def test_pins_are_within_the_ranges(project, pins) -> None:
    """Every direct dependency is pinned; flash-attn is built on the user's machine, if at all."""
    extras = project["project"]["optional-dependencies"]
    named = [
        requirement for extra in ("decord", "plots", "quantization", "dev") for requirement in extras[extra]
    ]
    listed = [*project["project"]["dependencies"], *named]
    for requirement in map(Requirement, listed):
        if requirement.name == project["project"]["name"]:
            continue
        pinned = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pinned), f"{requirement} and {pinned}"


def test_the_command_is_the_entry_point(project) -> None:
    module, _, function = project["project"]["scripts"]["llava-scissor"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path: Path) -> None:
    assert num_lines(path) <= 400
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 80, f"{node.name} is too long"


def test_scripts_are_thin() -> None:
    assert {path.name: num_lines(path) for path in SCRIPTS if num_lines(path) > 120} == {}


def test_the_package_prints_nothing() -> None:
    for path in SOURCES:
        calls = [
            n.func for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)
        ]
        assert not any(isinstance(f, ast.Name) and f.id == "print" for f in calls), path


def test_nothing_imports_scripts_or_tests() -> None:
    for path in [*SOURCES, *SCRIPTS]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & {"scripts", "tests"}, path


def test_what_runs_on_a_change_is_make_check() -> None:
    run = ROOT / ".ci" / "run"
    assert os.access(run, os.X_OK)
    commands = [
        line
        for line in run.read_text(encoding="utf-8").splitlines()
        if not line.startswith(("#", "set", "cd"))
    ]
    assert commands == ["make check"]
    makefile = read("Makefile")
    assert re.search(r"^check: lint test\b", makefile, re.MULTILINE)
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    described = re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)
    assert sorted(phony.split()) == sorted(described)


def test_nothing_that_ships_is_ignored() -> None:
    """The build leaves out what .gitignore names."""
    patterns = [line.rstrip("/") for line in read(".gitignore").splitlines()]
    for name in [*DATA, *(str(path.relative_to(PACKAGE)) for path in SOURCES)]:
        for part in Path("llava_scissor", name).parts:
            assert not any(fnmatch.fnmatch(part, pattern) for pattern in patterns), name


def test_the_wheel_holds_code_model_and_clips(tmp_path) -> None:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds the wheel, is not installed here")
    code = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition("/")[2] for name in archive.namelist() if name.startswith("llava_scissor/")}
        entry_points = archive.read(f"llava_scissor-{__version__}.dist-info/entry_points.txt").decode()
    assert "llava-scissor = llava_scissor.cli.app:main" in entry_points
    assert {str(path.relative_to(PACKAGE)) for path in SOURCES} | set(DATA) <= names
    assert sum(name.endswith(".mp4") for name in names) >= 2
    assert not any("__pycache__" in name for name in names)
