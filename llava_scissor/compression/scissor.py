"""The two-step compressor: spatial step, temporal step, merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from llava_scissor.compression.merging import assign_to_nearest, mean_by_label, merge
from llava_scissor.compression.operating_point import meet_budget
from llava_scissor.compression.protocol import CompressionResult, Identity, budget, check_tokens, summarize
from llava_scissor.compression.similarity import directions
from llava_scissor.compression.steps import Video
from llava_scissor.config import ScissorConfig


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

    Cost: F * P^2 * D + K_s^2 * D + F * P * K * D multiply-adds; memory for blocks of similarities. A retention
    ratio repeats the temporal step a few times to find its tau.

    Reference: LLaVA-Scissor (arXiv 2506.21862), section 3.
    """
    config = config or ScissorConfig()
    check_tokens(tokens)
    flat = tokens.flatten(0, 1)  # (N, D)
    video = Video(tokens, directions(tokens), config)
    tau = config.effective_tau
    if config.retention_ratio is None:
        assert tau is not None
        steps = video.two_steps(tau)
    else:
        target = budget(config.retention_ratio, len(flat))
        if tau is None and target == len(flat):
            return replace(Identity()(tokens), tau=1.0)
        steps = meet_budget(video, target, tau)

    component = steps.temporal.labels[steps.spatial.components.labels]
    representatives = mean_by_label(
        steps.spatial.representatives, steps.temporal.labels, steps.temporal.count
    )
    assignment = assign_to_nearest(video.flat_directions, directions(representatives), component)
    merged = merge(flat, assignment, representatives).to(tokens.dtype)
    return summarize(tokens, merged, component, assignment, steps.spatial.components.count, steps.tau)


def compress_batch(
    videos: Sequence[Float[Tensor, "_f _p _d"]], config: ScissorConfig | None = None
) -> list[CompressionResult]:
    """Compress several videos, which may differ in length.

    Args:
        videos: the visual tokens of each.
        config: as for `compress`.

    Returns:
        For each video exactly what `compress` returns for it alone.
    """
    return [compress(tokens, config) for tokens in videos]


@dataclass(frozen=True)
class Scissor:
    """Semantic Connected Components as a `Compressor`.

    Attributes:
        config: operating point, approximation and seed.
    """

    config: ScissorConfig

    def __call__(self, tokens: Float[Tensor, "f p d"]) -> CompressionResult:
        """Compress one video; see `compress`."""
        return compress(tokens, self.config)
