from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from llava_scissor.compression import assignment
from llava_scissor.compression.assignment import assign_to_nearest
from llava_scissor.compression.merging import mean_by_label
from llava_scissor.compression.similarity import directions, similarity_of_all
from tests.compression.draws import ROUNDING, constant, draw, duplicates, gaussian, smooth, ties, videos
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
def test_what_is_out_of_reach_of_the_own_component_is_not_the_nearest(monkeypatch, width, rank):
    """Whether the own representative is the nearest, the next or any other."""
    tokens, representatives = draw(gaussian, 1, 300, width, 1)[0], draw(gaussian, 1, 50, width, 2)[0]
    tokens[100:] += 3 * representatives[torch.arange(200) % 40]
    unit, to = directions(tokens), directions(representatives)
    ranking = similarity_of_all(unit.unit[None], to.unit[None])[0].argsort(
        dim=1, descending=True, stable=True
    )
    reaches = []
    reach_of = assignment._Reach.of
    monkeypatch.setattr(assignment, "FEW", 1)  # always look
    monkeypatch.setattr(assignment, "TOKENS_EACH", 10)
    monkeypatch.setattr(assignment._Reach, "of", lambda *case: reaches.append(reach_of(*case)) or reaches[-1])
    found = assign_to_nearest(unit, to, ranking[:, rank].contiguous(), block_size=500)
    assert found.tolist() == ranking[:, 0].tolist()
    assert rank or any(len(within) < len(representatives) for _, within in reaches)


def test_tokens_with_nothing_else_in_reach_are_compared_with_nothing(monkeypatch):
    centers = torch.eye(40)[:8].repeat_interleave(30, 0)
    tokens = centers + 0.01 * draw(gaussian, 1, 240, 40)[0]
    labels = torch.arange(8).repeat_interleave(30)
    unit, to = directions(tokens), directions(mean_by_label(tokens, labels, 8))
    monkeypatch.setattr(assignment, "TOKENS_EACH", 50)
    monkeypatch.setattr(assignment, "_nearest", None)
    assert torch.equal(assign_to_nearest(unit, to, labels), labels)


def means_and_components(kind, distance, sizes, width=40):
    """Tokens near those of a kind, of which some are alone in their component, and the components' means."""
    draw_number = torch.Generator().manual_seed(3)
    tokens = draw(kind, 1, 30, width)[0].repeat(3, 1)
    tokens += distance * torch.randn(tokens.shape, generator=draw_number)
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(len(tokens), generator=draw_number)]
    return tokens, mean_by_label(tokens, labels, len(sizes)), labels


@pytest.mark.parametrize("kind", [gaussian, smooth, constant, duplicates, ties])
@pytest.mark.parametrize("distance", [0.0, 1e-8, 1e-7, 1e-6, 1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("sizes", [[1] * 90, [1] * 40 + [2] * 20 + [10]])
def test_a_token_alone_is_its_own_nearest_unless_another_is_as_near(monkeypatch, kind, distance, sizes):
    tokens, means, labels = means_and_components(kind, distance, sizes)
    unit, to = directions(tokens), directions(means)
    plain = assign_to_nearest(unit, to, labels)
    monkeypatch.setattr(assignment, "MANY_ALONE", 0)
    assert torch.equal(assign_to_nearest(unit, to, labels), plain)
    rest = assignment._Groups(unit, to, labels, 2**22).unsettled()
    settled = torch.ones_like(labels, dtype=torch.bool).index_fill_(0, rest, False)
    assert not settled[torch.bincount(labels)[labels] > 1].any()
    if kind is gaussian and distance == 1:
        assert int(settled.sum()) == sum(size == 1 for size in sizes)
    if not distance and sizes == [1] * 90:
        assert not settled.any()


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
