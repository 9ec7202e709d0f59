"""Give outstanding frames more tokens, and keep those that are least like the rest."""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional

from llava_scissor.compression.baselines.selection import ExactBudget, select, top_per_frame
from llava_scissor.compression.baselines.shares import weighted_shares
from llava_scissor.compression.protocol import CompressionResult, TowerState
from llava_scissor.config import VidCom2Config

_WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)


class VidCom2(ExactBudget[VidCom2Config]):
    """Keep in each frame the tokens that are least typical of the video and of the frame.

    How typical a token is: a sum of five Gaussians of its distance from a mean, on the half of the channels that
    varies least. A frame of untypical tokens gets more of them. Shares are rounded to the exact budget by largest
    remainders, at least one token a frame if there are enough (ours).

    Its options are those of `VidCom2Config`.

    Reference: VidCom2 (arXiv 2505.14454).
    """

    settings = VidCom2Config

    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        num_frames, size, width = tokens.shape
        values = tokens.float()
        num_calm = max(1, int(self.config.channel_ratio * width))
        calm = values.var((0, 1), correction=0).argsort(stable=True)[:num_calm].sort().values
        part = functional.normalize(values[..., calm], dim=-1, eps=1e-12)
        of_video, of_frame = (
            _typicality(part, part.mean((0, 1))),
            _typicality(part, part.mean(1, keepdim=True)),
        )
        novelty = torch.softmax(-of_video.mean(1) / self.config.temperature, 0)
        weights = (1 + novelty - 1 / num_frames).tolist()
        shares = weighted_shares(count, weights, [size] * num_frames, at_least=1)
        return select(tokens, top_per_frame(-(of_video + of_frame), shares))


def _typicality(part: Float32[Tensor, "f p d"], mean: Tensor) -> Float32[Tensor, "f p"]:
    squared = (part - mean).square().sum(-1)
    return torch.stack([torch.exp(-squared / (2 * width)) for width in _WIDTHS]).sum(0)
