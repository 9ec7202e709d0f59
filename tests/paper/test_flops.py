from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, SiglipVisionConfig

from llava_scissor.demo.vocabulary import build_tokenizer
from llava_scissor.model import OneVision
from llava_scissor.model.geometry import Geometry
from llava_scissor.model.published import published_geometry
from llava_scissor.paper.flops import Workload, full_flops, paper_compression_flops, paper_flops

GEOMETRY = published_geometry("7b")
N = 32 * 196


@pytest.mark.parametrize(
    ("num_visual", "tflops"),
    [(N, 41.416), (N // 2, 19.00), (2195, 13.04), (1568, 9.27), (1254, 7.44), (627, 3.90), (188, 1.52)],
)
def test_the_papers_count_of_the_language_model(num_visual: int, tflops: float) -> None:
    """By hand from equations 9 and 10, with 28 layers, width 3584 and feed-forward width 18944."""
    assert paper_flops(GEOMETRY, num_visual).total == pytest.approx(tflops, abs=0.005)


@pytest.mark.parametrize(("num_visual", "tflops"), [(3136, 21.40), (2195, 16.08), (627, 7.92)])
def test_methods_that_prune_behind_the_third_layer(num_visual: int, tflops: float) -> None:
    count = paper_flops(GEOMETRY, num_visual, num_full_layers=3, num_full=N)
    assert count.total == pytest.approx(tflops, abs=0.005)


def test_the_papers_count_of_the_compressor() -> None:
    by_hand = (32 * 2 * 196**2 * 3584 + 2 * 3000**2 * 3584 + 2 * N * 627 * 3584) / 1e12
    assert paper_compression_flops(GEOMETRY, 32, 3000, 627) == pytest.approx(by_hand)


@pytest.fixture(scope="module")
def small() -> OneVision:
    """A model whose every product can be counted while it runs: grouped heads, another vocabulary."""
    geometry = Geometry(
        layout="original",
        vision=SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=42,
            patch_size=6,
            vision_use_head=False,
        ),
        language=Qwen2Config(
            vocab_size=100,
            hidden_size=64,
            intermediate_size=80,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
        ),
        use_newline=True,
    )
    return OneVision(geometry, build_tokenizer(), attn_implementation="eager").eval()


def counted(run) -> float:
    """Multiply-accumulates that PyTorch sees."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2 / 1e12


def test_the_full_count_is_what_runs(small) -> None:
    geometry, work = small.geometry, Workload(num_frames=3, num_text_tokens=9, num_new_tokens=4)
    ours = full_flops(geometry, work)
    pixels = torch.zeros(3, 3, 42, 42)
    seen = counted(lambda: small.encode_video(pixels))
    assert ours.vision_tower + ours.projector == pytest.approx(seen)

    prompt = 3 * geometry.tokens_per_frame + 1 + 9
    language = geometry.language
    embeds = torch.zeros(1, prompt, 64)
    model = small.language_model
    whole = counted(lambda: model(inputs_embeds=embeds, logits_to_keep=1))
    # PyTorch computes the masked half of attention, too; the count leaves it out.
    masked = 2 * language.hidden_size * language.num_hidden_layers * prompt * (prompt - 1) / 2 / 1e12
    # Some versions of transformers make the rotary table with a product that PyTorch counts, under 0.01 %.
    assert ours.prefill == pytest.approx(whole - masked, rel=1e-4)

    cache = model(inputs_embeds=embeds, logits_to_keep=1).past_key_values
    one = torch.zeros(1, 1, 64)
    steps = [counted(lambda: model(inputs_embeds=one, past_key_values=cache)) for _ in range(3)]
    assert ours.generate == pytest.approx(sum(steps), rel=1e-4)


def test_only_what_comes_after_the_compressor_shrinks() -> None:
    full, tenth = (full_flops(GEOMETRY, Workload(retention_ratio=r)) for r in (1.0, 0.1))
    assert (tenth.vision_tower, tenth.projector) == (full.vision_tower, full.projector)
    assert full.compression == 0 < tenth.compression
    assert tenth.prefill < 0.1 * full.prefill
    assert tenth.generate < full.generate
    assert tenth.total == pytest.approx(sum(vars(tenth).values()))


def test_the_spatial_ratio_is_what_the_temporal_step_looks_at() -> None:
    work = Workload(retention_ratio=0.1)
    few, many = (full_flops(GEOMETRY, replace(work, spatial_ratio=r)).compression for r in (0.2, 0.8))
    assert many - few == pytest.approx((0.8**2 - 0.2**2) * N**2 * 3584 / 1e12)
    assert (
        full_flops(GEOMETRY, work).compression
        == full_flops(GEOMETRY, replace(work, spatial_ratio=0.55)).compression
    )
