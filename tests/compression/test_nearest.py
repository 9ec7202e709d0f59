from __future__ import annotations

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from llava_scissor.compression.engines.tiled.nearest import nearest as assign_to_nearest
from llava_scissor.compression.engines.tiled.similarity import directions
from tests.compression.draws import ROUNDING, videos
from tests.reference import two_steps


@given(videos(), videos(), st.integers(1, 60))
def test_the_nearest_is_that_of_the_oracle(video, others, entries):
    tokens = video.flatten(0, 1)
    width = min(tokens.shape[1], others.shape[2])
    tokens, representatives = tokens[:, :width].contiguous(), others.flatten(0, 1)[:, :width].contiguous()
    own = torch.arange(len(tokens)) % len(representatives)
    expected, margin = two_steps.nearest(tokens.numpy(), representatives.numpy(), own.tolist())
    assume(margin > ROUNDING)
    found = assign_to_nearest(directions(tokens), directions(representatives), own, entries)
    assert found.tolist() == expected


def test_of_equally_near_ones_the_first_wins():
    tokens, representatives = torch.tensor([[1.0, 1.0], [0.0, 2.0]]), torch.eye(2)[[1, 0, 1, 0]]
    assert nearest(tokens, representatives, [3, 3]) == [0, 0]


def test_zero_tokens_keep_their_own_and_zero_representatives_attract_nobody():
    tokens = torch.tensor([[0.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    representatives = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert nearest(tokens, representatives, [2, 0, 1]) == [2, 1, 1]


def test_where_all_representatives_are_zero_every_token_keeps_its_own():
    assert nearest(torch.tensor([[1.0], [-1.0], [0.0]]), torch.zeros(2, 1), [1, 1, 0]) == [1, 1, 0]


def nearest(tokens, representatives, own):
    return assign_to_nearest(directions(tokens), directions(representatives), torch.tensor(own)).tolist()
