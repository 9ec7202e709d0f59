from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from llava_scissor.cli.app import app
from llava_scissor.demo import showcase as showcase_module
from llava_scissor.demo.clips import DemoClip, scene_of_seed, write_clip
from llava_scissor.demo.questions import Question
from llava_scissor.demo.showcase import ShowcaseRow, showcase
from llava_scissor.model import load_model

QUESTIONS = (
    Question("background", "What is the background?", "plain"),
    Question("count", "How many objects are in the video?", "two"),
)


def spoken(text: str, num_kept: int) -> SimpleNamespace:
    return SimpleNamespace(text=text, compressions=[SimpleNamespace(num_input=512, num_kept=num_kept)])


def test_the_table(monkeypatch) -> None:
    def rows(ratios):
        assert ratios == [1.0, 0.25, 0.1]
        for clip, said in (("a.mp4", "plain"), ("b.mp4", "dots")):
            yield ShowcaseRow(clip, QUESTIONS[0], (spoken("plain", 512), spoken(said, 128), spoken(said, 51)))
        yield ShowcaseRow("b.mp4", QUESTIONS[1], (spoken("two", 512), spoken("two", 128), spoken("one", 51)))

    monkeypatch.setattr(showcase_module, "showcase", rows)
    result = CliRunner().invoke(app, ["demo"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"{'question':<52}{'right answer':<14}{'100%':<14}{'25%':<14}{'10%':<14}",
        "",
        "a.mp4: 512 / 128 / 51 of 512 visual tokens",
        f"{'What is the background?':<52}{'plain':<14}{'plain':<14}{'plain':<14}plain",
        "",
        "b.mp4: 512 / 128 / 51 of 512 visual tokens",
        f"{'What is the background?':<52}{'plain':<14}{'plain':<14}{'dots (!)':<14}dots (!)",
        f"{'How many objects are in the video?':<52}{'two':<14}{'two':<14}{'two':<14}one (!)",
        "",
        f"{'right':<66}{'3 of 3':<14}{'2 of 3':<14}1 of 3",
    ]


@pytest.mark.parametrize("ratio", ["0", "1.5", "-0.1"])
def test_an_impossible_ratio_is_refused(ratio: str) -> None:
    result = CliRunner().invoke(app, ["demo", "--retention", ratio])
    assert result.exit_code == 2
    assert "--retention " in result.stderr
    assert "expected a number in (0, 1]" in result.stderr


def test_every_question_at_every_ratio(untrained_directory, tmp_path, monkeypatch) -> None:
    write_clip(*scene_of_seed((5, 1)), tmp_path / "clip.mp4")
    monkeypatch.setattr(showcase_module, "demo_clips", lambda: [DemoClip(tmp_path / "clip.mp4", QUESTIONS)])
    monkeypatch.setattr(
        showcase_module,
        "load_model",
        lambda _: load_model(untrained_directory),
    )
    rows = list(showcase([1.0, 0.25]))
    assert [(row.clip, row.question) for row in rows] == [("clip.mp4", question) for question in QUESTIONS]
    assert {tuple(a.compression.num_kept for a in row.answers) for row in rows} == {(512, 128)}


def test_the_shipped_model_on_the_shipped_clips(shipped_directory, clips) -> None:
    result = CliRunner().invoke(app, ["demo", "--retention", "0.1"])
    assert (result.exit_code, result.stderr) == (0, "")
    num_questions = sum(len(clip.questions) for clip in clips)
    totals = re.fullmatch(r"right +(\d+) of (\d+) +(\d+) of (\d+)", result.stdout.splitlines()[-1])
    assert totals, result.stdout
    with_all, asked, with_few, asked_again = map(int, totals.groups())
    assert asked == asked_again == num_questions
    assert with_all >= 0.8 * num_questions
    assert with_few <= num_questions
    for clip in clips:
        assert f"{clip.path.name}: 512 / 51 of 512 visual tokens" in result.stdout
        assert all(question.text in result.stdout for question in clip.questions)
