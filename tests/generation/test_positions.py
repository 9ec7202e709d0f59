"""Kept tokens that keep their positions in the prompt."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from llava_scissor.compression import Scissor, ScissorConfig
from llava_scissor.compression.protocol import summarize
from llava_scissor.config import GenerationConfig, VideoConfig
from llava_scissor.errors import InputError
from llava_scissor.generation import Request, Session, ask, ask_batch
from llava_scissor.generation.decode import Reply
from llava_scissor.model import Images
from llava_scissor.video import preprocess_frames
from tests.writing import write

SHORT = GenerationConfig(max_new_tokens=3)
QUESTION = "what is this?"


def every_third(tokens):
    """Keep every third token as it is, at its position."""
    num_input = tokens.shape[0] * tokens.shape[1]
    component = torch.full((num_input,), -1)
    component[::3] = torch.arange(len(component[::3]))
    result = summarize(tokens, tokens.flatten(0, 1)[::3], component, component)
    return replace(result, positions=torch.arange(0, num_input, 3))


@pytest.fixture
def positions(model, monkeypatch):
    """The positions that the language model is given, call by call."""
    config = ScissorConfig(retention_ratio=0.4, preset="recommended", temporal_window=2)
    monkeypatch.setattr(model, "compressor", Scissor(config))
    seen = []
    handle = model.language_model.model.register_forward_pre_hook(
        lambda module, arguments, keywords: seen.append(keywords["position_ids"].tolist()), with_kwargs=True
    )
    yield seen
    handle.remove()


def expected_positions(model, answer, question=QUESTION):
    before, behind = (len(ids) for ids in model.tokenize(question))
    result = answer.compression
    kept = [before + position for position in result.positions.tolist()]
    rest = before + result.num_input + torch.arange(1 + behind)  # the newline and the question
    return [*range(before), *kept, *rest.tolist()]


def pixels_of(model, clip):
    geometry = model.geometry
    return preprocess_frames(clip.frames, geometry.image_size, geometry.image_mean, geometry.image_std)


def test_dropping_tokens_is_masking_them(model, clip, monkeypatch):
    """The logits are those of the whole prompt in which nothing looks at the tokens that were left out."""
    pixels = pixels_of(model, clip)
    before, behind = model.tokenize(QUESTION)
    tokens = model.encode_video(pixels).flatten(0, 1)
    embeds = model.embed_prompt([before, behind], tokens)[None]
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    mask[0, len(before) : len(before) + len(tokens)] = 0
    mask[0, len(before) : len(before) + len(tokens) : 3] = 1
    with torch.no_grad():
        whole = model.language_model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=torch.arange(embeds.shape[1])[None]
        ).logits[0, -1]
        monkeypatch.setattr(model, "compressor", every_third)
        logits = model(pixels, QUESTION)[-1]
    torch.testing.assert_close(logits, whole, rtol=0, atol=1e-5)
    seen = []
    monkeypatch.setattr(Reply, "choose", lambda reply, row: seen.append(row) or reply.ids.append(0))
    ask(model, clip, QUESTION, VideoConfig(), GenerationConfig(max_new_tokens=1))
    torch.testing.assert_close(seen[0][0], whole, rtol=0, atol=1e-5)


def test_every_way_of_asking_uses_the_positions(model, clip, positions):
    answer = ask(model, clip, QUESTION, VideoConfig(), SHORT)
    expected = expected_positions(model, answer)
    last = expected[-1]
    assert last + 1 > answer.num_prompt_tokens == len(expected)
    assert positions == [[expected], *([[last + 1 + i]] for i in range(answer.num_new_tokens - 1))]
    positions.clear()
    with torch.no_grad():
        model(pixels_of(model, clip), QUESTION)
    assert positions == [[expected]]
    with Session(model, clip, VideoConfig(), SHORT) as session:
        session.ask("what are You")
        positions.clear()
        session.ask(QUESTION)
        assert positions[0] == [expected[-len(positions[0][0]) :]]
    positions.clear()
    requests = [Request(clip, QUESTION), Request(Images(Image.effect_noise((90, 60), 80)), "what")]
    on_video, on_image = ask_batch(model, requests, VideoConfig(), SHORT)
    assert on_video.text == answer.text
    assert positions[0][0][-len(expected) :] == expected
    assert positions[0][1][-1] == on_image.num_prompt_tokens - 1  # nothing was left out of the image


def test_positions_given_to_some_rows_are_padded_like_the_rows(model):
    prompts = [torch.ones(4, 48), torch.ones(2, 48)]
    seen = []
    handle = model.language_model.model.register_forward_pre_hook(
        lambda module, arguments, keywords: seen.append(keywords["position_ids"].tolist()), with_kwargs=True
    )
    replies = [Reply(model, GenerationConfig(max_new_tokens=2, stop=())) for _ in prompts]
    for reply in replies:
        reply._stop_ids = []
    write(model, prompts, replies, [torch.tensor([0, 5, 6, 9]), torch.tensor([0, 3])])
    handle.remove()
    assert seen == [[[0, 5, 6, 9], [0, 0, 0, 3]], [[10], [4]]]


def test_positions_that_were_left_out_count_as_context(model, clip, positions):
    answer = ask(model, clip, QUESTION, VideoConfig(), SHORT)
    room = model.geometry.context_length - expected_positions(model, answer)[-1] - 1
    with pytest.raises(InputError, match="positions 'consecutive'"):
        ask(model, clip, QUESTION, VideoConfig(), GenerationConfig(max_new_tokens=room + 1))
    (outcome,) = ask_batch(
        model, [Request(clip, QUESTION)], VideoConfig(), GenerationConfig(max_new_tokens=room + 1)
    )
    assert isinstance(outcome, InputError)
