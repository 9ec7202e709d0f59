"""The project's Markdown pages and what is in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of one language, in the order of the page."""
    return [code for name, code in _BLOCK.findall(read(path)) if name == language]


def prose(path: Path) -> str:
    """A page without its code blocks."""
    return _BLOCK.sub("", read(path))


def code_spans(path: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(path))


def commands(path: Path) -> list[list[str]]:
    """The shell commands of a page as words, comments and line continuations resolved."""
    lines = "".join(blocks(path, "bash")).replace("\\\n", " ").splitlines()
    joined = [part for line in lines for part in re.split(r"&&", line)]
    return [words for words in (shlex.split(part, comments=True) for part in joined) if words]


def anchors(path: Path) -> set[str]:
    """The names by which a page's headings can be linked to."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
