"""The spatial and the temporal step at a given threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from llava_scissor.compression.components import Components, SimilarityGraph, connected_components
from llava_scissor.compression.indexing import PatchedRows, count_labels
from llava_scissor.compression.merging import mean_by_label
from llava_scissor.compression.similarity import Directions, directions, draw_sample
from llava_scissor.compression.token_sets import TokenSets
from llava_scissor.config import ScissorConfig


@dataclass(frozen=True, eq=False)
class SpatialStep:
    """What the spatial step found.

    Attributes:
        components: of all N tokens, frame by frame.
        representatives: their means (K_s, D).
        sets: the representatives as the one set that the temporal step looks at.
    """

    components: Components
    representatives: Float32[Tensor, "k d"] | PatchedRows
    sets: TokenSets


@dataclass(frozen=True, eq=False)
class Changes:
    """What became of the representatives of one threshold at another.

    Attributes:
        number: of each earlier one among the later ones; -1 for those that are gone.
        is_new: which of the later ones were not there before.
    """

    number: Int64[Tensor, " k"]
    is_new: Bool[Tensor, " m"]


@dataclass(frozen=True, eq=False)
class TwoSteps:
    """Both steps.

    Attributes:
        spatial: the spatial step.
        temporal: components of its representatives.
        tau: the threshold of both.
    """

    spatial: SpatialStep
    temporal: Components
    tau: float


@dataclass(frozen=True, eq=False)
class Video:
    """The tokens of one video, ready for the two steps at any threshold.

    Attributes:
        tokens: as given (F, P, D).
        directions: the same as unit vectors.
        config: for the size of the approximate search, the seed and the block size.
    """

    tokens: Float[Tensor, "f p d"]
    directions: Directions
    config: ScissorConfig

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.directions.is_zero.numel()

    def is_exact(self, size: int) -> bool:
        """Tell whether all pairs of a set of some size are looked at."""
        sample_size = self._sample_size(size)
        return sample_size is None or sample_size >= size

    @cached_property
    def frames(self) -> TokenSets:
        """One set of tokens for each frame."""
        return self._sets(self.directions)

    @cached_property
    def window(self) -> Int64[Tensor, " f"]:
        """The window of the temporal step that each frame is in."""
        frame = torch.arange(len(self.tokens), device=self.tokens.device)
        return frame // (self.config.temporal_window or len(frame))

    @property
    def scaled(self) -> Float[Tensor, "n d"]:
        """All tokens as one list, scaled by a power of two where their sums would leave float32's range."""
        if not self.directions.is_scaled:
            return self.directions.tokens[:]
        flat, shift = self.tokens.flatten(0, 1), self.directions.shift
        return flat.double().mul_(2.0**-shift).float() if shift else flat

    def unscale(self, tokens: Float32[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """Return tokens made of scaled ones in the video's scale and dtype."""
        shift = self.directions.shift
        return (tokens.double().mul_(2.0**shift) if shift else tokens).to(self.tokens.dtype)

    def part(self, frames: slice) -> Video:
        """Return some of the frames as a video of their own."""
        sets = self.frames.part(frames)
        part = Video(self.tokens[frames], sets.directions, self.config)
        vars(part).update(frames=sets, window=self.window[frames])
        return part

    def two_steps(self, tau: float) -> TwoSteps:
        """Run both steps at one threshold."""
        return self.temporal_step(self.spatial_step(connected_components(self.frames, tau)), tau)

    def temporal_step(self, spatial: SpatialStep, tau: float) -> TwoSteps:
        """Find the components of the representatives."""
        return TwoSteps(spatial, connected_components(spatial.sets, tau), tau)

    def count(self, tau: float) -> int:
        """Return the number of tokens that both steps leave."""
        spatial = self.spatial_step(SimilarityGraph(self.frames, tau).unordered())
        return SimilarityGraph(spatial.sets, tau).count

    def spatial_step(self, components: Components) -> SpatialStep:
        """Average the components of the frames to representatives, the vertices of the temporal step."""
        means = mean_by_label(self.scaled, components.labels, components.count)
        return self._step(components, means, directions(means[None]))

    def spatial_step_after(self, before: SpatialStep, components: Components) -> tuple[SpatialStep, Changes]:
        """Do the same with less work, since components that are those of another threshold keep their means.

        Args:
            before: the spatial step at another threshold; its directions are not scaled.
            components: at this one.
        """
        of_token = before.components.labels
        size = count_labels(of_token, before.components.count)
        number = components.labels.new_empty(components.count)
        number[components.labels] = of_token  # of any token: a component of more than one is larger than each
        is_new = count_labels(components.labels, components.count) != size[number]
        tokens = is_new[components.labels].nonzero()[:, 0]
        label = (is_new.cumsum(0) - 1)[components.labels[tokens]]
        unit = directions(mean_by_label(self.scaled[tokens], label, int(is_new.sum()))[None])
        if unit.is_scaled:
            return self.spatial_step(components), Changes(torch.full_like(size, -1), torch.ones_like(is_new))
        stays = torch.full_like(size, -1)
        stays[number[~is_new]] = (~is_new).nonzero()[:, 0]
        unit = before.sets.directions.updated(number, is_new, unit)
        return self._step(components, unit.tokens, unit), Changes(stays, is_new)

    def _step(self, components: Components, means: Tensor | PatchedRows, unit: Directions) -> SpatialStep:
        return SpatialStep(components, means, self._sets(unit, self._windows(components)))

    def _windows(self, components: Components) -> Int64[Tensor, "1 k"] | None:
        """Return the window of each component of the frames."""
        if self.config.temporal_window is None:
            return None
        window = torch.empty(1, components.count, dtype=torch.int64, device=components.labels.device)
        window[0, components.labels] = self.window.repeat_interleave(self.tokens.shape[1])
        return window

    def _sets(self, unit: Directions, window: Tensor | None = None) -> TokenSets:
        num_sets, size = unit.is_zero.shape
        sample = draw_sample(num_sets, size, self._sample_size(size), self.config.seed, unit.device)
        keeps_products = self.config.retention_ratio is not None  # a search looks at them again
        return TokenSets(unit, sample, self.config.block_size, window, keeps_products)

    def _sample_size(self, size: int) -> int | None:
        """Return S = ceil(ln(n) / epsilon^2) or as given; None for the exact search."""
        if self.config.epsilon is not None:
            return max(1, math.ceil(math.log(size) / self.config.epsilon**2))
        return self.config.sample_size
