from __future__ import annotations

import importlib
import logging

import pytest
import torch

from llava_scissor.compression import Identity, build_compressor
from llava_scissor.config import GenerationConfig, ScissorConfig, VideoConfig
from llava_scissor.errors import InputError, VideoError
from llava_scissor.generation import Answer, ask
from llava_scissor.video import preprocess_frames
from tests.writing import generate_ids

QUESTION = "what is this?"
SHORT = GenerationConfig(max_new_tokens=8)


@pytest.fixture
def media_module():
    return importlib.import_module("llava_scissor.generation.encode")


@pytest.fixture
def scissor(model, monkeypatch):
    monkeypatch.setattr(model, "compressor", build_compressor(ScissorConfig(retention_ratio=0.25)))
    return model


def test_an_answer_tells_how_it_came_about(model, clip):
    answer = ask(model, clip, QUESTION, VideoConfig(), SHORT)
    assert isinstance(answer, Answer)
    assert answer.clip is clip
    assert (answer.compression.num_input, answer.compression.num_kept) == (36, 36)
    text_ids = model.tokenize(QUESTION)
    assert answer.num_prompt_tokens == sum(map(len, text_ids)) + 36 + 1
    pixel_values = preprocess_frames(clip.frames, 75)
    embeds = model.embed_prompt(text_ids, model.encode_video(pixel_values).flatten(0, 1))
    ids = generate_ids(model, embeds, SHORT)
    assert answer.num_new_tokens == len(ids)
    assert answer.text == model.tokenizer.decode([i for i in ids if i != 3]).strip()


def test_every_stage_is_timed_and_they_add_up(model, clip):
    timings_s = ask(model, clip, QUESTION, VideoConfig(), SHORT).timings_s
    stages = ["decode", "preprocess", "vision_tower", "compression", "prefill", "generate", "total"]
    assert list(timings_s) == stages
    assert all(seconds >= 0 for seconds in timings_s.values())
    assert sum(timings_s[stage] for stage in stages[:-1]) == pytest.approx(timings_s["total"])


def test_the_compressor_shortens_the_prompt(model, scissor, clip):
    answer = ask(scissor, clip, QUESTION, VideoConfig(), SHORT)
    assert (answer.compression.num_input, answer.compression.num_kept) == (36, 9)
    assert answer.num_prompt_tokens == sum(map(len, model.tokenize(QUESTION))) + 9 + 1


def test_no_compressor_equals_identity(model, clip, monkeypatch):
    plain = ask(model, clip, QUESTION, VideoConfig(), SHORT)
    monkeypatch.setattr(model, "compressor", Identity())
    assert ask(model, clip, QUESTION, VideoConfig(), SHORT).text == plain.text


@pytest.mark.parametrize("config", [SHORT, GenerationConfig(max_new_tokens=8, do_sample=True, seed=4)])
def test_streamed_text_adds_up_to_the_answer(config, model, clip):
    pieces = []
    answer = ask(model, clip, QUESTION, VideoConfig(), config, pieces.append)
    assert "".join(pieces) == answer.text == ask(model, clip, QUESTION, VideoConfig(), config).text


@pytest.mark.parametrize(("asked", "read"), [(None, 32), (5, 5)])
def test_the_number_of_frames_is_the_callers_or_the_checkpoints(
    asked, read, model, clip, monkeypatch, media_module
):
    calls = []
    monkeypatch.setattr(media_module, "read_video", lambda *arguments: calls.append(arguments) or clip)
    ask(model, "film.mp4", QUESTION, VideoConfig(num_frames=asked, decoder="decord"), SHORT)
    assert calls == [("film.mp4", read, "decord")]


def test_frames_are_prepared_as_the_checkpoint_and_the_config_say(model, clip, monkeypatch, media_module):
    calls = []

    def record(*arguments):
        calls.append(arguments[1:])
        return preprocess_frames(*arguments)

    monkeypatch.setattr(media_module, "preprocess_frames", record)
    ask(model, clip, QUESTION, VideoConfig(resize="pil"), SHORT)
    assert calls == [(75, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "pil")]


@pytest.mark.parametrize("question", ["", "what is <image>?", "what<|im_end|>"])
def test_a_bad_question_is_refused_before_the_video_is_opened(question, model):
    with pytest.raises(InputError, match=r"not blank|control token"):
        ask(model, "there/is/no/such/film.mp4", question, VideoConfig(), SHORT)


def test_a_video_that_is_not_there_is_a_video_error(model):
    with pytest.raises(VideoError, match=r"film\.mp4"):
        ask(model, "there/is/no/such/film.mp4", QUESTION, VideoConfig(), SHORT)


def test_an_answer_that_does_not_fit_is_refused(model, clip):
    with pytest.raises(InputError, match=r"a prompt of \d+ positions and an answer of up to 4096 need"):
        ask(model, clip, QUESTION, VideoConfig(), GenerationConfig(max_new_tokens=4096))


def test_nothing_is_printed_and_unknown_words_are_logged(model, clip, capsys, caplog):
    with caplog.at_level(logging.WARNING):
        ask(model, clip, "what is zebra?", VideoConfig(), SHORT)
    assert capsys.readouterr().out == ""
    assert [record.name for record in caplog.records] == ["llava_scissor.model.prompt"]


def test_half_precision_answers(model, clip, tmp_path):
    from llava_scissor.model import load_model
    from tests.model.checkpoints import build_reference, save_original

    half = load_model(save_original(build_reference(), tmp_path), device="cpu", dtype="bfloat16")
    answer = ask(half, clip, QUESTION, VideoConfig(), SHORT)
    assert answer.compression.tokens.dtype == torch.bfloat16
    assert answer.num_new_tokens > 0
