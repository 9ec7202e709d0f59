from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from llava_scissor.compression.engines.tiled import nearest as room
from llava_scissor.compression.engines.tiled import screening, tuning
from llava_scissor.compression.engines.tiled.nearest import nearest as assign_to_nearest
from llava_scissor.compression.engines.tiled.similarity import directions, similarity_of_all
from llava_scissor.compression.merging import mean_by_label
from tests.compression.draws import ROUNDING, draw, gaussian, videos
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


@pytest.mark.parametrize("width", [2, 3, 40])
@pytest.mark.parametrize("rank", [0, 1, 20])
@pytest.mark.parametrize("block_size", [None, 500])
def test_what_is_out_of_reach_of_the_own_component_is_not_the_nearest(monkeypatch, width, rank, block_size):
    """Whether the own representative is the nearest, the next or any other."""
    tokens, representatives = draw(gaussian, 1, 300, width, 1)[0], draw(gaussian, 1, 50, width, 2)[0]
    tokens[100:] += 3 * representatives[torch.arange(200) % 40]
    unit, to = directions(tokens), directions(representatives)
    exact = similarity_of_all(unit.unit[None], to.unit[None])[0]
    ranking = exact.argsort(dim=1, descending=True, stable=True)
    own = ranking[:, rank].contiguous()
    plain = assign_to_nearest(unit, to, own)
    assert plain.tolist() == ranking[:, 0].tolist()
    monkeypatch.setattr(tuning, "CPU", replace(tuning.CPU, few=1, tokens_each=10, many_similarities=0))
    looked_at = []
    product = screening.product
    monkeypatch.setattr(
        screening, "product", lambda left, right: looked_at.append(right.shape[1]) or product(left, right)
    )
    assert torch.equal(assign_to_nearest(unit, to, own, block_size), plain)
    assert rank or min(looked_at) < len(representatives)


def test_tokens_with_nothing_else_in_reach_are_compared_with_nothing(monkeypatch):
    centers = torch.eye(40)[:8].repeat_interleave(30, 0)
    tokens = centers + 0.01 * draw(gaussian, 1, 240, 40)[0]
    labels = torch.arange(8).repeat_interleave(30)
    unit, to = directions(tokens), directions(mean_by_label(tokens, labels, 8))
    monkeypatch.setattr(tuning, "CPU", replace(tuning.CPU, tokens_each=50, many_similarities=0))
    monkeypatch.setattr(room, "_decide", None)
    assert torch.equal(assign_to_nearest(unit, to, labels), labels)


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
