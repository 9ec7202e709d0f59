from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from llava_scissor.demo.questions import QUESTION_TYPES, Question, all_questions, sample_questions
from llava_scissor.demo.scenes import BACKGROUNDS, COLORS, DIRECTIONS, SHAPES, Scene, sample_scene
from llava_scissor.demo.vocabulary import UNKNOWN, build_tokenizer
from tests.demo.oracle import answer, expected_counts

Asked = list[tuple[Scene, list[Question]]]


@pytest.fixture(scope="module")
def asked() -> Asked:
    """Four hundred scenes with all of their questions."""
    pairs = []
    for seed in range(400):
        rng = np.random.default_rng((7, seed))
        scene = sample_scene(rng)
        pairs.append((scene, all_questions(scene, rng)))
    return pairs


def test_every_answer_is_what_the_scene_says(asked: Asked) -> None:
    for scene, questions in asked:
        for question in questions:
            assert question.answer == answer(scene, question.kind, question.text), (scene, question)


def test_everything_without_doubt_is_asked_once(asked: Asked) -> None:
    for scene, questions in asked:
        counted = Counter(q.kind for q in questions)
        assert {kind: counted[kind] for kind in QUESTION_TYPES} == expected_counts(scene)
        texts = [q.text for q in questions if q.kind != "exists"]
        assert len(set(texts)) == len(texts)


def test_what_is_not_there_is_half_of_what_is_asked_for(asked: Asked) -> None:
    for scene, questions in asked:
        present = {f"{o.color} {o.kind}" for o in scene.objects}
        for question in (q for q in questions if q.kind == "exists"):
            named = question.text.removesuffix("?").split(" ", 3)[3]
            assert (named in present) == (question.answer == "yes")
        answers = [q.answer for q in questions if q.kind == "exists"]
        assert answers.count("yes") == answers.count("no") == len(present)


def test_every_answer_of_every_type_occurs(asked: Asked) -> None:
    given = {kind: set() for kind in QUESTION_TYPES}
    for _, questions in asked:
        for question in questions:
            given[question.kind].add(question.answer)
    assert given == {
        "background": set(BACKGROUNDS),
        "color": set(COLORS),
        "count": {"one", "two", "three", "four"},
        "direction": set(DIRECTIONS),
        "end": set(SHAPES),
        "exists": {"yes", "no"},
        "order": set(SHAPES),
        "shape": set(SHAPES),
        "where": {f"{row} {column}" for row in ("top", "bottom") for column in ("left", "right")},
    }


def test_the_first_named_is_not_always_the_answer(asked: Asked) -> None:
    orders = [q for _, questions in asked for q in questions if q.kind == "order"]
    share = np.mean([q.text.split("the ")[1].startswith(q.answer) for q in orders])
    assert share == pytest.approx(0.5, abs=0.08)


def test_every_word_is_in_the_vocabulary(asked: Asked) -> None:
    tokenizer = build_tokenizer()
    texts = {text for _, questions in asked for q in questions for text in (q.text, q.answer)}
    ids = tokenizer(sorted(texts)).input_ids
    unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)
    assert not any(unknown in row for row in ids)


@pytest.mark.parametrize("per_type", [1, 2])
def test_samples_are_drawn_by_type(asked: Asked, per_type: int) -> None:
    for seed, (scene, _) in enumerate(asked[:60]):
        drawn = sample_questions(scene, np.random.default_rng(seed), per_type)
        assert drawn == sample_questions(scene, np.random.default_rng(seed), per_type)
        kinds = [q.kind for q in drawn]
        assert kinds == sorted(kinds)
        most = {kind: min(count, per_type) for kind, count in expected_counts(scene).items() if count}
        assert Counter(kinds) == most
        assert all(q.answer == answer(scene, q.kind, q.text) for q in drawn)


def test_both_answers_are_drawn_evenly(asked: Asked) -> None:
    rng = np.random.default_rng(0)
    answers = Counter(
        q.answer for scene, _ in asked for q in sample_questions(scene, rng) if q.kind == "exists"
    )
    assert answers["yes"] / answers.total() == pytest.approx(0.5, abs=0.08)
