from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image

from llava_scissor.compression import build_compressor
from llava_scissor.config import GenerationConfig, ScissorConfig, VideoConfig
from llava_scissor.errors import ImageError, InputError, VideoError
from llava_scissor.generation import Answer, Request, ask, ask_batch
from llava_scissor.model import Images, Turn

SHORT = GenerationConfig(max_new_tokens=8)


@pytest.fixture
def requests(clip):
    longer = dataclasses.replace(clip, frames=torch.cat([clip.frames.flip(0), clip.frames]))
    return [
        Request(clip, "what is this?"),
        Request(
            longer, "is this a helpful assistant .", generation_config=GenerationConfig(max_new_tokens=3)
        ),
        Request(None, "what are You"),
        Request(Images(Image.effect_noise((90, 60), 80)), "what", (Turn("is this a", "helpful"),)),
        Request(
            clip,
            "what is this?",
            generation_config=GenerationConfig(max_new_tokens=9, do_sample=True, temperature=2.0, seed=5),
        ),
    ]


def one_by_one(model, requests):
    return [
        ask(model, r.media, r.question, VideoConfig(), r.generation_config or SHORT, history=r.history)
        for r in requests
    ]


@pytest.mark.parametrize("tau", [None, 0.6])
def test_a_batch_equals_its_requests_one_by_one(tau, model, requests, monkeypatch):
    if tau is not None:  # another number of tokens is kept of each video
        monkeypatch.setattr(model, "compressor", build_compressor(ScissorConfig(tau=tau)))
    answers = ask_batch(model, requests, VideoConfig(), SHORT)
    alone = one_by_one(model, requests)
    assert len({answer.num_prompt_tokens for answer in alone}) > 3
    for together, single in zip(answers, alone, strict=True):
        assert isinstance(together, Answer)
        for name in (
            "text",
            "history",
            "num_prompt_tokens",
            "num_new_tokens",
            "finish_reason",
            "image_sizes",
        ):
            assert getattr(together, name) == getattr(single, name), name
        assert together.clip is single.clip
        assert [c.num_kept for c in together.compressions] == [c.num_kept for c in single.compressions]


def test_a_request_that_fails_takes_nothing_from_the_others(model, requests):
    bad = {
        0: (Request("there/is/no/film.mp4", "what"), VideoError, r"film\.mp4"),
        2: (Request(None, "what is <image>?"), InputError, "control token"),
        4: (Request(Images("no.png"), "what"), ImageError, r"no\.png"),
        6: (Request(None, "what", generation_config=GenerationConfig(max_new_tokens=600)), InputError, "600"),
    }
    mixed = list(requests)
    for place, (request, _, _) in bad.items():
        mixed.insert(place, request)
    outcomes = ask_batch(model, mixed, VideoConfig(), SHORT)
    for place, (_, error, message) in bad.items():
        with pytest.raises(error, match=message):
            raise outcomes[place]
    good = [outcome.text for place, outcome in enumerate(outcomes) if place not in bad]
    assert good == [answer.text for answer in one_by_one(model, requests)]


def test_a_batch_of_nothing_and_of_errors_only(model):
    assert ask_batch(model, []) == []
    (outcome,) = ask_batch(model, [Request("no.mp4", "what")])
    assert isinstance(outcome, VideoError)


def test_a_mistake_of_the_program_is_raised(model, requests, monkeypatch):
    monkeypatch.setattr(type(model), "encode_video", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ask_batch(model, requests, VideoConfig(), SHORT)


def test_pieces_carry_the_number_of_their_request(model, requests):
    texts = {}
    mixed = [Request("no.mp4", "what"), *requests]

    def add(place, piece):
        texts[place] = texts.get(place, "") + piece

    answers = ask_batch(model, mixed, VideoConfig(), SHORT, add)
    assert texts == {i: answer.text for i, answer in enumerate(answers) if i > 0 and answer.text}


def test_times_of_an_answer_are_its_own_up_to_the_prompt(model, requests):
    video, *_, image, _ = ask_batch(model, requests, VideoConfig(), SHORT)
    stages = ["decode", "preprocess", "vision_tower", "compression", "prefill", "generate", "total"]
    assert list(video.timings_s) == stages
    assert list(image.timings_s) == [stage for stage in stages if stage != "compression"]
    assert video.timings_s["generate"] == image.timings_s["generate"]
    assert sum(video.timings_s[s] for s in stages[:-1]) == pytest.approx(video.timings_s["total"])
