"""Meeting an exact number of tokens without a search.

The spatial step runs at an estimated threshold. The temporal step then joins its representatives along their
strongest edges until the wanted number is left; the similarity at which the last two are joined is its threshold.
If the two thresholds are far apart, both steps run once more, with a threshold in between. docs/algorithm.md has
the definition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from llava_scissor.compression.steps import SpatialStep, TwoSteps, Video


@dataclass(frozen=True)
class Tuning:
    """How a budget is met.

    Attributes:
        below: a second pass runs if the temporal threshold is further than this below the spatial one,
        above: or further than this above it, where hardly enough representatives were left;
        share: but not if the two are within this share of 1 - tau.
        nearer: where the second pass runs, as a share of the way from the temporal threshold to the spatial one.
        higher: where the spatial step runs if it leaves fewer representatives than tokens are wanted, as shares of
            the way from its threshold to the limit, tried in turn.
        margin: how many times the wanted number of tokens the estimate aims at.
        spare: how many times the wanted number the spatial step should leave at least, besides one for each frame.
        expected_below: lower end of the range in which the temporal threshold is expected: how far below the
            spatial one, as a share of 1 - tau. A wrong range costs time.
        expected_above: its upper end, in the same way. It decides the order of the components, too.
        frames_each: number of frames for each pair of frames that the estimate looks at,
        fewest_pairs: but at least so many pairs,
        most_pairs: and at most so many.
        band: number of tokens that the estimate looks at in the middle of each frame, at most.
    """

    below: float = 0.08
    above: float = 0.03
    share: float = 0.35
    nearer: float = 0.25
    higher: tuple[float, ...] = (0.25, 0.5, 1.0)
    margin: float = 1.05
    spare: float = 1.2
    expected_below: float = 0.6
    expected_above: float = 0.5
    frames_each: int = 8
    fewest_pairs: int = 2
    most_pairs: int = 8
    band: int = 256


TUNING = Tuning()


def meet_budget(video: Video, target: int, limit: float | None = None) -> TwoSteps:
    """Run the two steps so that exactly `target` components remain, or fewer where `limit` leads to fewer.

    Args:
        video: N tokens.
        target: 1..N.
        limit: a threshold that is not exceeded; None for no limit.

    Returns:
        The steps of the only pass, or of the one of two whose thresholds are nearer to each other.
    """
    if limit is None:
        limit, spatial = 1.0, video.spatial_step(estimate_tau(video, target))
    else:
        steps = video.two_steps(limit)
        if steps.temporal.count <= target:
            return steps
        spatial = steps.spatial
    tau = spatial.tau
    first = _meet_from(video, target, spatial, limit)
    largest = TUNING.above if first.tau > tau else TUNING.below
    if first.gap <= max(largest, TUNING.share * (1 - tau)) or first.spatial.tau != tau:
        return first
    between = first.tau + TUNING.nearer * (tau - first.tau)
    second = _meet_from(video, target, video.spatial_step(between), limit)
    return second if second.gap < first.gap and second.tau <= limit else first


def _meet_from(video: Video, target: int, spatial: SpatialStep, limit: float) -> TwoSteps:
    """Run the temporal step after a spatial step, or after one at a higher threshold if that leaves too few."""
    tau = spatial.tau
    for share in TUNING.higher:
        if spatial.components.count >= target:
            break
        spatial = video.spatial_step((1 - share) * tau + share * limit)
    room = 1 - spatial.tau + 2.0**-10
    low, high = (
        spatial.tau - TUNING.expected_below * room,
        min(limit, spatial.tau + TUNING.expected_above * room),
    )
    return TwoSteps(spatial, *video.engine.single_linkage(spatial.vertices, target, low, high))


def estimate_tau(video: Video, target: int) -> float:
    """Estimate the threshold at which both steps leave `target` tokens, rather too high than too low.

    Some pairs of successive frames stand for the video. Where one frame has c_1 components and two have c_2, the w
    frames of a temporal window have about c_1 + (w - 1)(c_2 - c_1): each frame adds what the one before does not
    have. Single linkage gives c_1 and c_2 at every threshold at once.
    """
    num_frames, num_tokens, _ = video.tokens.shape
    window = int((video.window == video.window[0]).sum())
    num_pairs = min(max(num_frames // TUNING.frames_each, TUNING.fewest_pairs), TUNING.most_pairs)
    first = ((torch.arange(num_pairs) + 0.5) * num_frames / num_pairs - 1).round().long()
    pairs = (first[:, None] + torch.arange(2)).clamp(0, num_frames - 1).to(video.tokens.device)
    size = min(num_tokens, TUNING.band)
    alone, together = video.engine.heights(video.frames, pairs, size)
    tau = np.append(np.sort(together), 1.0)
    one = 1 + np.searchsorted(np.sort(alone), tau, side="right") / num_pairs
    two = 1 + np.searchsorted(np.sort(together), tau, side="right") / num_pairs
    of_window = one + (window - 1) * np.maximum(two - one, 0)
    scale = num_frames * num_tokens / size
    num_kept, num_spatial = scale * of_window / window, scale * one
    is_enough = (num_kept >= TUNING.margin * target) & (num_spatial >= TUNING.spare * target + num_frames)
    return float(tau[is_enough.argmax()]) if is_enough.any() else 1.0
