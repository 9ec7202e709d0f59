"""The compressor on a GPU: one stream, and a host that waits once at a threshold, at the end.

No tensor has a shape that only the device knows: there is room for as many components as tokens, and for a fixed
number of open pairs. Whether that was enough is told together with the number of tokens. Where it was not, the
general way does it again. A budget asks once for each threshold that it tries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from llava_scissor.compression import precision
from llava_scissor.compression.fixed_graph import Checks, FixedGraph, error_of_products, similarity_of
from llava_scissor.compression.linkage import merge_strongest
from llava_scissor.compression.merging import mean_by_label, merge
from llava_scissor.compression.operating_point import find_threshold
from llava_scissor.compression.places import at_places, numbers_in_order
from llava_scissor.compression.protocol import CompressionResult, summarize
from llava_scissor.compression.similarity import Directions
from llava_scissor.compression.token_sets import TokenSets, default_block_size
from llava_scissor.config import ScissorConfig
from llava_scissor.config.visual_budget import budget

SLACK = 2.0**-22
"""More than the rounding of a difference of similarities."""


def fits(tokens: Float[Tensor, "f p d"], config: ScissorConfig) -> bool:
    """Tell whether a video is one for `compress_on_device`: on a GPU, exact search, all pairs in one block."""
    num_tokens, ratio = tokens.shape[0] * tokens.shape[1], config.retention_ratio
    is_exact = config.epsilon is None and config.sample_size is None
    is_less = ratio is None or config.tau is not None or budget(ratio, num_tokens) < num_tokens
    is_small = num_tokens**2 <= (config.block_size or default_block_size(tokens.device))
    return is_exact and is_less and is_small and precision.has_fixed_lists(tokens.device)


def compress_on_device(tokens: Float[Tensor, "f p d"], config: ScissorConfig) -> CompressionResult:
    """Compress a video that `fits`, with the result of the general way.

    Raises:
        MisfitError: it turned out not to fit.
    """
    num_tokens, per_frame = tokens.shape[0] * tokens.shape[1], tokens.shape[1]
    index = torch.arange(num_tokens, device=tokens.device)
    window = index // (per_frame * (config.temporal_window or len(tokens)))
    steps = _at_operating_point(_Video(tokens, config, window))
    temporal = steps.graph.components()
    component = temporal[steps.spatial]
    if config.positions == "original":
        number = numbers_in_order(component, num_tokens)
        temporal, component = number[temporal], number[component]
    representatives = mean_by_label(steps.means, temporal, num_tokens)
    is_kept = index <= component.max()
    assignment = steps.nearest(representatives, is_kept)
    num_spatial, num_kept = steps.checks.fetch(steps.spatial.max() + 1, component.max() + 1)
    merged = merge(tokens.flatten(0, 1), assignment, representatives[:num_kept]).to(tokens.dtype)
    result = summarize(tokens, merged, component, assignment, num_spatial, steps.tau)
    return at_places(result) if config.positions == "original" else result


def _at_operating_point(video: _Video) -> _Steps:
    """Run the two steps at the operating point."""
    ratio, tau = video.config.retention_ratio, video.config.effective_tau
    if ratio is None:
        assert tau is not None
        return video.at(tau)
    target = budget(ratio, video.num_tokens)
    steps, depth = find_threshold(video, target, tau, video.at)
    steps.merge_strongest(max(0, steps.count - target), depth)
    return steps


@dataclass(frozen=True, eq=False)
class _Video:
    """The tokens of a video, ready for the two steps at any threshold.

    Attributes:
        tokens: as given.
        config: for the block size.
        window: that each token is in (N,).
    """

    tokens: Float[Tensor, "f p d"]
    config: ScissorConfig
    window: Int64[Tensor, " n"]

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.tokens.shape[0] * self.tokens.shape[1]

    @cached_property
    def unit(self) -> tuple[Directions, Checks]:
        """The tokens as unit vectors, if they can be scaled to unit length as they are."""
        checks = Checks()
        return checks.unit_vectors(self.tokens), checks

    def part(self, frames: slice) -> _Video:
        """Return some of the frames as a video of their own."""
        window = self.window.view(self.tokens.shape[:2])[frames]
        return _Video(self.tokens[frames], self.config, window.flatten())

    def count(self, tau: float) -> int:
        """Return the number of tokens that both steps leave."""
        return self.at(tau).count

    def at(self, tau: float, low: float = 0.0, before: _Steps | None = None) -> _Steps:
        """Run both steps at a threshold; nothing is taken over from another, nor done for a lower one."""
        del low, before
        unit, checks = self.unit[0], Checks(self.unit[1])
        spatial = FixedGraph(unit, tau, checks).components()
        means = mean_by_label(unit.tokens, spatial, self.num_tokens)
        index = torch.arange(self.num_tokens, device=spatial.device)
        is_used = index <= spatial.max()
        window = (-1 - index).scatter_(0, spatial, self.window)
        graph = FixedGraph(checks.unit_vectors(means[None], is_used), tau, checks, window)
        return _Steps(self, tau, spatial, means, window, graph, checks)


@dataclass(frozen=True, eq=False)
class _Steps:
    """Both steps at one threshold.

    Attributes:
        video: the tokens.
        tau: the threshold.
        spatial: component of each token (N,).
        means: the representatives of these, then zeros (N, D).
        window: that each of these is in, and others for the zeros (N,).
        graph: the graph of `means`.
        checks: what has to hold.
    """

    video: _Video
    tau: float
    spatial: Int64[Tensor, " n"]
    means: Float32[Tensor, "n d"]
    window: Int64[Tensor, " n"]
    graph: FixedGraph
    checks: Checks

    @cached_property
    def counts(self) -> list[int]:
        """Number of tokens that the spatial step leaves, and that both leave."""
        num_spatial = self.spatial.max() + 1
        labels = self.graph.labels.flatten()
        index = torch.arange(len(labels), device=labels.device)
        return self.checks.fetch(num_spatial, ((labels == index) & (index < num_spatial)).sum())

    @property
    def count(self) -> int:
        """Number of tokens that both steps leave."""
        return self.counts[1]

    def merge_strongest(self, num_merges: int, depth: float) -> None:
        """Merge components of the temporal step; see there."""
        size, config = self.counts[0], self.video.config
        unit, labels = self.graph.unit, self.graph.labels[0]
        parts = {name: getattr(unit, name)[:, :size] for name in ("norm", "coarse", "is_zero")}
        window = self.window[None, :size] if config.temporal_window else None
        sets = TokenSets(replace(unit, tokens=self.means[:size], **parts), None, config.block_size, window)
        labels[:size] = merge_strongest(sets, labels[:size], num_merges, self.tau, depth)

    def nearest(
        self, representatives: Float32[Tensor, "n d"], is_kept: Bool[Tensor, " n"]
    ) -> Int64[Tensor, " n"]:
        """Find the most similar of the kept representatives for each token."""
        tokens, to = self.video.unit[0], self.checks.unit_vectors(representatives[None], is_kept)
        values = precision.product(tokens.coarse.flatten(0, -2)[None], to.coarse)[0].float()
        best, nearest = values.masked_fill_(~is_kept, -torch.inf).max(dim=1)
        enough = best.clamp(max=1) - (2 * error_of_products(tokens, to) + SLACK)
        is_candidate = values >= enough[:, None]
        is_contested = is_candidate.sum(dim=1) > 1
        row, column, is_any = self.checks.listed(is_candidate & is_contested[:, None])
        similarity = similarity_of(tokens, row, to, column).where(is_any, -torch.inf)
        best.fill_(-torch.inf).scatter_reduce_(0, row, similarity, "amax")
        column = column.where(similarity == best[row], len(is_kept))
        first = torch.full_like(nearest, len(is_kept)).scatter_reduce_(0, row, column, "amin")
        return first.where(is_contested, nearest)
