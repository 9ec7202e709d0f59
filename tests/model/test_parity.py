"""Stage by stage against transformers' own LlavaOnevision, with the same weights saved in every layout."""

from __future__ import annotations

import copy
import functools

import pytest
import torch

from llava_scissor.config import GenerationConfig
from llava_scissor.model import OneVision, load_model
from llava_scissor.model.pooling import pool_frames
from tests.model.checkpoints import (
    LANGUAGE,
    REAL_GRID_TOWER,
    VIDEO_ID,
    build_reference,
    reference_tokens,
    save_huggingface,
    save_original,
)
from tests.writing import generate_ids

# In float32 the measured difference is 0.0 at every stage, with values up to 3; the tolerance leaves room for
# releases of torch and transformers that add in another order.
FP32_TOLERANCE = 1e-5
QUESTION = "what is this?"
LAYOUTS = {
    "original": save_original,
    "original-sharded": functools.partial(save_original, num_shards=3),
    "huggingface-2024": functools.partial(save_huggingface, spelling="2024"),
    "huggingface-flattened": functools.partial(save_huggingface, spelling="flattened"),
    "huggingface-in-memory": functools.partial(save_huggingface, spelling="in_memory"),
}
assert_close = functools.partial(torch.testing.assert_close, rtol=0, atol=FP32_TOLERANCE)


def pixels(num_frames: int, size: int = 75, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_frames, 3, size, size, generator=torch.Generator().manual_seed(seed))


def reference_ids(model: OneVision, num_frames: int) -> torch.Tensor:
    """The prompt as transformers reads it: a placeholder for each visual token, and one for the newline."""
    before, behind = model.tokenize(QUESTION)
    num_visual = num_frames * model.geometry.tokens_per_frame + 1
    return torch.tensor([[*before, *[VIDEO_ID] * num_visual, *behind]])


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def pair(request, tmp_path_factory):
    """The reference and a function that loads it from a layout."""
    reference = build_reference(is_tied=request.param)

    @functools.cache
    def load(layout: str) -> OneVision:
        return load_model(LAYOUTS[layout](reference, tmp_path_factory.mktemp(layout)), device="cpu")

    return reference, load


@pytest.mark.parametrize("layout", LAYOUTS)
class TestEveryLayout:
    def test_stages(self, layout, pair):
        reference, model, frames = pair[0].model, pair[1](layout), pixels(4)
        patches = reference.vision_tower(frames, output_hidden_states=True).hidden_states[-1]
        assert_close(model.vision_tower(frames).last_hidden_state, patches)
        projected = reference.multi_modal_projector(patches)
        assert_close(model.projector(patches), projected)
        pooled = reference.apply_pooling(projected)
        assert_close(pool_frames(projected, 2), pooled)
        assert_close(model.encode_video(frames), pooled)
        assert_close(model.image_newline, reference.image_newline)

    def test_the_visual_block(self, layout, pair):
        reference, model, frames = pair[0].model, pair[1](layout), pixels(4)
        before, behind = model.tokenize(QUESTION)
        embeds = model.embed_prompt([before, behind], model.encode_video(frames).flatten(0, 1))
        tokens = reference_tokens(pair[0], frames, 4 * 9)
        visual = torch.cat([tokens, reference.image_newline[None]])
        assert_close(embeds[len(before) : -len(behind)], visual)

    def test_logits(self, layout, pair):
        reference, model, frames = pair[0], pair[1](layout), pixels(4)
        ids = reference_ids(model, num_frames=4)
        assert_close(model(frames, QUESTION), reference(ids, pixel_values_videos=frames[None]).logits[0])

    @pytest.mark.parametrize("seed", range(3))
    def test_greedy_ids(self, layout, seed, pair):
        reference, model, frames = pair[0], pair[1](layout), pixels(3, seed=seed)
        ids = reference_ids(model, num_frames=3)
        expected = reference.generate(
            ids, pixel_values_videos=frames[None], max_new_tokens=12, do_sample=False, eos_token_id=3
        )[0, ids.shape[1] :]
        embeds = model.embed_prompt(model.tokenize(QUESTION), model.encode_video(frames).flatten(0, 1))
        assert generate_ids(model, embeds, GenerationConfig(max_new_tokens=12)) == expected.tolist()


