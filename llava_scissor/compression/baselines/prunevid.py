"""Average what stands still, and cluster the rest frame by frame."""

from __future__ import annotations

from itertools import groupby, pairwise

import torch
from jaxtyping import Float32
from torch import Tensor

from llava_scissor.compression.baselines.clustering import density_peaks
from llava_scissor.compression.baselines.selection import ExactBudget, Survivors
from llava_scissor.compression.baselines.windows import enough_groups, share_out, static_and_dynamic
from llava_scissor.compression.merging import mean_by_label
from llava_scissor.compression.protocol import CompressionResult, TowerState
from llava_scissor.config import PruneVidConfig


class PruneVid(ExactBudget[PruneVidConfig]):
    """Cut the video into windows; average static positions over a window; cluster static and dynamic positions.

    Ours, for an exact budget: the static positions of each window and the dynamic ones of each frame get shares in
    proportion to their number, and the static threshold rises if there are fewer of
    all of them than the budget.

    Its options are those of `PruneVidConfig`.

    Reference: PruneVid (arXiv 2412.16117), without its part inside the language model.
    """

    settings = PruneVidConfig

    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        survivors, frames = Survivors(tokens), tokens.float().mean(1)
        num_windows = max(1, int(self.config.window_ratio * len(frames)))
        _, label = density_peaks(frames, num_windows, self.config.num_neighbours)
        windows = [(*w, _steadiness(unit[slice(*w)])) for w in contiguous_windows(label.tolist())]
        groups = enough_groups(
            lambda tau: static_and_dynamic((start, stop, steady > tau) for start, stop, steady in windows),
            self.config.static_threshold,
            count,
        )
        for group, share in share_out(groups, count):
            rows = survivors.flat[group].float().mean(0)  # (n, D)
            centres, label = density_peaks(rows, share, self.config.num_neighbours)
            values = mean_by_label(rows, label, share)
            survivors.add(group[0, centres], values, group, label.expand_as(group))
        return survivors.result(is_sorted=False)


def _steadiness(unit: Float32[Tensor, "w p d"]) -> Float32[Tensor, " p"]:
    """Return the mean similarity of each position to itself in other frames; in a single frame none is steady."""
    num_frames = len(unit)
    if num_frames == 1:
        return unit.new_full((unit.shape[1],), -torch.inf)
    return (unit.sum(0).square().sum(-1) - num_frames) / (num_frames * (num_frames - 1))


def contiguous_windows(labels: list[int]) -> list[tuple[int, int]]:
    """Cut a sequence into one window for each label that has a run of two or more: its longest run.

    What lies between two windows goes to the longer one, to the left one if they are equally long.

    Returns:
        First frame and the frame behind the last of each window; one window if there is no such run.
    """
    runs, start = [], 0
    for label, run in groupby(labels):
        stop = start + len(list(run))
        runs.append((label, start, stop))
        start = stop
    longest = {}
    for label, start, stop in runs:
        if stop - start > max(1, longest.get(label, (0, 0))[1] - longest.get(label, (0, 0))[0]):
            longest[label] = (start, stop)
    kept = sorted(longest.values())
    inner = [
        right[0] if left[1] - left[0] >= right[1] - right[0] else left[1] for left, right in pairwise(kept)
    ]
    return list(pairwise([0, *inner, len(labels)]))
