"""Similarity graphs in tensors whose shapes do not depend on what is found, so that the host need not wait.

There is room for as many components as vertices, and for a fixed number of open pairs. Whether that was enough is
one of the facts that are fetched with the result.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from llava_scissor.compression import precision
from llava_scissor.compression.components import number_by_leader
from llava_scissor.compression.indexing import fetch
from llava_scissor.compression.similarity import Directions, normalised, similarity_of_rows

MANY_OPEN = 2**12
"""Room for open pairs."""

ROUNDS = 5
"""How often components are united with a lower neighbour."""

FEW_ROUNDS = 3
"""The same for the few edges that are found last."""

JUMPS = 6
"""A neighbour's neighbour, and so on, is followed over up to 2^6 steps at a time."""


class MisfitError(Exception):
    """A token's length is unusual, or the room did not suffice."""


class Checks(list[Tensor]):
    """What has to hold for a result to be right, as far as only the device knows."""

    def fetch(self, *numbers: Tensor) -> list[int]:
        """Bring some numbers to the host.

        Raises:
            MisfitError: something does not hold.
        """
        is_right, *values = fetch(torch.stack(self).all(), *numbers)
        if not is_right:
            raise MisfitError
        return values

    def unit_vectors(
        self, tokens: Float[Tensor, "b n d"], is_used: Bool[Tensor, " n"] | None = None
    ) -> Directions:
        """Scale tokens to unit length, as is; those that are not used may be zeros."""
        unit, is_plain = normalised(tokens)
        self.append((is_plain if is_used is None else is_plain | ~is_used).all())
        return unit

    def listed(self, mask: Bool[Tensor, "r c"]) -> tuple[Int64[Tensor, " s"], Int64[Tensor, " s"], Tensor]:
        """Return row and column of each place that a mask shows, and what of the list is one; the rest is 0."""
        places = mask.flatten().nonzero_static(size=MANY_OPEN, fill_value=0)[:, 0]
        num_places = mask.sum()
        self.append(num_places <= MANY_OPEN)
        is_any = torch.arange(MANY_OPEN, device=mask.device) < num_places
        return places // mask.shape[1], places % mask.shape[1], is_any


class FixedGraph:
    """The graphs of some sets of vectors with an edge wherever similarity > tau.

    Attributes:
        unit: the vectors (b, n).
        labels: a vertex of its component for each vertex (b, n).
    """

    def __init__(self, unit: Directions, tau: float, checks: Checks, window: Tensor | None = None):
        """Find the components.

        Args:
            unit: the vectors.
            tau: threshold.
            checks: where it is added what has to hold.
            window: of each vector of a single set (n,); no edge leaves one. None for several sets.
        """
        self.unit, self._tau, self._checks = unit, tau, checks
        values = precision.product(unit.coarse, unit.coarse).float()
        low, high = precision.bracket(tau, error_of_products(unit, unit), values.dtype)
        edges, is_open = (values > high).triu_(1), (values >= low).triu_(1)
        if window is not None:
            is_pair = window == window[:, None]
            edges, is_open = edges & is_pair, is_open & is_pair
        self._is_open = is_open ^ edges
        self._is_edge = edges | edges.mT
        self.labels = torch.arange(unit.norm.numel(), device=unit.device).view(unit.norm.shape)
        self._join()
        self._join_along(*self._settle(self._is_open & self._differs()))

    def components(self) -> Int64[Tensor, " v"]:
        """Number the components, or a coarser partition in `labels`, as `order_components` does."""
        labels, degree, is_open = self.labels.flatten(), self._is_edge.sum(-1), self._is_open
        most = degree + is_open.sum(-1) + is_open.sum(-2)
        highest = torch.zeros_like(labels).scatter_reduce_(0, labels, degree.flatten(), "amax")
        could_lead = most >= highest[self.labels]
        self._settle(is_open & (could_lead[..., None] | could_lead[:, None]))
        return number_by_leader(labels, self._is_edge.sum(-1).flatten())

    def _differs(self) -> Bool[Tensor, "b n n"]:
        """Tell which pairs are in different components."""
        return self.labels[..., None] != self.labels[:, None]

    def _join(self) -> None:
        """Unite the components that edges connect."""
        num_vertices = self.labels.numel()
        short = torch.int16 if num_vertices < 2**15 else torch.int32
        for _ in range(ROUNDS):
            lowest = self.labels.to(short)[:, None].where(self._is_edge, num_vertices).amin(-1)
            self._hook(self.labels.flatten(), lowest.flatten().long())
        self._checks.append(~(self._is_edge & self._differs()).any())

    def _join_along(self, u: Int64[Tensor, " s"], v: Int64[Tensor, " s"]) -> None:
        """Unite components along a few listed edges."""
        for _ in range(FEW_ROUNDS):
            ends, others = self.labels.flatten()[u], self.labels.flatten()[v]
            self._hook(torch.cat([ends, others]), torch.cat([others, ends]))
        self._checks.append((self.labels.flatten()[u] == self.labels.flatten()[v]).all())

    def _hook(self, component: Int64[Tensor, " e"], neighbour: Int64[Tensor, " e"]) -> None:
        """Unite each component with the lowest of its neighbours that is lower, and that with its own."""
        parent = torch.arange(self.labels.numel(), device=self.labels.device)
        parent.scatter_reduce_(0, component, neighbour, "amin")
        for _ in range(JUMPS):
            parent = parent[parent]
        self.labels = parent[self.labels]

    def _settle(self, matters: Bool[Tensor, "b n n"]) -> tuple[Int64[Tensor, " s"], Int64[Tensor, " s"]]:
        """Compute the open pairs that matter, and list the edges among them, with self loops behind."""
        size = matters.shape[-1]
        u, column, is_any = self._checks.listed(matters.flatten(0, 1))
        v = u - u % size + column
        is_above = is_any & (similarity_of(self.unit, u, self.unit, v).double() > self._tau)
        for place in (u * size + column, v * size + u % size):  # behind the list, places of no pair
            self._is_edge.view(-1).scatter_(0, place, is_above)
        self._is_open = self._is_open ^ matters
        return u, v.where(is_above, u)


def error_of_products(left: Directions, right: Directions) -> float:
    """Bound the error of the products of two sets of vectors."""
    dtype, width = left.coarse.dtype, left.coarse.shape[-1]
    shortened = precision.matrix_error(dtype)
    return precision.product_error(
        dtype, width, left.coarse_error + shortened, right.coarse_error + shortened
    )


def similarity_of(left: Directions, u: Tensor, right: Directions, v: Tensor) -> Tensor:
    """Return the similarity of some pairs."""
    return similarity_of_rows(left.units_at(u), right.units_at(v))