@pytest.fixture(scope="module", params=["original", "huggingface-2024"])
def real_grid(request, tmp_path_factory):
    """Few and narrow layers, but the frames and patches of the real tower: 384 / 14 -> 27 x 27 -> 14 x 14."""
    reference = build_reference(REAL_GRID_TOWER, language=LANGUAGE | {"max_position_embeddings": 2048})
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "original":
        tower = {"mm_vision_tower_config": REAL_GRID_TOWER, "max_position_embeddings": 2048}
        save_original(reference, directory, **tower)
    else:
        save_huggingface(reference, directory, "2024")
    return reference, directory


def visual_tokens(network, video):
    return reference_tokens(network, video, 3 * 196)


def test_the_grid_of_the_real_tower(real_grid):
    reference, directory = real_grid
    model, frames = load_model(directory, device="cpu"), pixels(3, size=384)
    patches = reference.model.vision_tower(frames, output_hidden_states=True).hidden_states[-1]
    assert patches.shape == (3, 729, 32)
    assert_close(model.vision_tower(frames).last_hidden_state, patches)
    tokens = model.encode_video(frames)
    assert tokens.shape == (3, 196, 48)
    assert_close(tokens.flatten(0, 1), visual_tokens(reference, frames))
    ids = reference_ids(model, num_frames=3)
    assert_close(model(frames, QUESTION), reference(ids, pixel_values_videos=frames[None]).logits[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_grid_of_the_real_tower_in_low_precision(dtype, real_grid):
    """At most twice the error of plain PyTorch in the same dtype, at the visual tokens and at the logits."""
    reference, directory = real_grid
    model, frames = load_model(directory, device="cpu", dtype=dtype), pixels(3, size=384)
    plain = copy.deepcopy(reference).to(getattr(torch, dtype))
    ids = reference_ids(model, num_frames=3)

    def logits(network, video):
        return network(ids, pixel_values_videos=video[None]).logits[0]

    ours = {visual_tokens: model.encode_video(frames).flatten(0, 1), logits: model(frames, QUESTION)}
    for stage, found in ours.items():
        exact = stage(reference, frames)
        error = (found.float() - exact).norm() / exact.norm()
        plain_error = (stage(plain, frames.to(plain.dtype)).float() - exact).norm() / exact.norm()
        assert 0 < error <= 2 * plain_error


def test_an_earlier_layer_of_the_tower(tmp_path):
    reference = build_reference(vision_feature_layer=-2)
    model = load_model(save_huggingface(reference, tmp_path, "flattened"), device="cpu")
    assert len(model.vision_tower.encoder.layers) == 2
    expected = reference_tokens(reference, pixels(2), 2 * 9)
    assert_close(model.encode_video(pixels(2)).flatten(0, 1), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_has_at_most_twice_the_error_of_plain_torch(dtype, reference, tmp_path):
    model = load_model(save_original(reference, tmp_path), device="cpu", dtype=dtype)
    plain = copy.deepcopy(reference).to(getattr(torch, dtype))
    frames, ids = pixels(4), reference_ids(model, num_frames=4)

    def visual(network, video):
        return reference_tokens(network, video, 4 * 9).float()

    def logits(network, video):
        return network(ids, pixel_values_videos=video[None]).logits[0].float()

    for run, ours in ((visual, model.encode_video(frames).flatten(0, 1)), (logits, model(frames, QUESTION))):
        exact = run(reference, frames)
        error, plain_error = ((a.float() - exact).norm() for a in (ours, run(plain, frames.to(plain.dtype))))
        assert 0 < error <= 2 * plain_error


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_kernels_agree(attention, reference, tmp_path):
    model = load_model(save_original(reference, tmp_path), device="cpu", attn_implementation=attention)
    expected = reference(reference_ids(model, 2), pixel_values_videos=pixels(2)[None]).logits[0]
    assert_close(model(pixels(2), QUESTION), expected)
