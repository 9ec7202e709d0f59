"""The engine that looks at similarities a tile at a time, on any device, for videos of any length."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from llava_scissor.compression.engines.base import Components, Engine
from llava_scissor.compression.engines.tiled.graph import SimilarityGraph, single_linkage
from llava_scissor.compression.engines.tiled.heights import heights
from llava_scissor.compression.engines.tiled.nearest import nearest
from llava_scissor.compression.engines.tiled.similarity import directions, draw_sample
from llava_scissor.compression.engines.tiled.tiles import TokenSets


class TiledEngine(Engine[TokenSets]):
    """Multiplies tiles in a fast number format, and computes exactly only what that leaves open.

    docs/numerics.md shows why the result is that of the exact similarities.
    """

    name = "tiled"

    @classmethod
    def assert_supported(cls, device: torch.device) -> None:
        """Accept every device: a CPU and a CUDA GPU multiply in a fast format, others in float32."""

    def vertices(
        self, tokens: Float[Tensor, "b n d"], window: Int64[Tensor, "b n"] | None = None
    ) -> TokenSets:
        """Scale the tokens to unit length, and draw those that an approximate search looks at."""
        num_sets, size = tokens.shape[:2]
        sample = draw_sample(num_sets, size, self._sample_size(size), self.config.seed, tokens.device)
        return TokenSets(directions(tokens), sample, self.config.block_size, window)

    def components(self, vertices: TokenSets, tau: float) -> Components:
        """Find components; see `Engine`."""
        return SimilarityGraph(vertices, tau).components()

    def single_linkage(
        self, vertices: TokenSets, count: int, low: float, high: float
    ) -> tuple[Components, float]:
        """Join vertices until `count` components are left; see `Engine`."""
        return single_linkage(vertices, count, low, high)

    def heights(
        self, vertices: TokenSets, groups: Int64[Tensor, "g k"], size: int
    ) -> tuple[Float64[np.ndarray, " a"], Float64[np.ndarray, " t"]]:
        """Return the similarities at which single linkage joins parts, approximately; see `Engine`."""
        return heights(vertices, groups, size)

    def nearest(
        self,
        vertices: TokenSets,
        representatives: Float[Tensor, "k d"],
        component: Int64[Tensor, " v"],
    ) -> Int64[Tensor, " v"]:
        """Find the most similar representatives; see `Engine`."""
        tokens = vertices.directions.flatten()
        return nearest(tokens, directions(representatives), component, self.config.block_size)

    def _sample_size(self, size: int) -> int | None:
        """Return S = ceil(ln(n) / epsilon^2) or as given; None for the exact search."""
        if self.config.epsilon is not None:
            return max(1, math.ceil(math.log(size) / self.config.epsilon**2))
        return self.config.sample_size
