"""One answer to one prompt, by the loop that writes all answers."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from llava_scissor.config import GenerationConfig
from llava_scissor.generation.decoding import OnText, Reply, check_context, generate
from llava_scissor.generation.stopwatch import Stopwatch
from llava_scissor.model import OneVision


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
    for _ in generate(model, [inputs_embeds], [reply], watch=watch):
        if on_text and (piece := reply.text.next_piece(reply.ids, reply.is_done)):
            on_text(piece)
    return reply.ids
