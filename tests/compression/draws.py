"""Token sets that the compressor is tried on."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from llava_scissor.compression import ScissorConfig
from llava_scissor.compression.engines import Components
from llava_scissor.compression.engines.tiled.graph import SimilarityGraph
from llava_scissor.compression.engines.tiled.similarity import directions
from llava_scissor.compression.engines.tiled.tiles import TokenSets
from llava_scissor.compression.steps import Video


def constant(frames: int, size: int, width: int, draw: torch.Generator) -> Tensor:
    return torch.randn(width, generator=draw).expand(frames, size, width).clone()


def gaussian(frames: int, size: int, width: int, draw: torch.Generator) -> Tensor:
    return torch.randn(frames, size, width, generator=draw)


def smooth(frames: int, size: int, width: int, draw: torch.Generator) -> Tensor:
    """A random walk around an offset: neighbours are alike, distant tokens are not."""
    walk = torch.randn(frames * size, width, generator=draw).cumsum(0)
    return (0.3 * walk + 3 * torch.randn(width, generator=draw)).view(frames, size, width)


def orthogonal(frames: int, size: int, width: int, draw: torch.Generator) -> Tensor:
    return torch.eye(frames * size).view(frames, size, -1)


def chain(frames: int, size: int, width: int, draw: torch.Generator) -> Tensor:
    """Every token is linked to the next one only; the ends are far apart."""
    return on_circle(torch.arange(frames * size) * (3 / (frames * size))).view(frames, size, 2)


def ties(frames: int, size: int, width: int, draw: torch.Generator) -> Tensor:
    """Few distinct tokens, zero ones and opposites among them."""
    return torch.randint(-1, 2, (frames, size, 3), generator=draw).float()


def duplicates(frames: int, size: int, width: int, draw: torch.Generator) -> Tensor:
    few = torch.randn(5, width, generator=draw)
    return few[torch.randint(0, 5, (frames, size), generator=draw)]


def zeros(frames: int, size: int, width: int, draw: torch.Generator) -> Tensor:
    return torch.zeros(frames, size, width)


def with_zeros(frames: int, size: int, width: int, draw: torch.Generator) -> Tensor:
    tokens = gaussian(frames, size, width, draw)
    tokens[torch.rand(frames, size, generator=draw) < 0.3] = 0
    return tokens


KINDS = [constant, gaussian, smooth, orthogonal, chain, ties, duplicates, zeros, with_zeros]


def draw(kind, frames: int, size: int, width: int, seed: int = 0) -> Tensor:
    """Tokens (F, P, D) of a kind; some kinds have a width of their own."""
    return kind(frames, size, width, torch.Generator().manual_seed(seed))


@st.composite
def videos(draw_value, max_frames: int = 4, max_size: int = 8, max_width: int = 6, kinds=KINDS) -> Tensor:
    """Small videos of every kind."""
    shape = [draw_value(st.integers(1, top)) for top in (max_frames, max_size, max_width)]
    return draw(draw_value(st.sampled_from(kinds)), *shape, seed=draw_value(st.integers(0, 2**16)))


ROUNDING = 1e-5
"""Far above the error of a float32 similarity of the widths drawn here, about 1e-6: decisions that the float64
oracle makes with this margin must come out the same."""


def on_circle(angles) -> Tensor:
    """Unit vectors in the plane: the similarity of two is the cosine of the difference of their angles."""
    angles = torch.as_tensor(angles, dtype=torch.float64)
    return torch.stack([angles.cos(), angles.sin()], dim=-1).float()


def one_set(tokens: Tensor, sample: list[int] | None = None) -> TokenSets:
    """Tokens (n, D) as the only set."""
    return TokenSets(directions(tokens[None]), None if sample is None else torch.tensor([sorted(sample)]))


def connected_components(sets: TokenSets, tau: float) -> Components:
    """Components of the graphs with an edge wherever similarity > tau."""
    return SimilarityGraph(sets, tau).components()


def similarity(sets: TokenSets, u: Tensor, v: Tensor) -> Tensor:
    """The defined similarity of some pairs of vertices."""
    values, error = sets.similarity(u, v)
    assert error == 0
    return values


def video_of(tokens: Tensor, **settings) -> Video:
    """A video with some settings."""
    return Video.of(tokens, ScissorConfig(**settings))


def partition(labels: Tensor) -> set[frozenset[int]]:
    """The sets of indices with equal labels."""
    parts: dict[int, set[int]] = {}
    for index, label in enumerate(labels.tolist()):
        parts.setdefault(label, set()).add(index)
    return {frozenset(part) for part in parts.values()}


def middle_of_largest_gap(values: Tensor, low: float = -1.0, high: float = 1.0) -> tuple[float, float]:
    """A threshold as far as possible from all values in a range, and that distance."""
    inside = values[(values > low) & (values < high)].double().unique()
    edges = torch.cat([inside.new_tensor([low]), inside, inside.new_tensor([high])])
    gaps = edges.diff()
    widest = int(gaps.argmax())
    half = float(gaps[widest]) / 2
    return float(edges[widest]) + half, half


def ratio_of(count: int, total: int) -> float:
    """A retention ratio that keeps exactly `count` of `total` tokens."""
    return 1.0 if count == total else (count + 0.5) / total
