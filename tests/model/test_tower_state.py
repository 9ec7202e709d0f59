from __future__ import annotations

import pytest
import torch

from llava_scissor.compression.baselines.visionzip import VisionZip
from llava_scissor.compression.protocol import Needs, TowerState
from llava_scissor.errors import InputError
from llava_scissor.model import OneVision, load_model, onevision
from llava_scissor.model.pooling import pool_frames
from llava_scissor.model.tower_state import pool_states, watch_last_block
from tests.model.checkpoints import build_reference, save_original

BOTH = Needs(attention=True, keys=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> OneVision:
    return load_model(save_original(build_reference(), tmp_path_factory.mktemp("checkpoint")), device="cpu")


@pytest.fixture(scope="module")
def frames():
    return torch.randn(5, 3, 75, 75, generator=torch.Generator().manual_seed(0))


def patches_state(model, frames, needs=BOTH) -> TowerState:
    with watch_last_block(model.vision_tower, needs) as states:
        model.encode_video(frames)
    return pool_states(states, 1)


def test_attention_is_that_of_the_eager_kernel(model, frames) -> None:
    found = patches_state(model, frames).attention
    assert model.vision_tower.config._attn_implementation == "sdpa"
    model.vision_tower.set_attn_implementation("eager")
    try:
        eager = model.vision_tower(frames, output_attentions=True).attentions[-1]  # (F, H, S, S)
    finally:
        model.vision_tower.set_attn_implementation("sdpa")
    torch.testing.assert_close(found, eager.mean((1, 2)), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.sum(1), torch.ones(5))
    assert found.std() > 1e-4


def test_keys_are_those_of_the_last_block(model, frames) -> None:
    inputs = []
    block = model.vision_tower.encoder.layers[-1]
    handle = block.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    found = patches_state(model, frames).keys
    handle.remove()
    keys = block.self_attn.k_proj(block.layer_norm1(inputs[0]))
    torch.testing.assert_close(found, keys.unflatten(-1, (block.self_attn.num_heads, -1)).mean(2))


def test_the_state_is_pooled_like_the_tokens_and_the_tokens_are_the_same(model, frames) -> None:
    tokens, tower = model.encode_video_with(frames, BOTH)
    assert tokens.equal(model.encode_video(frames))
    patches = patches_state(model, frames)
    assert tower.attention.equal(pool_frames(patches.attention[..., None], 2)[..., 0])
    assert tower.keys.equal(pool_frames(patches.keys, 2))
    assert tower.attention.shape == tower.keys.shape[:2] == tokens.shape[:2]
    assert (tower.attention.dtype, tower.keys.dtype) == (torch.float32, torch.float32)


def test_an_image_is_not_pooled(model, frames) -> None:
    patches, tower = model.encode_image_with(frames, BOTH)
    assert patches.equal(model.encode_image(frames))
    assert tower.attention.equal(patches_state(model, frames).attention)


def test_chunks_do_not_matter(model, frames, monkeypatch) -> None:
    whole = model.encode_video_with(frames, BOTH)[1]
    monkeypatch.setattr(onevision, "FRAMES_PER_CHUNK", 2)
    parts = model.encode_video_with(frames, BOTH)[1]
    torch.testing.assert_close(parts.attention, whole.attention)
    torch.testing.assert_close(parts.keys, whole.keys, rtol=0, atol=1e-5)


def test_only_what_is_needed_is_computed(model, frames) -> None:
    assert model.encode_video_with(frames)[1].attention is None
    only = model.encode_video_with(frames, Needs(attention=True))[1]
    assert only.attention is not None
    assert only.keys is None


def test_nothing_stays_behind(model, frames) -> None:
    block = model.vision_tower.encoder.layers[-1].self_attn
    model.encode_video_with(frames, BOTH)
    with pytest.raises(InputError, match="expected pixel values"):
        model.encode_video_with(frames[:0], BOTH)
    assert not block._forward_pre_hooks


def test_the_compressor_of_the_model_gets_what_it_needs(model, frames, monkeypatch) -> None:
    monkeypatch.setattr(model, "compressor", VisionZip(retention_ratio=0.3))
    tokens, tower = model.encode_video_with(frames)
    kept = model.compress(tokens, tower)
    assert kept.num_kept == 13
    text_ids = model.tokenize("what is this?")
    logits = model.language_model(inputs_embeds=model.embed_prompt(text_ids, kept.tokens)[None]).logits[0]
    assert model(frames, "what is this?").equal(logits)
    with pytest.raises(InputError, match="VisionZip needs the attention"):
        model.compress(tokens)
