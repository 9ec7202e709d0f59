from __future__ import annotations

import pytest

from llava_scissor.results.answers import SuiteAnswer
from llava_scissor.suites.report import as_markdown, find_losses, summarize_suite

NUM_CLIPS = 40


def answers(method: str, retention: float, colors: int, counts: int) -> list[SuiteAnswer]:
    """One question of two types about each clip, so many of them answered right."""
    return [
        SuiteAnswer(
            "s", method, retention, clip, kind, f"{kind}?", "a", "a" if clip < right else "b",
            100, int(100 * retention), 0.001 * clip, 0.01,
        )
        for clip in range(NUM_CLIPS)
        for kind, right in (("color", colors), ("count", counts))
    ]  # fmt: skip


@pytest.fixture
def rows():
    return summarize_suite(
        [
            *answers("none", 1.0, 40, 40),
            *answers("random", 0.5, 20, 40),
            *answers("scissor", 0.5, 40, 20),
            *answers("pooling", 0.5, 0, 30),
        ]
    )


def test_each_method_has_its_numbers(rows) -> None:
    assert [(row["method"], row["retention"], row["kept"]) for row in rows] == [
        ("none", 1.0, 1.0),
        ("random", 0.5, 0.5),
        ("scissor", 0.5, 0.5),
        ("pooling", 0.5, 0.5),
    ]
    scissor = rows[2]
    assert {kind: e["value"] for kind, e in scissor["accuracy"].items()} == {
        "all": 0.75,
        "color": 1.0,
        "count": 0.5,
    }
    assert scissor["accuracy"]["count"]["num_questions"] == NUM_CLIPS
    assert scissor["accuracy"]["all"]["low"] < 0.75 < scissor["accuracy"]["all"]["high"]
    assert (scissor["compression_ms"], scissor["answer_ms"]) == (pytest.approx(19.5), pytest.approx(10))


def test_differences_are_to_all_tokens_and_at_the_same_ratio(rows) -> None:
    assert [list(row["differences"]) for row in rows] == [
        [],
        ["none", "scissor"],
        ["none", "random"],
        ["none", "random", "scissor"],
    ]
    found = {kind: d["value"] for kind, d in rows[2]["differences"]["random"].items()}
    assert found == {"all": 0.0, "color": 0.5, "count": -0.5}


def test_losses_name_the_best_of_the_clear_ones(rows) -> None:
    (loss,) = find_losses(rows)
    assert (loss["tokens"], loss["type"], loss["better"]) == ("0.5", "count", "random")
    assert loss["its accuracy"] == "1.000 ±0.000"
    assert loss["difference"].startswith("+0.500 ±")
    assert find_losses(rows[2:3]) == []


def test_the_page_has_every_table(rows) -> None:
    page = as_markdown({"suite": "s", "num_clips": NUM_CLIPS, "rows": rows})
    assert page.startswith("# s: 40 clips, 80 questions\n\nAll tokens: 1.000 ±0.000.")
    assert "| method | 0.5 |\n| --- | --: |\n| random | 0.750 ±" in page
    assert "| pooling | 0.375 ±" in page
    assert "## Difference to random" in page
    assert "| scissor | +0.000 ±" in page
    assert "| none | 1.000 | 1.000 | 1.000 |\n| random | 0.750 | 0.500 | 1.000 |" in page
    assert "## Where scissor loses\n\n| tokens | type | better |" in page
    alike = [answers(method, 0.5, 20, 20) for method in ("none", "random", "scissor")]
    for num_methods in (2, 3):
        some = summarize_suite([answer for group in alike[:num_methods] for answer in group])
        page = as_markdown({"suite": "s", "num_clips": NUM_CLIPS, "rows": some})
        has_scissor = num_methods == 3
        assert ("loses" in page) == ("## Where scissor loses\n\nNowhere" in page) == has_scissor


def test_all_tokens_alone_are_a_page_too(rows) -> None:
    page = as_markdown({"suite": "s", "num_clips": NUM_CLIPS, "rows": rows[:1]})
    assert page.count("##") == 1
    assert "| none | 1.000 | 1.000 | 1.000 |" in page


def test_a_method_without_some_ratio_leaves_a_gap(rows) -> None:
    more = summarize_suite(
        [*answers("none", 1.0, 9, 9), *answers("random", 0.5, 9, 9), *answers("pooling", 0.25, 9, 9)]
    )
    page = as_markdown({"suite": "s", "num_clips": NUM_CLIPS, "rows": more})
    assert "| method | 0.5 | 0.25 |" in page
    assert "| pooling |  | 0.225 ±" in page
