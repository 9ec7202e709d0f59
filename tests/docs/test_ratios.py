"""The tables of the paper's retention ratios, in README and docs/reproduce.md."""

from __future__ import annotations

import re

from llava_scissor import visual_budget
from llava_scissor.cli.options import read_settings
from llava_scissor.paper.tables import read_table
from tests.docs.pages import README, ROOT, read

NUM_FRAMES, TOKENS_PER_FRAME = 32, 196
OPTIONS = r"`[^`]*--config (\S+) --retention ([\d.]+)[^`]*` \|$"
PAPER = sorted({row["retention"] for row in read_table("1").rows if row["method"] == "LLaVA-Scissor"})


def test_readme_names_every_ratio_of_the_paper() -> None:
    rows = re.findall(r"^\| (\d+) % \| " + OPTIONS, read(README), re.MULTILINE)
    assert sorted(int(percent) for percent, _, _ in rows) == PAPER
    for percent, config, ratio in rows:
        settings = read_settings(ROOT / config, None, retention=float(ratio))
        assert settings.compression.retention_ratio == int(percent) / 100


def test_the_page_says_how_many_tokens_each_ratio_keeps() -> None:
    rows = re.findall(
        r"^\| (\d+) % \| ([\d,]+) \| " + OPTIONS, read(ROOT / "docs/reproduce.md"), re.MULTILINE
    )
    assert sorted(int(percent) for percent, *_ in rows) == PAPER
    for percent, kept, config, ratio in rows:
        settings = read_settings(ROOT / config, None, retention=float(ratio))
        assert settings.compression.retention_ratio == int(percent) / 100
        budget = visual_budget(settings.compression, NUM_FRAMES, TOKENS_PER_FRAME)
        assert budget.num_tokens == int(kept.replace(",", ""))
