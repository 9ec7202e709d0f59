"""The two-step compressor: spatial step, temporal step, merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from llava_scissor.compression.budget import meet_budget
from llava_scissor.compression.configured import Configured
from llava_scissor.compression.engines import Components
from llava_scissor.compression.merging import mean_by_label, merge, unscaled
from llava_scissor.compression.positions import numbers_in_order, with_positions
from llava_scissor.compression.protocol import CompressionResult, Identity, check_tokens, summarize
from llava_scissor.compression.steps import TwoSteps, Video
from llava_scissor.config import ScissorConfig
from llava_scissor.config.visual_budget import budget


def compress(tokens: Float[Tensor, "f p d"], config: ScissorConfig | None = None) -> CompressionResult:
    """Replace the visual tokens of a video by one token for each semantic connected component.

    1. Spatial step: inside every frame, tokens connected by cosine similarity > tau become one representative.
    2. Temporal step: the representatives of all frames are connected and averaged in the same way.
    3. Merge: every original token joins the representative it is most similar to.

    Args:
        tokens: (F, P, D), any floating dtype and device; not modified.
        config: threshold, retention ratio or both; approximate search; seed. tau = 0.9 by default.

    Returns:
        K tokens (K, D) in the input's dtype and on its device. With a retention ratio alone, K is exactly
        `max(1, floor(ratio * F * P))`; with both, at most that. A ratio that keeps all tokens keeps them as
        they are.

    Raises:
        InputError: tokens of another shape, or with NaN or infinity.

    Cost: F * P^2 * D + K_s^2 * D / 2 + F * P * K * D multiply-adds; memory for blocks of similarities.

    Reference: LLaVA-Scissor (arXiv 2506.21862), section 3.
    """
    config = config or ScissorConfig()
    check_tokens(tokens)
    video = Video.of(tokens, config)
    if config.retention_ratio is None:
        assert config.effective_tau is not None
        steps = video.two_steps(config.effective_tau)
    elif config.tau is None and budget(config.retention_ratio, video.num_tokens) == video.num_tokens:
        everything = replace(Identity()(tokens), tau=1.0, tau_spatial=1.0)
        return with_positions(everything) if config.positions == "original" else everything
    else:
        steps = meet_budget(video, budget(config.retention_ratio, video.num_tokens), config.tau)
    return _merge(video, steps, config.positions)


def compress_batch(
    videos: Sequence[Float[Tensor, "_f _p _d"]], config: ScissorConfig | None = None
) -> list[CompressionResult]:
    """Compress several videos, which may differ in length, one after the other.

    Args:
        videos: the visual tokens of each.
        config: as for `compress`.

    Returns:
        For each video what `compress` returns for it.
    """
    return [compress(tokens, config) for tokens in videos]


def _merge(video: Video, steps: TwoSteps, positions: str) -> CompressionResult:
    """Merge the original tokens into the representatives of the temporal step."""
    spatial, temporal = steps.spatial.components, steps.temporal
    if positions == "original":
        number = numbers_in_order(temporal.labels[spatial.labels], temporal.count)
        temporal = Components(number[temporal.labels], temporal.count)
    representatives = mean_by_label(steps.spatial.means, temporal.labels, temporal.count)
    component = temporal.labels[spatial.labels]
    assignment = video.engine.nearest(video.frames, representatives, component)
    tokens = merge(video.scaled, assignment, representatives)
    tokens = unscaled(tokens, video.frames.shift, video.tokens.dtype)
    taus = steps.tau, steps.spatial.tau
    result = summarize(video.tokens, tokens, component, assignment, spatial.count, *taus)
    return with_positions(result) if positions == "original" else result


class Scissor(Configured[ScissorConfig]):
    """Semantic Connected Components as a `Compressor`, from settings or from options; see `ScissorConfig`."""

    settings = ScissorConfig

    def __call__(self, tokens: Float[Tensor, "f p d"]) -> CompressionResult:
        """Compress one video; see `compress`."""
        return compress(tokens, self.config)
