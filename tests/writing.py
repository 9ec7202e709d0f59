"""Answers to bare prompts, by the loop that writes all answers."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int64
from torch import Tensor

from llava_scissor.config import GenerationConfig
from llava_scissor.generation.decode import Decoder, PlainRows, Reply, check_context
from llava_scissor.generation.requests import OnText
from llava_scissor.generation.stopwatch import Stopwatch
from llava_scissor.model import OneVision


def write(
    model: OneVision,
    prompts: Sequence[Float[Tensor, "_ d"]],
    replies: Sequence[Reply],
    positions: Sequence[Int64[Tensor, " _"]] | None = None,
) -> list[int]:
    """Write the answers to some prompts at once; returns the number of the answer of each token, in order."""
    decoder = Decoder(PlainRows(model, prompts, positions), dict(enumerate(replies)), Stopwatch(model.device))
    return [number for pieces in decoder for number in pieces]


def generate_ids(
    model: OneVision,
    inputs_embeds: Float[Tensor, "l d"],
    config: GenerationConfig,
    on_text: OnText | None = None,
    watch: Stopwatch | None = None,
) -> list[int]:
    """Write the answer to a prompt, token by token.

    Args:
        model: the model; only its language model is run.
        inputs_embeds: the whole prompt (L, D).
        config: how to choose tokens and when to stop.
        on_text: called with each new piece of the answer's text.
        watch: gets a lap `prefill`, up to the logits of the first token, and a lap `generate` for the rest.

    Returns:
        The new ids, the one that ended the answer included.

    Raises:
        InputError: the prompt and the longest answer do not fit into the context.
    """
    check_context(len(inputs_embeds), config.max_new_tokens, model.geometry.context_length)
    reply = Reply(model, config)
    for pieces in Decoder(PlainRows(model, [inputs_embeds]), {0: reply}, watch or Stopwatch(model.device)):
        if on_text and pieces[0]:
            on_text(pieces[0])
    return reply.ids
