"""Give new frames more tokens, and keep active ones at places that were not seen of late."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn import functional

from llava_scissor.compression.baselines.selection import ExactBudget, select, weighted_shares
from llava_scissor.compression.protocol import CompressionResult, TowerState


@dataclass(frozen=True)
class DynaTokLike(ExactBudget):
    """Share the budget by how new a frame is, and pick active, diverse tokens at places not picked of late.

    Named "like" because only what the abstract of DynaTok says was at hand: a moving average of the frames gives
    new ones more tokens; places are chosen by activation, diversely, and a memory of places discourages the same
    ones. All formulas and values below are ours. Its figures are not to be compared with published ones.

    Attributes:
        memory: share of the past in both moving averages.
        least: weight of a frame in which nothing is new, beside 1 for the newest.
        penalty: activation that a place picked in every frame so far loses, as a share of the range in the frame.
        use_diversity: whether a pick is weighed with its distance from the picks of the frame before it.

    Reference: DynaTok (arXiv 2605.19322).
    """

    memory: float = 0.9
    least: float = 0.25
    penalty: float = 0.5
    use_diversity: bool = True

    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        num_frames, size, _ = tokens.shape
        novelty = self._novelty(tokens)
        weights = [self.least + value / max(novelty) for value in novelty]
        shares = weighted_shares(count, weights, [size] * num_frames, at_least=1)
        activation = tokens.float().abs().mean(-1)
        lowest, highest = activation.aminmax(dim=1, keepdim=True)
        activation = (activation - lowest) / (highest - lowest).clamp(min=1e-12)
        seen, kept = unit.new_zeros(size), []
        for frame, share in enumerate(shares):
            # Not below 0: a negative score would make the nearest token the most diverse.
            picks = self._pick(activation[frame] + self.penalty * (1 - seen), unit[frame], share)
            kept.append(picks + frame * size)
            seen = self.memory * seen
            seen[picks] += 1 - self.memory
        return select(tokens, torch.cat(kept))

    def _novelty(self, tokens: Float[Tensor, "f p d"]) -> list[float]:
        frames = functional.normalize(tokens.float().mean(1), dim=-1, eps=1e-12)
        past, novelty = frames[0], [1.0]
        for frame in frames[1:]:
            novelty.append(max(0.0, 1 - float(functional.cosine_similarity(frame, past, dim=0))))
            past = self.memory * past + (1 - self.memory) * frame
        return novelty

    def _pick(
        self, score: Float32[Tensor, " p"], unit: Float32[Tensor, "p d"], share: int
    ) -> Int64[Tensor, " b"]:
        gap, is_open, picks = torch.ones_like(score), torch.ones_like(score, dtype=torch.bool), []
        for _ in range(share):
            pick = (score * gap).masked_fill(~is_open, -torch.inf).argmax()
            picks.append(pick)
            is_open[pick] = False
            if self.use_diversity:
                apart = (1 - unit @ unit[pick]).clamp(min=0)
                gap = apart if len(picks) == 1 else torch.minimum(gap, apart)
        chosen = torch.stack(picks) if picks else torch.empty(0, dtype=torch.int64, device=score.device)
        return chosen.sort().values
