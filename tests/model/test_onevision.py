from __future__ import annotations

import dataclasses

import pytest
import torch

from llava_scissor.compression import Identity
from llava_scissor.compression.protocol import summarize
from llava_scissor.errors import InputError
from llava_scissor.model import OneVision, load_model, onevision
from llava_scissor.model.layouts import read_geometry
from tests.model.checkpoints import build_tokenizer, write_original_config

QUESTION = "what is this?"


@pytest.fixture(scope="module")
def geometry(tmp_path_factory):
    directory = tmp_path_factory.mktemp("config")
    write_original_config(directory)
    return read_geometry(directory)


@pytest.fixture(scope="module")
def model(geometry):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return OneVision(geometry, build_tokenizer()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def frames():
    return torch.randn(5, 3, 75, 75, generator=torch.Generator().manual_seed(0))


def test_the_feature_is_the_output_of_the_towers_last_block(model, frames):
    outputs = []
    handle = model.vision_tower.encoder.layers[-1].register_forward_hook(
        lambda *call: outputs.append(call[2])
    )
    tower_output = model.vision_tower(frames).last_hidden_state
    handle.remove()
    assert tower_output.equal(outputs[0])
    assert isinstance(model.vision_tower.post_layernorm, torch.nn.Identity)


def test_visual_tokens_have_the_shape_that_the_geometry_says(model, frames):
    tokens = model.encode_video(frames)
    assert tokens.shape == (5, model.geometry.tokens_per_frame, 48) == (5, 9, 48)
    assert (tokens.dtype, tokens.device) == (model.dtype, model.device)


def test_frames_are_encoded_independently_of_their_chunk(model, frames, monkeypatch):
    whole = model.encode_video(frames)
    monkeypatch.setattr(onevision, "FRAMES_PER_CHUNK", 2)
    torch.testing.assert_close(model.encode_video(frames), whole, rtol=0, atol=1e-6)


def test_pixel_values_of_another_dtype_are_converted(model, frames):
    assert model.encode_video(frames.double()).equal(model.encode_video(frames))


@pytest.mark.parametrize("shape", [(0, 3, 75, 75), (2, 3, 75, 74), (2, 3, 64, 64), (2, 1, 75, 75)])
def test_frames_of_another_shape_are_refused(shape, model):
    with pytest.raises(InputError, match=r"expected pixel values of shape \(frames, 3, 75, 75\).*got \("):
        model.encode_video(torch.zeros(shape))


def test_the_compressor_gets_the_visual_tokens_once_and_decides_what_stays(geometry, model, frames):
    calls = []

    def every_third(tokens):
        calls.append(tokens)
        kept = torch.arange(0, tokens.shape[0] * tokens.shape[1], 3)
        component = torch.full((tokens.shape[0] * tokens.shape[1],), -1)
        component[kept] = torch.arange(len(kept))
        return summarize(tokens, tokens.flatten(0, 1)[kept], component, component)

    compressed = OneVision(geometry, build_tokenizer(), every_third)
    compressed.load_state_dict(model.state_dict())
    text_ids = compressed.tokenize(QUESTION)
    logits = compressed(frames, QUESTION)
    assert len(calls) == 1
    assert calls[0].equal(model.encode_video(frames))
    assert len(logits) == sum(map(len, text_ids)) + 15 + 1  # 45 visual tokens, 15 of them kept, a newline


def test_identity_equals_no_compressor_bit_for_bit(geometry, model, frames):
    with_identity = OneVision(geometry, build_tokenizer(), Identity())
    with_identity.load_state_dict(model.state_dict())
    assert with_identity(frames, QUESTION).equal(model(frames, QUESTION))
    assert with_identity.compress(model.encode_video(frames)).tokens.equal(
        model.encode_video(frames).flatten(0, 1)
    )


def test_the_newline_follows_the_kept_tokens(model):
    tokens = torch.ones(2, 48)
    before, behind = model.tokenize(QUESTION)
    embeds = model.embed_prompt([before, behind], tokens)
    embedding = model.language_model.get_input_embeddings().weight
    assert embeds.equal(torch.cat([embedding[before], tokens, model.image_newline[None], embedding[behind]]))


def test_a_flat_checkpoint_has_no_newline(geometry):
    flat = OneVision(dataclasses.replace(geometry, use_newline=False, image_merge="flat"), build_tokenizer())
    before, behind = flat.tokenize(QUESTION)
    assert flat.image_newline is None
    assert "image_newline" not in flat.state_dict()
    assert len(flat.embed_prompt([before, behind], torch.ones(2, 48))) == len(before) + 2 + len(behind)


def test_a_prompt_needs_exactly_one_place_for_the_video(model):
    with pytest.raises(InputError, match="0 placeholders for 1 visual blocks"):
        model.embed_prompt([[1, 2, 3]], torch.ones(2, 48))


def test_a_question_with_a_control_token_never_reaches_the_prompt(model, frames):
    with pytest.raises(InputError, match="control token '<image>'"):
        model(frames, "what is <image>?")


def test_a_loaded_model_builds_no_graph(checkpoint, frames):
    model = load_model(checkpoint, device="cpu")
    assert not model.training
    assert not model(frames, QUESTION).requires_grad
