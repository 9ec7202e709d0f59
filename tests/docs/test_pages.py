"""Links, names and figures of the documentation, checked against the files."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from importlib import import_module

import pytest
import typer

from llava_scissor.cli.app import app
from llava_scissor.demo import curriculum
from llava_scissor.demo.curriculum import STAGES, DemoNetwork
from llava_scissor.demo.vocabulary import words
from tests.docs.pages import PAGES, README, ROOT, anchors, blocks, code_spans, commands, prose, read

EVAL = typer.main.get_command(app).commands["eval"]
DEMO_PAGE = ROOT / "docs" / "demo-model.md"
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def links(page) -> list[str]:
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page))
    return [target for target in targets if not re.match(r"https?://", target)]


@every_page
def test_links_lead_somewhere(page) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert file.is_relative_to(ROOT), f"{page.name}: {target} leads out of the repository"
        assert not anchor or anchor in anchors(file), f"{page.name}: no heading for {target}"


def test_the_readme_links_every_page() -> None:
    linked = {target.partition("#")[0] for target in links(README)}
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


@every_page
def test_no_gaps_are_left(page) -> None:
    assert re.findall(r"<<[^<>]+>>|\b(?:TODO|FIXME|TBD|XXX)\b", read(page)) == []


@every_page
def test_named_files_exist(page) -> None:
    for span in code_spans(page):
        if re.fullmatch(r"(scripts|configs|docs|tests|llava_scissor)/[\w./-]*", span):
            assert (ROOT / span).exists(), f"{page.name}: {span}"


@every_page
def test_named_modules_and_functions_exist(page) -> None:
    for span in code_spans(page):
        match = re.fullmatch(r"(llava_scissor(?:\.\w+)+)(\(.*\))?", span)
        if match:
            assert resolves(match[1]), f"{page.name}: {span}"


def resolves(name: str) -> bool:
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[cut:]:
            found = getattr(found, attribute, None)
        return found is not None
    return False


def test_the_tree_of_the_architecture_page_is_that_of_the_package() -> None:
    (tree,) = (
        text for text in blocks(ROOT / "docs" / "architecture.md", "") if text.startswith("llava_scissor/")
    )
    tree, _, _ = tree.partition("\nscripts/")
    package = ROOT / "llava_scissor"
    named = set(re.findall(r"\w+\.py", tree))
    files = {path.name for path in package.rglob("*.py")}
    assert named == files
    assert set(re.findall(r"^  (\w+)/", tree, re.MULTILINE)) == {
        path.parent.name for path in package.glob("*/__init__.py")
    }


def test_the_stages_of_training() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| (\d+) \| (\d+) [^|]*\|$", read(DEMO_PAGE), re.MULTILINE)
    assert rows == [(stage.name, str(stage.steps), str(stage.batch_size)) for stage in STAGES]


def test_the_number_of_stages() -> None:
    """In words, where it is easily forgotten."""
    texts = [read(page) for page in PAGES] + [curriculum.__doc__]
    said = {
        a or b for text in texts for a, b in re.findall(r"(\w+) training stages|There are (\w+) stages", text)
    }
    assert {word.lower() for word in said} == {["five", "six", "seven", "eight", "nine"][len(STAGES) - 5]}


@pytest.mark.parametrize("page", [README, DEMO_PAGE], ids=lambda page: page.name)
def test_sizes_of_the_demo_model(page) -> None:
    text = " ".join(read(page).split())
    kept = [
        p for name, p in DemoNetwork().named_parameters() if not name.startswith(("patch_head", "rows_and"))
    ]
    millions = round(sum(p.numel() for p in kept) / 1e6, 2)
    assert f"{len(words())} tokens" in text
    assert f"{millions} million" in text


@every_page
def test_options_of_scripts_exist(page) -> None:
    for command in commands(page):
        if command[0] == "python" and command[1].startswith("scripts/"):
            named = {word for word in command if word.startswith("--")}
            assert named <= options_of(command[1]), " ".join(command)


def test_options_in_the_text_of_the_demo_page_exist() -> None:
    named = {option for span in code_spans(DEMO_PAGE) for option in re.findall(r"--[a-z-]+", span)}
    assert len(named) > 4
    assert named <= options_of("scripts/train_demo.py") | {o for p in EVAL.params for o in p.opts}


@cache
def options_of(script: str) -> set[str]:
    run = subprocess.run(
        [sys.executable, str(ROOT / script), "--help"], capture_output=True, text=True, check=True
    )
    return set(re.findall(r"--[a-z-]+", run.stdout))
