from __future__ import annotations

import itertools

import pytest
import torch

from llava_scissor.bench.features import video_like_tokens
from llava_scissor.compression import compress
from llava_scissor.config import ScissorConfig
from llava_scissor.errors import InputError

CPU = torch.device("cpu")


def test_shape_dtype_and_seed() -> None:
    tokens = video_like_tokens(3, 49, 16, torch.bfloat16, CPU, seed=1)
    assert tokens.shape == (3, 49, 16)
    assert tokens.dtype == torch.bfloat16
    assert torch.equal(tokens, video_like_tokens(3, 49, 16, torch.bfloat16, CPU, seed=1))
    assert not torch.equal(tokens, video_like_tokens(3, 49, 16, torch.bfloat16, CPU, seed=2))


def test_the_count_rises_gradually_with_the_threshold() -> None:
    """Otherwise no threshold would keep about as many tokens as a budget does."""
    tokens = video_like_tokens(4, 196, 256, torch.float32, CPU)
    taus = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995]
    shares = [compress(tokens, ScissorConfig(tau=tau)).retention_ratio for tau in taus]
    assert shares == sorted(shares)
    assert shares[0] < 0.15
    assert shares[-1] > 0.8
    steps = [later - earlier for earlier, later in itertools.pairwise(shares)]
    assert max(steps) < 0.3


def test_a_number_that_is_no_square_is_refused() -> None:
    with pytest.raises(InputError, match="square number, got 50"):
        video_like_tokens(1, 50, 8, torch.float32, CPU)
