from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from dataclasses import replace

import pytest
import torch

from llava_scissor.compression import Identity, Scissor
from llava_scissor.compression.baselines.fastv import FastV
from llava_scissor.compression.baselines.random import RandomTokens
from llava_scissor.compression.baselines.visionzip import VisionZip
from llava_scissor.config import GenerationConfig, ScissorConfig
from llava_scissor.demo.clips import scene_of_seed
from llava_scissor.errors import ConfigError, InputError
from llava_scissor.generation import Session
from llava_scissor.generation.decode import find_stop_ids
from llava_scissor.generation.detokenizer import Detokenizer
from llava_scissor.model import load_model
from llava_scissor.results.answers import ANSWER_TASK, SuiteAnswer, read_answers
from llava_scissor.results.store import ResultStore
from llava_scissor.suites.suite import (
    HELD_OUT,
    SUITES,
    Suite,
    choose_suite,
    describe_run,
    fingerprint,
    run_suite,
)
from llava_scissor.video import VideoClip, preprocess_frames
from tests.demo.oracle import answer, expected_counts
from tests.writing import generate_ids

SMALL = Suite("small-v1", 20, 2)
ALL, TENTH = ("all", 1.0), ("scissor", 0.1)


@pytest.fixture(scope="module")
def model():
    return load_model("demo", device="cpu")


@pytest.fixture
def methods():
    return {ALL: Identity(), TENTH: Scissor(ScissorConfig(retention_ratio=0.1))}


def stored(folder) -> ResultStore:
    return ResultStore(folder, {"suite": SMALL.name}, ANSWER_TASK)


class Counting:
    """A compressor that counts its calls."""

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self, tokens):
        self.num_calls += 1
        return Identity()(tokens)


@torch.inference_mode()
def ask_one_by_one(model, compressor, suite: Suite) -> list[tuple[int, str, str, str]]:
    """Every question by itself, each with a prompt of its own: clip, type, question and answer."""
    told = []
    for clip in suite.clips:
        frames, questions = suite.show(clip, model.geometry.image_size, model.geometry.default_num_frames)
        pixels = preprocess_frames(
            frames, model.geometry.image_size, model.geometry.image_mean, model.geometry.image_std
        )
        kept = compressor(model.encode_video(pixels)).tokens
        for question in questions:
            prompt = model.embed_prompt(model.tokenize(question.text), kept)
            ids = generate_ids(model, prompt, GenerationConfig(max_new_tokens=8))
            said = Detokenizer(model.tokenizer, find_stop_ids(model)).whole(ids)
            told.append((clip, question.kind, question.text, said))
    return told


@pytest.mark.parametrize("ratio", [1.0, 0.2, 0.02])
def test_answers_are_those_of_single_questions(model, ratio: float, tmp_path) -> None:
    """Neither stored tokens nor keys and values that questions share change an answer."""
    compressor = Identity() if ratio == 1 else Scissor(ScissorConfig(retention_ratio=ratio))
    single = ask_one_by_one(model, compressor, SMALL)
    for results in ("fresh", "with stored tokens"):
        answers = run_suite(model, {("it", ratio): compressor}, SMALL, stored(tmp_path / results), tmp_path)
        assert [(a.clip, a.kind, a.question, a.said) for a in answers] == single
        assert {(a.num_input, a.num_kept) for a in answers} == {(512, int(512 * ratio))}
    assert 0 < sum(a.is_right for a in answers) <= len(answers)


def test_random_tokens_are_drawn_anew_for_each_clip(model, tmp_path) -> None:
    alone = [replace(SMALL, first_clip=clip, num_clips=1) for clip in SMALL.clips]
    draws = [
        ask_one_by_one(model, RandomTokens(retention_ratio=0.1, seed=5 + suite.first_clip), suite)
        for suite in alone
    ]
    answers = run_suite(
        model, {("random", 0.1): RandomTokens(retention_ratio=0.1, seed=5)}, SMALL, stored(tmp_path / "a")
    )
    told = [(a.clip, a.kind, a.question, a.said) for a in answers]
    assert told == [row for rows in draws for row in rows]
    assert told != ask_one_by_one(model, RandomTokens(retention_ratio=0.1, seed=5), SMALL)


