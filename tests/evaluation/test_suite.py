from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace

import pytest
import torch

from llava_scissor.compression import Identity, Scissor
from llava_scissor.compression.baselines.random import RandomTokens
from llava_scissor.config import ScissorConfig
from llava_scissor.demo.evaluation import evaluate
from llava_scissor.errors import InputError
from llava_scissor.evaluation.suite import SUITES, Suite, SuiteAnswer, read_results, run_suite
from llava_scissor.model import load_model

SMALL = Suite("small-v1", 20, 3)


@pytest.fixture(scope="module")
def model():
    return load_model("demo", device="cpu")


@pytest.fixture
def methods():
    return {"all": Identity(), "scissor 0.1": Scissor(ScissorConfig(retention_ratio=0.1))}


class Counting:
    """A compressor that counts its calls."""

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self, tokens):
        self.num_calls += 1
        return Identity()(tokens)


@pytest.mark.parametrize("compressor", [Identity(), RandomTokens(0.2)])
def test_answers_are_those_of_single_questions(model, compressor, tmp_path) -> None:
    """Stored tokens and batches of questions change nothing."""
    answers = run_suite(model, {"it": compressor}, SMALL, tmp_path / "a.jsonl", tmp_path)
    single = list(evaluate(model, compressor, SMALL.num_clips, SMALL.first_clip))
    assert [(a.clip, a.kind, a.question, a.said, a.is_right) for a in answers] == [
        (e.clip, e.question.kind, e.question.text, e.said, e.is_right) for e in single
    ]
    assert {a.num_input for a in answers} == {512}
    assert {a.num_kept for a in answers} == {single[0].num_kept}


def test_every_answer_is_stored_as_it_is_returned(model, methods, tmp_path) -> None:
    progress: list[tuple[int, int]] = []
    path = tmp_path / "deep" / "a.jsonl"
    answers = run_suite(
        model, methods, SMALL, path, tmp_path, on_progress=lambda *numbers: progress.append(numbers)
    )
    stored = [SuiteAnswer(**json.loads(line)) for line in path.read_text().splitlines()]
    assert set(stored) == set(answers)
    assert [a.method for a in answers] == sorted(a.method for a in answers), "all before scissor"
    assert progress == [(i + 1, 6) for i in range(6)]


def test_a_run_goes_on_where_it_stopped(model, methods, tmp_path, caplog) -> None:
    path = tmp_path / "a.jsonl"
    whole = run_suite(model, methods, SMALL, path, tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    per_clip = sum(json.loads(line)["clip"] == 20 for line in lines) // 2
    path.write_text("".join(lines[: 2 * per_clip]))
    counting = {"all": Counting(), "scissor 0.1": methods["scissor 0.1"]}
    with caplog.at_level(logging.WARNING):
        again = run_suite(model, counting, SMALL, path, tmp_path)
    assert counting["all"].num_calls == 2, "the first clip is there"
    assert [replace(a, compression_s=0) for a in again] == [replace(a, compression_s=0) for a in whole]
    assert not caplog.records


def test_a_line_that_was_cut_off_is_asked_again(model, tmp_path, caplog) -> None:
    path = tmp_path / "a.jsonl"
    one_clip = Suite("small-v1", 20, 1)
    whole = run_suite(model, {"all": Identity()}, one_clip, path, tmp_path)
    path.write_text(path.read_text()[:-5])
    with caplog.at_level(logging.WARNING):
        assert len(read_results(path)) == len(whole) - 1
    assert "ends in the middle of a line" in caplog.text


def test_tokens_are_encoded_once(model, tmp_path, monkeypatch) -> None:
    calls = []
    encode = type(model).encode_video
    monkeypatch.setattr(type(model), "encode_video", lambda *a: calls.append(1) or encode(*a))
    run_suite(model, {"all": Identity()}, SMALL, tmp_path / "a.jsonl", tmp_path)
    run_suite(model, {"all": Identity()}, SMALL, tmp_path / "b.jsonl", tmp_path)
    assert len(calls) == SMALL.num_clips


def test_other_weights_have_other_tokens(model, tmp_path) -> None:
    from llava_scissor.evaluation.suite import _fingerprint

    before = _fingerprint(model)
    with torch.no_grad():
        model.projector[0].bias[0] += 1
    try:
        assert _fingerprint(model) != before
    finally:
        with torch.no_grad():
            model.projector[0].bias[0] -= 1


def test_a_file_of_something_else_is_refused(model, tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"answer": 1}\n')
    with pytest.raises(InputError, match="not a file of answers"):
        run_suite(model, {"all": Identity()}, SMALL, path, tmp_path)
    path.write_text("words\n")
    with pytest.raises(InputError, match="not a file of answers"):
        read_results(path)


def test_suites_share_no_clip() -> None:
    seen: set[int] = set()
    for name, suite in SUITES.items():
        assert suite.name == name
        clips = set(range(suite.first_clip, suite.first_clip + suite.num_clips))
        assert not clips & seen
        seen |= clips


def test_answers_are_plain_data() -> None:
    answer = SuiteAnswer("s", "m", 1, "where", "Where?", "top left", "top left", 512, 51, 0.1)
    assert answer.is_right
    assert not replace(answer, said="top right").is_right
    assert SuiteAnswer(**asdict(answer)) == answer
