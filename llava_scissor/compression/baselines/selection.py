"""What the peer methods share: exact budgets, highest scores, and building a result from who stays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from llava_scissor.compression.configured import Configured
from llava_scissor.compression.engines.tiled.similarity import directions
from llava_scissor.compression.positions import keep_positions
from llava_scissor.compression.protocol import (
    CompressionResult,
    Identity,
    Needs,
    TowerState,
    check_tokens,
    check_tower,
    summarize,
)
from llava_scissor.config import PeerConfig
from llava_scissor.config.visual_budget import budget

P = TypeVar("P", bound=PeerConfig)


class Peer(Configured[P], ABC):
    """Base of the methods behind the projector that keep exactly `budget(retention_ratio, N)` tokens.

    Attributes:
        needs: what the method looks at besides the tokens.
    """

    needs: ClassVar[Needs] = Needs()

    def __call__(self, tokens: Float[Tensor, "f p d"], tower: TowerState | None = None) -> CompressionResult:
        """Compress one video.

        Args:
            tokens: (F, P, D), any floating dtype and device; not modified.
            tower: what `needs` names; the rest is ignored.

        Raises:
            InputError: tokens of another shape; something that is needed is not there; from methods that compare
                tokens, also if one contains NaN or infinity.
        """
        check_tokens(tokens)
        tower = check_tower(tokens, self, tower)
        count = budget(self.config.retention_ratio, tokens.shape[0] * tokens.shape[1])
        result = self._choose(tokens, count, tower)
        return keep_positions(result) if self.config.positions == "original" else result

    @abstractmethod
    def _choose(self, tokens: Tensor, count: int, tower: TowerState) -> CompressionResult:
        """Keep exactly `count` tokens (F, P, D), at most all; `tower` has what is needed."""


class ExactBudget(Peer[P]):
    """Base of the peers that compare tokens. If the budget is all tokens, they stay as they are."""

    def _choose(self, tokens: Tensor, count: int, tower: TowerState) -> CompressionResult:
        unit = directions(tokens).unit
        keeps_all = count == tokens.shape[0] * tokens.shape[1]
        return Identity()(tokens) if keeps_all else self._keep(tokens, unit, count, tower)

    @abstractmethod
    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        """Keep exactly `count` tokens (F, P, D), fewer than there are.

        `unit` has them at unit length in float32, zero ones at zero; `tower` has what is needed.
        """


def select(tokens: Float[Tensor, "f p d"], kept: Int64[Tensor, " k"]) -> CompressionResult:
    """Keep the tokens of the given ascending indices into frame-major order and drop all others."""
    flat = tokens.flatten(0, 1)
    assignment = torch.full((flat.shape[0],), -1, device=tokens.device)
    assignment[kept] = torch.arange(kept.numel(), device=tokens.device)
    return summarize(tokens, flat[kept], assignment, assignment)


class Survivors:
    """The tokens that are kept, and which of the others are merged into each; starts with none.

    Attributes:
        flat: all tokens (N, D).
        is_free: which of them are neither kept nor merged (N,).
    """

    def __init__(self, tokens: Float[Tensor, "f p d"]) -> None:
        self.flat = tokens.flatten(0, 1)
        self.is_free = torch.ones_like(self.flat[:, 0], dtype=torch.bool)
        self._tokens = tokens
        self._owner = torch.full_like(self.is_free, -1, dtype=torch.int64)
        self._kept: list[tuple[Tensor, Tensor]] = []

    def add(self, kept: Tensor, values: Tensor | None = None, *merged: Int64[Tensor, "*m"]) -> None:
        """Keep tokens.

        Args:
            kept: their indices (K,).
            values: what they become (K, D); None for what they are.
            merged: indices of tokens that are merged into them, and for each of these the number of a kept one.
        """
        self._kept.append((kept, self.flat[kept] if values is None else values.to(self.flat.dtype)))
        self._owner[kept] = kept
        if merged:
            members, label = merged
            self._owner[members] = kept[label]
        self.is_free = self._owner < 0

    def result(self, is_sorted: bool = True) -> CompressionResult:
        """Return the kept tokens by index, or else in the order in which they were added."""
        kept, values = (torch.cat(parts) for parts in zip(*self._kept, strict=True))
        if is_sorted:
            kept, order = kept.sort()
            values = values[order]
        number = torch.full_like(self._owner, -1)
        number[kept] = torch.arange(len(kept), device=kept.device)
        component = number[self._owner].masked_fill(self.is_free, -1)
        return summarize(self._tokens, values, component, component)


def top(scores: Float[Tensor, " n"], count: int) -> Int64[Tensor, " k"]:
    """Return the ascending indices of the highest scores; of equal ones the lowest index first."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def top_per_frame(scores: Float[Tensor, "f p"], shares: Sequence[int]) -> Int64[Tensor, " k"]:
    """Return the ascending frame-major indices of the highest scores of each frame, as many as its share."""
    rank = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank < rank.new_tensor(shares)[:, None]).flatten().nonzero().flatten()


def distance(left: Float32[Tensor, "*b d"], right: Float32[Tensor, "*b d"]) -> Float32[Tensor, "*b"]:
    """Return 1 - cosine of unit vectors row by row: exactly 0 for equal ones, 1 where one is zero."""
    apart = (left - right).square().sum(-1) / 2
    return apart.masked_fill(~(left.any(-1) & right.any(-1)), 1.0)
