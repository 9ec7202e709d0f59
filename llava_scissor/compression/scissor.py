"""The two-step compressor: spatial step, temporal step, merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from llava_scissor.compression.assignment import assign_to_nearest
from llava_scissor.compression.configured import Configured
from llava_scissor.compression.merging import mean_by_label, merge
from llava_scissor.compression.operating_point import meet_budget
from llava_scissor.compression.positions import numbers_in_order, with_positions
from llava_scissor.compression.protocol import CompressionResult, Identity, check_tokens, summarize
from llava_scissor.compression.similarity import directions
from llava_scissor.compression.steps import TwoSteps, Video
from llava_scissor.config import ScissorConfig
from llava_scissor.config.visual_budget import budget


def compress(tokens: Float[Tensor, "f p d"], config: ScissorConfig | None = None) -> CompressionResult:
    """Replace the visual tokens of a video by one token for each semantic connected component.

    1. Spatial step: inside every frame, tokens linked by cosine similarity > tau become one representative.
    2. Temporal step: the representatives of all frames are linked and averaged in the same way.
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

    Cost: F * P^2 * D + K_s^2 * D / 2 + F * P * K * D multiply-adds; memory for blocks of similarities. A retention
    ratio repeats the temporal step once or twice to find its tau.

    Reference: LLaVA-Scissor (arXiv 2506.21862), section 3.
    """
    config = config or ScissorConfig()
    check_tokens(tokens)
    video = _video(tokens, config)
    return _keeps_all(video) or _merge(video, _steps(video))


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


def _video(tokens: Tensor, config: ScissorConfig) -> Video:
    return Video(tokens, directions(tokens), config)


def _keeps_all(video: Video) -> CompressionResult | None:
    """Return the video as it is if that is what the budget asks for."""
    ratio, tau = video.config.retention_ratio, video.config.tau
    if ratio is None or tau is not None or budget(ratio, video.num_tokens) < video.num_tokens:
        return None
    everything = replace(Identity()(video.tokens), tau=1.0)
    return with_positions(everything) if video.config.positions == "original" else everything


def _steps(video: Video) -> TwoSteps:
    """Run the two steps at the operating point."""
    ratio, tau = video.config.retention_ratio, video.config.effective_tau
    if ratio is not None:
        return meet_budget(video, budget(ratio, video.num_tokens), tau)
    assert tau is not None
    return video.two_steps(tau)


def _merge(video: Video, steps: TwoSteps) -> CompressionResult:
    """Merge the original tokens into the representatives of the temporal step."""
    of_spatial, count = steps.temporal.labels, steps.temporal.count
    component = of_spatial[steps.spatial.components.labels]
    keeps_places = video.config.positions == "original"
    if keeps_places:
        number = numbers_in_order(component, count)
        of_spatial, component = number[of_spatial], number[component]
    representatives = mean_by_label(steps.spatial.representatives, of_spatial, count)
    unit, block_size = directions(representatives), video.config.block_size
    assignment = assign_to_nearest(video.directions.flatten(), unit, component, block_size)
    merged = video.unscale(merge(video.scaled, assignment, representatives))
    result = summarize(video.tokens, merged, component, assignment, steps.spatial.components.count, steps.tau)
    return with_positions(result) if keeps_places else result


class Scissor(Configured[ScissorConfig]):
    """Semantic Connected Components as a `Compressor`, from settings or from options; see `ScissorConfig`."""

    settings = ScissorConfig

    def __call__(self, tokens: Float[Tensor, "f p d"]) -> CompressionResult:
        """Compress one video; see `compress`."""
        return compress(tokens, self.config)