def test_methods_get_what_they_need(model, tmp_path) -> None:
    """From a file with tokens alone, from one with everything, and from none."""
    one = replace(SMALL, num_clips=1)
    run_suite(model, {ALL: Identity()}, one, stored(tmp_path / "tokens"), tmp_path)
    methods = {
        ("visionzip", 0.1): VisionZip(retention_ratio=0.1),
        ("fastv", 0.1): FastV(retention_ratio=0.1),
        ("fastv", 1.0): FastV(retention_ratio=1.0),
    }
    runs = [
        run_suite(model, methods, one, stored(tmp_path / f"{i}"), cache)
        for i, cache in enumerate((tmp_path, tmp_path, None))
    ]
    told = [[(a.method, a.retention, a.question, a.said, a.num_kept) for a in run] for run in runs]
    assert told[0] == told[1] == told[2]
    assert {row[:2]: row[4] for row in told[0]} == {
        ("visionzip", 0.1): 51,
        ("fastv", 0.1): 51,
        ("fastv", 1.0): 512,
    }
    frames, _ = one.show(one.first_clip, 128, 8)
    clip = VideoClip(frames, tuple(range(8)), tuple(map(float, range(8))), 8, 1.0, 0, "drawn")
    for ratio, compressor in ((0.1, FastV(retention_ratio=0.1)), (1.0, Identity())):
        rows = [row for row in told[0] if row[:2] == ("fastv", ratio)]
        with Session(load_model("demo", device="cpu", compressor=compressor), clip) as session:
            assert [session.ask(row[2]).text for row in rows] == [row[3] for row in rows]


def test_one_question_of_every_type_about_each_clip() -> None:
    for clip in SMALL.clips:
        scene, _ = scene_of_seed((HELD_OUT, clip))
        _, questions = SMALL.show(clip, 128, 8)
        asked = {kind: 1 for kind, count in expected_counts(scene).items() if count}
        assert Counter(q.kind for q in questions) == asked
        assert all(q.answer == answer(scene, q.kind, q.text) for q in questions)


def test_questions_are_the_same_for_every_model() -> None:
    """Whatever size its frames are, and whether they come from a file."""
    frames, questions = SMALL.show(20, 128, 8)
    larger, same = SMALL.show(20, 64, 5)
    decoded, again = replace(SMALL, use_video_files=True).show(20, 128, 8)
    assert questions == same == again
    assert [tuple(f.shape) for f in (frames, larger, decoded)] == [
        (8, 128, 128, 3),
        (5, 64, 64, 3),
        (8, 256, 256, 3),
    ]
    shrunk = decoded.double().view(8, 128, 2, 128, 2, 3).mean((2, 4))
    other = SMALL.show(21, 128, 8)[0]
    assert (shrunk - frames).abs().mean() < 6 < 20 < (shrunk - other).abs().mean()
    first = [float((f[0].double() / 255).mean()) for f in (frames, larger)]
    assert first[0] == pytest.approx(first[1], abs=0.01)


def test_every_answer_is_stored_as_it_is_returned(model, methods, tmp_path) -> None:
    progress: list[tuple[int, int]] = []
    store = stored(tmp_path / "a")
    answers = run_suite(
        model, methods, SMALL, store, tmp_path, on_progress=lambda *numbers: progress.append(numbers)
    )
    assert set(read_answers(store.path)) == set(answers)
    rows = [json.loads(line) for line in store.path.read_text().splitlines()]
    assert {tuple(row["seed"]) for row in rows} == {(HELD_OUT, clip) for clip in SMALL.clips}
    assert sum(row["right"] for row in rows) == sum(a.is_right for a in answers)
    assert [a.method for a in answers] == sorted(a.method for a in answers), "all before scissor"
    assert [a.retention for a in answers] == [dict([ALL, TENTH])[a.method] for a in answers]
    assert sorted(set(progress)) == [(i, 4) for i in range(5)]


def test_a_run_goes_on_where_it_stopped(model, methods, tmp_path, caplog) -> None:
    path = stored(tmp_path).path
    whole = run_suite(model, methods, SMALL, stored(tmp_path))
    lines = path.read_text().splitlines(keepends=True)
    per_clip = sum(json.loads(line)["clip"] == 20 for line in lines) // 2
    path.write_text("".join(lines[: 2 * per_clip]))
    counting = {**methods, ALL: Counting()}
    with caplog.at_level(logging.WARNING):
        again = run_suite(model, counting, SMALL, stored(tmp_path))
    assert counting[ALL].num_calls == 1, "the first clip is there"
    assert [timeless(a) for a in again] == [timeless(a) for a in whole]
    assert not caplog.records


def test_a_clip_that_was_cut_off_is_asked_about_again(model, methods, tmp_path, caplog) -> None:
    path = stored(tmp_path).path
    whole = run_suite(model, methods, SMALL, stored(tmp_path))
    path.write_text(path.read_text()[:-5])
    with caplog.at_level(logging.WARNING):
        again = run_suite(model, methods, SMALL, stored(tmp_path))
    assert "its last task is left out, and done again" in caplog.text
    assert [timeless(a) for a in again] == [timeless(a) for a in whole]
    assert sorted(map(timeless, read_answers(path)), key=str) == sorted(map(timeless, whole), key=str)


def timeless(answer: SuiteAnswer) -> SuiteAnswer:
    return replace(answer, compression_s=0, answer_s=0)


