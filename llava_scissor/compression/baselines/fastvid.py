"""Keep what is attended to in each frame, and merge the rest of a segment into peaks of density."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional

from llava_scissor.compression.baselines.clustering import peak_scores, segments
from llava_scissor.compression.baselines.selection import ExactBudget, Survivors, top, top_per_frame
from llava_scissor.compression.baselines.shares import even_shares, weighted_shares
from llava_scissor.compression.baselines.tome import best_partners
from llava_scissor.compression.merging import sum_by_label
from llava_scissor.compression.protocol import CompressionResult, Needs, TowerState
from llava_scissor.config import FastVIDConfig


class FastVID(ExactBudget[FastVIDConfig]):
    """Keep in each frame its salient tokens; merge the rest of a segment around centres in its anchor frames.

    Segments end where frames differ. Their anchors are the last frame and every few before it; each anchor merges
    the rest of the whole segment into centres of its own. A token is counted in its most similar centre.

    Ours: an even share of the budget for each frame, and centres that do not fit into anchors become salient
    tokens. The authors use the tower's pooling head. LLaVA-OneVision does not store its weights, so the attention
    received stands in for its saliency, and the mean of a frame's tokens for its output.

    Its options are those of `FastVIDConfig`.

    Reference: FastVID (arXiv 2503.11187).
    """

    settings = FastVIDConfig

    needs: ClassVar[Needs] = Needs(attention=True)

    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        num_frames, size, _ = tokens.shape
        assert tower.attention is not None
        frames = tokens.mean(1, dtype=torch.float32)
        parts = segments(
            functional.cosine_similarity(frames[:-1], frames[1:]),
            self.config.num_segments,
            self.config.segment_threshold,
        )
        num_salient, num_centres = self._shares(parts, even_shares(count, num_frames), size)
        survivors, unit = Survivors(tokens), unit.flatten(0, 1)
        flat = survivors.flat
        survivors.add(top_per_frame(tower.attention, num_salient))
        rest = survivors.is_free.nonzero().flatten()
        nearest, frame = unit.new_full((len(flat),), -torch.inf), rest // size
        for start, stop in parts:
            members = rest[(frame >= start) & (frame < stop)]
            for anchor in (f for f in range(start, stop) if num_centres[f]):
                own = rest[frame == anchor]
                score, _ = peak_scores(flat[own].float(), self.config.num_neighbours)
                centres = own[top(score, num_centres[anchor])]
                similarity, label = best_partners(unit[members], unit[centres])
                index = torch.searchsorted(members, centres)
                label[index] = torch.arange(len(centres), device=label.device)
                similarity[index] = torch.inf
                is_nearer = similarity > nearest[members]
                values = self._blend(flat[members], flat[centres], label)
                survivors.add(centres, values, members[is_nearer], label[is_nearer])
                nearest[members] = torch.maximum(nearest[members], similarity)
        return survivors.result()

    def _shares(self, parts: list[tuple[int, int]], shares: list[int], size: int) -> tuple[list, list]:
        """Return salient tokens and centres of every frame."""
        context = [int(self.config.merged_ratio * share) for share in shares]
        salient = [share - merged for share, merged in zip(shares, context, strict=True)]
        centres = [0] * len(shares)
        for start, stop in parts:
            anchors = range(stop - 1, start - 1, -self.config.anchor_step)
            wanted = sum(context[start:stop])
            for i, anchor in enumerate(anchors):
                share = wanted // len(anchors) + (i < wanted % len(anchors))
                centres[anchor] = min(share, size - salient[anchor])
            room = [size - salient[f] - centres[f] for f in range(start, stop)]
            spare = weighted_shares(wanted - sum(centres[start:stop]), room, room)
            salient[start:stop] = [n + more for n, more in zip(salient[start:stop], spare, strict=True)]
        return salient, centres

    def _blend(self, rows: Tensor, centres: Tensor, label: Tensor) -> Float32[Tensor, "c d"]:
        total, num_members = sum_by_label(rows, label, len(centres))
        weight = (1 / (num_members + 1)).clamp(min=self.config.centre_weight)
        return weight * centres.float() + (1 - weight) * total / num_members
