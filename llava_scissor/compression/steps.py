"""The spatial and the temporal step at a given threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float, Float32
from torch import Tensor

from llava_scissor.compression.components import Components, connected_components
from llava_scissor.compression.merging import mean_by_label
from llava_scissor.compression.similarity import Directions, TokenSets, directions, draw_sample
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
    representatives: Float32[Tensor, "k d"]
    sets: TokenSets


@dataclass(frozen=True, eq=False)
class TwoSteps:
    """Both steps.

    Attributes:
        spatial: the spatial step.
        temporal: components of its representatives.
        tau: the threshold that led to them.
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
        config: for the size of the approximate search and the seed.
    """

    tokens: Float[Tensor, "f p d"]
    directions: Directions
    config: ScissorConfig

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.directions.is_zero.numel()

    @property
    def flat_directions(self) -> Directions:
        """All tokens as one list (N, D)."""
        frames = self.directions
        return Directions(frames.unit.flatten(0, 1), frames.is_zero.flatten(), frames.has_zero)

    @cached_property
    def frames(self) -> TokenSets:
        """One set of tokens for each frame."""
        return self._sets(self.directions)

    def two_steps(self, tau: float) -> TwoSteps:
        """Run both steps at one threshold."""
        spatial = self.spatial_step(connected_components(self.frames, tau))
        return TwoSteps(spatial, connected_components(spatial.sets, tau), tau)

    def spatial_step(self, components: Components) -> SpatialStep:
        """Average the components of the frames to representatives, the vertices of the temporal step."""
        means = mean_by_label(self.tokens.flatten(0, 1), components.labels, components.count)
        unit = directions(means)
        one_set = Directions(unit.unit[None], unit.is_zero[None], unit.has_zero)
        return SpatialStep(components, means, self._sets(one_set))

    def _sets(self, unit: Directions) -> TokenSets:
        num_sets, size = unit.is_zero.shape
        sample_size = self._sample_size(size)
        return TokenSets(unit, draw_sample(num_sets, size, sample_size, self.config.seed, unit.unit.device))

    def _sample_size(self, size: int) -> int | None:
        """Return S = ceil(ln(n) / epsilon^2) or as given; None for the exact search."""
        if self.config.epsilon is not None:
            return max(1, math.ceil(math.log(size) / self.config.epsilon**2))
        return self.config.sample_size
