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

    All engines return the same result, whatever the block size: docs/numerics.md defines similarities to the last
    bit, and equal ones are ordered by the index of their vertices.

    `V` is the form in which an engine keeps B sets of n tokens: the vertices of B similarity graphs, numbered set
    after set.
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
            window: number of the window that each token is in; tokens of two windows have no edge. None: one.

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

        Equal edges are ordered by their lower, then their higher vertex. Edges between windows come last.

        Args:
            vertices: the vertices.
            count: at least the number of sets, at most that of the vertices.
            low: lower end of the range in which the last join is expected, below 1.
            high: its upper end. A wrong range costs time; `high` decides the order of the components, too.

        Returns:
            The components, numbered by the index of their vertex with most edges above `high`, and the similarity
            at which the last two were joined. It is `high` if nothing is joined, or if the edges above `high`
            leave exactly `count` components.
        """

    @abstractmethod
    def heights(
        self, vertices: V, groups: Int64[Tensor, "g k"], size: int
    ) -> tuple[Float64[np.ndarray, " a"], Float64[np.ndarray, " t"]]:
        """Return the similarities at which single linkage joins parts, approximately.

        Args:
            vertices: B sets.
            groups: the k sets that form each of g groups.
            size: how many tokens of each set are looked at: those in its middle.

        Returns:
            Those inside the first set of each group, g * (size - 1), and those inside whole groups,
            g * (k * size - 1), in any order. Their small error does not depend on the number format.
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
            component: the component of each vertex. A vertex of zero norm, which is similar to nothing, stays with
                the representative of its component. So does every vertex if all representatives have zero norm.
                No other vertex goes to a representative of zero norm.
        """
