"""Keep once what does not change, in windows that save the most; of the rest what is attended to."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from llava_scissor.compression.baselines.clustering import density_peaks
from llava_scissor.compression.baselines.selection import ExactBudget, Survivors, distance, top
from llava_scissor.compression.baselines.windows import Group, enough_groups, share_out, static_and_dynamic
from llava_scissor.compression.merging import sum_by_label
from llava_scissor.compression.protocol import CompressionResult, Needs, TowerState
from llava_scissor.config import HoliTomConfig


class HoliTom(ExactBudget[HoliTomConfig]):
    """Choose the windows in which static positions save the most tokens; then reduce static and dynamic positions.

    Static positions are averaged over their window and merged around peaks of density. Of the dynamic positions
    of a frame those with the most attention stay as they are. A share of contextual ones is merged around peaks.

    Ours, for an exact budget: shares in proportion to the number of positions. The static threshold rises until
    there are enough of them.

    Its options are those of `HoliTomConfig`.

    Reference: HoliTom (arXiv 2505.21334), without its part inside the language model.
    """

    settings = HoliTomConfig

    needs: ClassVar[Needs] = Needs(attention=True)

    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        assert tower.attention is not None
        survivors, attention = Survivors(tokens), tower.attention.flatten()
        similarity = 1 - distance(unit[:-1], unit[1:])  # (F - 1, P)
        groups = enough_groups(
            partial(_groups, similarity, tokens.shape[1]), self.config.effective_static_threshold, count
        )
        for group, share in share_out(groups, count):
            is_dynamic = len(group) == 1
            num_chosen = round(share * (1 - self.config.merged_ratio)) if is_dynamic else 0
            chosen = group[0, top(attention[group[0]], num_chosen)]
            survivors.add(chosen)
            if share > num_chosen:
                rest = group[:, survivors.is_free[group[0]]]
                rows = survivors.flat[rest].float().mean(0)  # (n, D)
                centres, label = density_peaks(rows, share - num_chosen, self.config.num_neighbours)
                values = blend(rows, centres, label, self.config.centre_weight)
                survivors.add(rest[0, centres], values, rest, label.expand_as(rest))
        return survivors.result(is_sorted=False)


def blend(
    rows: Float32[Tensor, "n d"], centres: Int64[Tensor, " c"], label: Int64[Tensor, " n"], beta: float
) -> Float32[Tensor, "c d"]:
    """Return beta * centre + (1 - beta) * mean of its other members; a centre without others as it is."""
    total, num_members = sum_by_label(rows, label, len(centres))
    others = (total - rows[centres]) / (num_members - 1).clamp(min=1)
    return rows[centres].where(num_members == 1, beta * rows[centres] + (1 - beta) * others)


def _groups(similarity: Float32[Tensor, "t p"], size: int, tau: float) -> list[Group]:
    is_alike = similarity > tau
    nothing = torch.zeros(size, dtype=torch.bool, device=similarity.device)
    return static_and_dynamic(
        (start, stop, is_alike[start : stop - 1].all(0) if stop - start > 1 else nothing)
        for start, stop in best_windows(is_alike)
    )


def best_windows(is_alike: Bool[Tensor, "t p"]) -> list[tuple[int, int]]:
    """Cut a video so that keeping the static positions of each window only once saves the most tokens.

    Args:
        is_alike: for each frame but the last which positions are as in the next frame.

    Returns:
        First frame and the frame behind the last of each window; of equal cuts those with shorter last windows.
    """
    num_frames = len(is_alike) + 1
    saved = [[0] * num_frames for _ in range(num_frames)]
    for first in range(num_frames - 1):
        num_static = is_alike[first:].int().cummin(0).values.sum(1).tolist()
        saved[first][first + 1 :] = [n * (i + 1) for i, n in enumerate(num_static)]
    best, begin = [0], []
    for last in range(num_frames):
        value, first = max(
            ((best[j] + saved[j][last], j) for j in range(last, -1, -1)), key=lambda option: option[0]
        )
        best.append(value)
        begin.append(first)
    windows, stop = [], num_frames
    while stop:
        windows.append((begin[stop - 1], stop))
        stop = begin[stop - 1]
    return windows[::-1]
