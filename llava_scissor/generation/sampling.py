"""From logits to the next token: which tokens are allowed, and the draw."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llava_scissor.config import GenerationConfig
from llava_scissor.model import GenerationDefaults


class NoUnspelledTokens(LogitsProcessor):
    """Rules out ids without a text: the embedding has more rows than the tokenizer has ids.

    Reference: upstream cuts these rows off when it loads a checkpoint, with the same effect.
    """

    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens

    def __call__(self, input_ids: Int[Tensor, "b t"], scores: Float[Tensor, "b v"]) -> Float[Tensor, "b v"]:
        """Set the scores of those ids to minus infinity."""
        scores[:, self.num_tokens :] = -torch.inf
        return scores


class Draw(LogitsProcessor):
    """Draws one token from the scores and rules out all others, so that a greedy search takes it.

    It has a generator of its own. The same seed gives the same answer, whatever else runs in the process.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)

    def __call__(self, input_ids: Int[Tensor, "b t"], scores: Float[Tensor, "b v"]) -> Float[Tensor, "b v"]:
        """Keep the score of the token that is drawn."""
        drawn = torch.multinomial(scores.softmax(-1), num_samples=1, generator=self.generator)  # (B, 1)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)


def build_processors(
    config: GenerationConfig, defaults: GenerationDefaults, num_tokens: int, device: torch.device
) -> LogitsProcessorList:
    """List what happens to the logits of each step, in order. The checkpoint decides what the caller leaves open.

    Args:
        config: the caller's settings.
        defaults: the checkpoint's settings.
        num_tokens: number of ids that the tokenizer has text for.
        device: where the logits are.

    Returns:
        Processors for a greedy search. As upstream, the repetition penalty sees the answer, not the prompt.
    """
    chosen = {
        name: getattr(defaults, name) if getattr(config, name) is None else getattr(config, name)
        for name in ("repetition_penalty", "temperature", "top_p", "top_k")
    }
    processors = LogitsProcessorList([NoUnspelledTokens(num_tokens)])
    if chosen["repetition_penalty"] != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(chosen["repetition_penalty"]))
    if not config.do_sample:
        return processors
    processors.append(TemperatureLogitsWarper(chosen["temperature"]))
    if chosen["top_k"] > 0:
        processors.append(TopKLogitsWarper(chosen["top_k"]))
    if chosen["top_p"] < 1:
        processors.append(TopPLogitsWarper(chosen["top_p"]))
    processors.append(Draw(config.seed, device))
    return processors
