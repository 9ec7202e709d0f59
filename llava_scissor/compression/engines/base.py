"""What an engine is: everything in the method that compares tokens with each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from llava_scissor.config import ScissorConfig


@dataclass(frozen=True, eq=False)
class Components:
    """A partition of vertices.

    Attributes:
        labels: component of each vertex, 0..count-1 (V,).
        count: number of components.
    """

    labels: Int64[Tensor, " v"]
    count: int


V = TypeVar("V")


class Engine(ABC, Generic[V]):
    """Finds components, single-linkage clusters and nearest tokens.

    Every engine returns the same result to the last bit, on every device and with every block size: similarities
    are defined in docs/numerics.md, and equal ones are ordered by the index of their vertices.

    `V` is what an engine makes of B sets of n tokens: the vertices of B similarity graphs, numbered set after set.
    """

    name: ClassVar[str]

    def __init__(self, config: ScissorConfig) -> None:
        """Take the settings of the approximate search, the seed and the block size."""
        self.config = config

    @classmethod
    @abstractmethod
    def assert_supported(cls, device: torch.device) -> None:
        """Raise ConfigError if the engine does not run on a device."""

    @abstractmethod
    def vertices(self, tokens: Float[Tensor, "b n d"], window: Int64[Tensor, "b n"] | None = None) -> V:
        """Prepare B sets of n tokens.

        Args:
            tokens: any floating dtype; not modified.
            window: a number for each token; tokens with different ones have no edge. None: all may have.

        Raises:
            InputError: a token is not finite in float32.
        """

    @abstractmethod
    def components(self, vertices: V, tau: float) -> Components:
        """Find the components of the graphs with an edge wherever similarity > tau.

        Only edges with a sampled end count, where the search is approximate.

        Returns:
            Components of all B * n vertices, numbered by the index of their vertex of highest degree (ties: lowest
            index), so that those of one set are next to each other and sets keep their order.
        """

    @abstractmethod
    def single_linkage(self, vertices: V, count: int, low: float, high: float) -> tuple[Components, float]:
        """Join the vertices along the strongest edges until `count` components are left.

        Equal weights are ordered by the edge's lower, then higher vertex. Edges between windows come last.

        Args:
            vertices: the vertices.
            count: at least the number of sets, at most that of the vertices.
            low: a similarity below that at which the last two are expected to be joined, below 1.
            high: one above that. Bad guesses cost time only.

        Returns:
            The components, numbered by the index of the vertex with most edges above `high`, and the similarity
            at which the last two were joined; `high` if that was above it.
        """

    @abstractmethod
    def heights(
        self, vertices: V, groups: Int64[Tensor, "g k"], size: int
    ) -> tuple[Float64[np.ndarray, " a"], Float64[np.ndarray, " t"]]:
        """Return about how similar the parts are that single linkage joins.

        Args:
            vertices: B sets.
            groups: the k sets that form each of g groups.
            size: how many tokens of each set are looked at: those in its middle.

        Returns:
            g * (size - 1) similarities inside the first set of each group, and g * (k * size - 1) inside whole
            groups, in any order, up to a small error that is the same on every device.
        """

    @abstractmethod
    def nearest(
        self,
        vertices: V,
        representatives: Float[Tensor, "k d"],
        component: Int64[Tensor, " v"],
    ) -> Int64[Tensor, " v"]:
        """Find the representative that is most similar to each vertex (ties: lowest index).

        Args:
            vertices: the vertices, of all sets.
            representatives: K tokens.
            component: the component of each vertex, of which its representative is the mean. A vertex of zero
                norm, which is similar to nothing, goes to its own, and so does every vertex if all representatives
                have zero norm; no other vertex goes to a representative of zero norm.
        """
