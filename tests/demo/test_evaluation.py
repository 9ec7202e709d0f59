from __future__ import annotations

from collections import Counter

import pytest
import torch

from llava_scissor.compression import Identity, build_compressor
from llava_scissor.config import CompressionConfig
from llava_scissor.demo import evaluation
from llava_scissor.demo.clips import scene_of_seed
from llava_scissor.demo.evaluation import HELD_OUT, EvaluatedQuestion, accuracies, evaluate
from llava_scissor.demo.questions import Question
from tests.demo.oracle import answer, expected_counts

COLOR = Question("color", "What color is the ring?", "red")
COUNT = Question("count", "How many objects are in the video?", "two")


def said(question: Question, text: str) -> EvaluatedQuestion:
    return EvaluatedQuestion(0, question, text, num_kept=51, num_input=512)


def test_accuracies_by_type_and_in_all() -> None:
    evaluated = [said(COLOR, "red"), said(COLOR, "blue"), said(COLOR, "red"), said(COUNT, "two")]
    assert accuracies(evaluated) == {"color": (pytest.approx(2 / 3), 3), "count": (1.0, 1), "all": (0.75, 4)}
    assert accuracies([]) == {}


@pytest.mark.parametrize("text", ["Red", "red.", "red red", "", " red"])
def test_right_is_right_to_the_letter(text: str) -> None:
    assert said(COLOR, "red").is_right
    assert not said(COLOR, text).is_right


@pytest.mark.parametrize("use_video_files", [False, True], ids=["frames", "video files"])
def test_one_question_of_every_type_about_each_clip(untrained, use_video_files: bool) -> None:
    evaluated = list(evaluate(untrained, Identity(), 2, first_clip=7, use_video_files=use_video_files))
    for clip in (7, 8):
        scene, _ = scene_of_seed((HELD_OUT, clip))
        questions = [e.question for e in evaluated if e.clip == clip]
        assert Counter(q.kind for q in questions) == {
            kind: 1 for kind, count in expected_counts(scene).items() if count
        }
        assert all(q.answer == answer(scene, q.kind, q.text) for q in questions)
    assert [e.clip for e in evaluated] == sorted(e.clip for e in evaluated)
    assert {(e.num_kept, e.num_input) for e in evaluated} == {(512, 512)}


def test_the_compressor_is_used(untrained) -> None:
    compressor = build_compressor(CompressionConfig(method="uniform", retention_ratio=0.1))
    first = next(evaluate(untrained, compressor, 1))
    assert (first.num_kept, first.num_input) == (51, 512)


def test_an_answer_is_what_the_model_wrote(untrained, monkeypatch) -> None:
    """A language model that always writes the right answer to the first question is right once or more."""
    scene, _ = scene_of_seed((HELD_OUT, 0))
    ids = untrained.tokenizer(f"{scene.background}<|im_end|>").input_ids
    monkeypatch.setattr(evaluation, "generate_ids", lambda *_: ids)
    evaluated = list(evaluate(untrained, Identity(), 1))
    assert {e.said for e in evaluated} == {scene.background}
    assert accuracies(evaluated)["background"] == (1.0, 1)


def test_the_model_gets_the_frames_of_the_scene(untrained, monkeypatch) -> None:
    """Both modes show the same clip: the drawn frames and the decoded ones give nearly the same tokens."""
    seen = []

    def keep(tokens):
        seen.append(tokens)
        return Identity()(tokens)

    for use_video_files in (False, True):
        next(evaluate(untrained, keep, 1, 3, use_video_files))
    drawn, decoded = (tokens.flatten(0, 1) for tokens in seen)
    same = torch.nn.functional.cosine_similarity(drawn, decoded).median()
    next(evaluate(untrained, keep, 1, 4))
    other = torch.nn.functional.cosine_similarity(drawn, seen[-1].flatten(0, 1)).median()
    assert same > other