def test_tokens_are_encoded_once(model, tmp_path, monkeypatch) -> None:
    calls = []
    encode = type(model).encode_video
    monkeypatch.setattr(type(model), "encode_video", lambda *a: calls.append(1) or encode(*a))
    both = {ALL: Identity(), ("again", 1.0): Identity()}
    run_suite(model, both, SMALL, stored(tmp_path / "a"), tmp_path)
    run_suite(model, both, SMALL, stored(tmp_path / "b"), tmp_path)
    run_suite(model, both, SMALL, stored(tmp_path / "b"))
    assert len(calls) == SMALL.num_clips, "once for all methods, not again if stored, not at all if answered"


def test_other_weights_have_another_name(model) -> None:
    before = fingerprint(model.projector)
    with torch.no_grad():
        model.projector[0].bias[0] += 1
    try:
        assert fingerprint(model.projector) != before
    finally:
        with torch.no_grad():
            model.projector[0].bias[0] -= 1


def test_answers_under_other_settings_are_not_mixed(model, tmp_path) -> None:
    def opened(suite: Suite) -> ResultStore:
        return ResultStore(tmp_path, describe_run("demo", model, suite), ANSWER_TASK)

    opened(SMALL)
    opened(replace(SMALL, num_clips=2))
    with pytest.raises(InputError, match=r"other settings \(video_files False there, True now\)"):
        opened(replace(SMALL, use_video_files=True))


def test_a_suite_or_its_first_clips() -> None:
    assert choose_suite("shapes-v1") == SUITES["shapes-v1"] == Suite("shapes-v1", 0, 400)
    assert choose_suite("shapes-v1", 3, True) == Suite("shapes-v1", 0, 3, use_video_files=True)
    with pytest.raises(ConfigError, match="--clips 401: shapes-v1 has 400 clips"):
        choose_suite("shapes-v1", 401)
    with pytest.raises(ConfigError, match="--suite shapes: expected one of shapes-v1,"):
        choose_suite("shapes")


def test_prompts_that_are_too_long_are_refused(model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(model.geometry.language, "max_position_embeddings", 500)
    with pytest.raises(InputError, match="but the model has 500"):
        run_suite(model, {ALL: Identity()}, SMALL, stored(tmp_path / "a"))


def test_a_store_of_something_else_is_refused(model, tmp_path) -> None:
    store = stored(tmp_path)
    store.append([{"method": "m", "retention": 1.0, "clip": 20, "answer": 1}])
    with pytest.raises(InputError, match="not a file of answers"):
        run_suite(model, {ALL: Identity()}, SMALL, store)


def fingerprint_of(suite: Suite) -> tuple[str, list[float], list[float]]:
    """Scenes and questions, to the letter; brightness and contrast of quarters of a frame, in tenths.

    Not every byte of the frames: sines and roots may differ in the last bit between processors.
    """
    digest, brightness, contrast = hashlib.sha256(), [], []
    for clip in suite.clips[:: suite.num_clips // 4]:
        scene, _ = scene_of_seed((HELD_OUT, clip), suite.world)
        frames, questions = suite.show(clip, 128, 8)
        digest.update(repr((scene, questions)).encode())
        quarters = 10 * frames[6].double().view(2, 64, 2, 64, 3).transpose(1, 2).flatten(2)
        brightness += quarters.mean(-1).flatten().tolist()
        contrast += quarters.std(-1).flatten().tolist()
    return digest.hexdigest()[:16], brightness, contrast


# fmt: off
FROZEN = {
    "shapes-v1": (
        "4a1ec9af0bf06cd6",
        [1270, 1327, 1327, 1327, 694, 608, 747, 593, 696, 753, 693, 737, 1140, 1138, 1214, 1139],
        [355, 192, 192, 192, 462, 268, 530, 212, 144, 316, 144, 287, 219, 195, 385, 201],
    ),
    "shapes-v1-tune": (
        "a00abacc97ca1fde",
        [1069, 1126, 1285, 1082, 1203, 1197, 1201, 1224, 1067, 1067, 1127, 1112, 1234, 1237, 1232, 1264],
        [200, 345, 520, 227, 331, 208, 239, 376, 193, 195, 343, 316, 176, 185, 175, 291],
    ),
    "shapes-hard-v1": (
        "43df30c9e5dd5a1d",
        [1962, 1630, 1842, 1560, 1025, 1040, 1088, 1086, 1075, 1058, 1050, 1067, 1546, 1548, 1510, 1511],
        [238, 203, 294, 276, 227, 274, 355, 416, 243, 198, 159, 342, 195, 227, 317, 354],
    ),
}
# fmt: on


@pytest.mark.parametrize("name", SUITES)
def test_clips_and_questions_of_a_name_never_change(name: str) -> None:
    """Whoever wants others gives them another name."""
    digest, *looks = fingerprint_of(SUITES[name])
    frozen_digest, *frozen_looks = FROZEN[name]
    assert digest == frozen_digest
    for look, frozen in zip(looks, frozen_looks, strict=True):
        assert look == pytest.approx(frozen, abs=1)


def test_suites_share_no_clip() -> None:
    seen: set[int] = set()
    for name, suite in SUITES.items():
        assert suite.name == name
        clips = set(suite.clips)
        assert not clips & seen
        seen |= clips
