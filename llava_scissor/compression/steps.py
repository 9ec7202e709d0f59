"""The spatial and the temporal step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from llava_scissor.compression.engines import ENGINES, Components, Engine
from llava_scissor.compression.merging import mean_by_label, scaled
from llava_scissor.config import ScissorConfig


@dataclass(frozen=True, eq=False)
class SpatialStep:
    """What the spatial step found.

    Attributes:
        components: of all N tokens, frame by frame.
        means: the representative of each component (K_s, D), in the scale of `Video.scaled`.
        vertices: the representatives, as the engine's vertices of one graph.
        tau: threshold.
    """

    components: Components
    means: Float32[Tensor, "k d"]
    vertices: Any
    tau: float


@dataclass(frozen=True, eq=False)
class TwoSteps:
    """What both steps found.

    Attributes:
        spatial: the spatial step.
        temporal: components of its representatives.
        tau: threshold of the temporal step.
    """

    spatial: SpatialStep
    temporal: Components
    tau: float

    @property
    def gap(self) -> float:
        """Distance between the thresholds of the two steps."""
        return abs(self.tau - self.spatial.tau)


@dataclass(frozen=True, eq=False)
class Video:
    """The tokens of one video, ready for the two steps at any threshold.

    Attributes:
        tokens: as given (F, P, D).
        engine: finds components and nearest tokens.
        frames: the tokens, as the engine's vertices of one graph for each frame.
        window: number of the temporal window that each frame is in (F,).
    """

    tokens: Float[Tensor, "f p d"]
    engine: Engine[Any]
    frames: Any
    window: Int64[Tensor, " f"]

    @classmethod
    def of(cls, tokens: Float[Tensor, "f p d"], config: ScissorConfig) -> Video:
        """Prepare a video.

        Raises:
            InputError: a token is not finite in float32.
        """
        engine = ENGINES["tiled"](config)
        engine.assert_supported(tokens.device)
        frame = torch.arange(len(tokens), device=tokens.device)
        return cls(tokens, engine, engine.vertices(tokens), frame // (config.temporal_window or len(tokens)))

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.tokens.shape[0] * self.tokens.shape[1]

    @cached_property
    def scaled(self) -> Float[Tensor, "n d"]:
        """All tokens as one list, scaled by a power of two where their sums would leave float32's range."""
        return scaled(self.tokens, self.frames.shift)

    def spatial_step(self, tau: float) -> SpatialStep:
        """Find the components of the frames, and average each to a representative."""
        components = self.engine.components(self.frames, tau)
        means = mean_by_label(self.scaled, components.labels, components.count)
        window = components.labels.new_empty(components.count)
        window[components.labels] = self.window.repeat_interleave(self.tokens.shape[1])
        is_one = int(self.window[-1]) == int(self.window[0])
        vertices = self.engine.vertices(means[None], None if is_one else window[None])
        return SpatialStep(components, means, vertices, tau)

    def two_steps(self, tau: float) -> TwoSteps:
        """Run both steps at one threshold."""
        spatial = self.spatial_step(tau)
        return TwoSteps(spatial, self.engine.components(spatial.vertices, tau), tau)
