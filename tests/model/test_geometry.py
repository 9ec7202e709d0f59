from __future__ import annotations

from transformers import Qwen2Config, SiglipVisionConfig

from llava_scissor.model import Geometry


def geometry(image_size: int, patch_size: int, pool_stride: int = 2) -> Geometry:
    vision = SiglipVisionConfig(image_size=image_size, patch_size=patch_size)
    return Geometry(
        "original", vision, Qwen2Config(max_position_embeddings=99), True, pool_stride=pool_stride
    )


def test_the_real_tower_has_27_patches_a_side_and_196_tokens_a_frame():
    real = geometry(384, 14)
    assert (real.image_size, real.patches_per_side, real.tokens_per_frame) == (384, 27, 196)


def test_sizes_follow_the_configuration():
    assert geometry(128, 8).tokens_per_frame == 64
    assert geometry(128, 8, pool_stride=3).tokens_per_frame == 36
    assert geometry(128, 8).context_length == 99
