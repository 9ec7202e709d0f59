"""From embeddings to the ids of an answer, with the text as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig as TransformersGenerationConfig
from transformers import LogitsProcessor, PreTrainedTokenizerBase
from transformers.generation import BaseStreamer

from llava_scissor.config import GenerationConfig
from llava_scissor.errors import InputError
from llava_scissor.generation.sampling import build_processors
from llava_scissor.generation.stopwatch import Stopwatch
from llava_scissor.model import OneVision
from llava_scissor.model.prompt import TURN_END

OnText = Callable[[str], None]


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
    watch = watch or Stopwatch(model.device)
    stop_ids = find_stop_ids(model)
    processors = build_processors(
        config, model.geometry.generation, model.num_token_ids, inputs_embeds.device
    )
    processors.insert(0, PrefillTimer(watch))
    streamer = TextStream(model.tokenizer, stop_ids, on_text) if on_text else None
    ids = model.language_model.generate(
        inputs_embeds=inputs_embeds[None],
        attention_mask=torch.ones(1, len(inputs_embeds), dtype=torch.long, device=inputs_embeds.device),
        logits_processor=processors,
        streamer=streamer,
        generation_config=TransformersGenerationConfig(
            max_new_tokens=config.max_new_tokens,
            do_sample=False,  # a draw, too, is one of the processors
            eos_token_id=stop_ids,
            pad_token_id=model.tokenizer.pad_token_id,
        ),
    )
    watch.lap("generate")
    return ids[0].tolist()


def check_context(num_prompt_tokens: int, max_new_tokens: int, context_length: int) -> None:
    """Raise InputError if the language model has too few positions for a prompt and its longest answer."""
    if num_prompt_tokens + max_new_tokens > context_length:
        raise InputError(
            f"a prompt of {num_prompt_tokens} tokens and an answer of up to {max_new_tokens} need "
            f"{num_prompt_tokens + max_new_tokens} positions, but the model has {context_length}: use fewer "
            "frames, a lower compression.retention_ratio or a lower generation.max_new_tokens"
        )


def find_stop_ids(model: OneVision) -> list[int]:
    """Return the ids that end an answer: the checkpoint's, the tokenizer's, and ChatML's end of turn."""
    tokenizer = model.tokenizer
    turn_end = tokenizer.added_tokens_encoder[TURN_END]
    return sorted({*model.geometry.generation.stop_ids, tokenizer.eos_token_id, turn_end} - {None})


def decode_text(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int]) -> str:
    """Return the text of an answer without control tokens and without space around it."""
    kept = [i for i in ids if i not in stop_ids]
    return tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()


class TextStream(BaseStreamer):
    """Hands out the text of an answer as it grows; the pieces add up to the text of all ids.

    What another token may still change is held back: the bytes of a character that is not complete.

    Cost: quadratic, as each new id decodes them all again; short beside a step of the language model.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int], on_text: OnText) -> None:
        self._tokenizer, self._stop_ids, self._on_text = tokenizer, stop_ids, on_text
        self._ids: list[int] = []
        self._num_sent = 0

    def put(self, value: Int[Tensor, ...]) -> None:
        """Take the next ids; a first call has those of the prompt, of which embeddings have none."""
        self._ids += value.flatten().tolist()
        text = self._text()
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            self._send(text)

    def end(self) -> None:
        """Send what was held back."""
        self._send(self._text())

    def _text(self) -> str:
        return decode_text(self._ids, self._tokenizer, self._stop_ids)

    def _send(self, text: str) -> None:
        if len(text) > self._num_sent:
            self._on_text(text[self._num_sent :])
            self._num_sent = len(text)


class PrefillTimer(LogitsProcessor):
    """Ends the lap `prefill` when the logits of the first token are there; changes nothing."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch
        self._is_first = True

    def __call__(self, input_ids: Int[Tensor, "b t"], scores: Float[Tensor, "b v"]) -> Float[Tensor, "b v"]:
        """Return the scores as they are."""
        if self._is_first:
            self._watch.lap("prefill")
            self._is_first = False
        return scores
