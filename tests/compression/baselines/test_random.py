from __future__ import annotations

import torch

from llava_scissor.compression.baselines.random import RandomTokens
from tests.compression.baselines.budgets import SIZE
from tests.compression.draws import draw, gaussian


def test_the_seed_and_nothing_else_decides():
    video = draw(gaussian, 4, SIZE, 4)
    first = RandomTokens(retention_ratio=0.5, seed=1)(video)
    state = torch.get_rng_state()
    assert torch.equal(RandomTokens(retention_ratio=0.5, seed=1)(video + 1).assignment, first.assignment)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(RandomTokens(retention_ratio=0.5, seed=2)(video).assignment, first.assignment)


def test_every_token_is_kept_equally_often():
    video, num_trials = torch.ones(3, 4, 1), 2000
    draws = (RandomTokens(retention_ratio=0.25, seed=seed) for seed in range(num_trials))
    counts = sum((random(video).assignment >= 0).int() for random in draws)
    # Each count is binomial with mean 500 and deviation 19.
    assert (counts - num_trials / 4).abs().max() < 4 * 19
