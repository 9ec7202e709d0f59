"""From embeddings to the ids of answers: one step of the language model for each token, for one row or many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, DynamicCache

from llava_scissor.config import GenerationConfig
from llava_scissor.errors import InputError
from llava_scissor.generation.sampling import build_processors
from llava_scissor.generation.stopwatch import Stopwatch
from llava_scissor.generation.text import AnswerText
from llava_scissor.model import OneVision
from llava_scissor.model.prompt import TURN_END

OnText = Callable[[str], None]


class Reply:
    """One answer in the making: chooses its tokens, and knows when it is done.

    Attributes:
        ids: the ids so far, the one that ended the answer included.
        text: the text of the ids.
    """

    def __init__(self, model: OneVision, config: GenerationConfig) -> None:
        self.ids: list[int] = []
        self._stop_ids = find_stop_ids(model)
        self.text = AnswerText(model.tokenizer, self._stop_ids, config.stop)
        self._max_new_tokens = config.max_new_tokens
        device = model.language_model.get_input_embeddings().weight.device
        self._processors = build_processors(config, model.geometry.generation, model.num_token_ids, device)

    def choose(self, logits: Float[Tensor, "1 v"]) -> int:
        """Take the next token; the likeliest, or the one that was drawn."""
        ids = torch.tensor([self.ids], dtype=torch.long, device=logits.device)
        chosen = int(self._processors(ids, logits).argmax())
        self.ids.append(chosen)
        return chosen

    @property
    def has_stopped(self) -> bool:
        """Whether the answer came to its end, by a stop id or a stop text."""
        return bool(self.ids) and (self.ids[-1] in self._stop_ids or self.text.has_stop_text(self.ids))

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to write: the end was reached, or the largest number of tokens."""
        return len(self.ids) >= self._max_new_tokens or self.has_stopped


@torch.no_grad()
def generate(
    model: OneVision,
    prompts: Sequence[Float[Tensor, "_ d"]],
    replies: Sequence[Reply],
    cache: Cache | None = None,
    watch: Stopwatch | None = None,
    positions: Sequence[Int64[Tensor, " _"]] | None = None,
) -> Iterator[int]:
    """Write one answer to each prompt, all of them at once.

    Args:
        model: the model; only its language model is run.
        prompts: embeddings of each prompt behind what is in the cache, (L_i, D).
        replies: where the tokens go, in the order of the prompts.
        cache: keys and values of the positions before the prompts, with a row for each prompt. It grows.
        watch: gets a lap `prefill`, up to the logits of the first tokens, and a lap `generate` for the rest.
        positions: where the rows of each prompt stand, (L_i,); None: one after the other, behind the cache.

    Yields:
        The row of each token when it was chosen. A row that is done leaves the batch.

    Reference: the ids are those of `generate` in transformers, which has neither generators nor settings of
    their own for the rows of a batch.
    """
    watch = watch or Stopwatch(model.device)
    cache = DynamicCache(config=model.language_model.config) if cache is None else cache
    inputs_embeds, mask = pad_left(prompts, cache.get_seq_length())  # (B, L, D), (B, past + L)
    embedding = model.language_model.get_input_embeddings()
    rows = list(range(len(prompts)))
    first = cache.get_seq_length()
    places = positions or [torch.arange(first, first + len(prompt)) for prompt in prompts]
    place = pad_sequence(list(places), batch_first=True, padding_side="left").to(mask.device)  # (B, L)
    stage = "prefill"
    while rows:
        output = model.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=mask,
            position_ids=place,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = output.logits[:, -1].float()  # (B, V)
        if stage == "prefill":
            watch.lap(stage)
            stage = "generate"
        ids = []
        for i, row in enumerate(rows):
            ids.append(replies[row].choose(logits[i : i + 1]))
            yield row
        going = [i for i, row in enumerate(rows) if not replies[row].is_done]
        if 0 < len(going) < len(rows):
            cache.batch_select_indices(torch.tensor(going, device=mask.device))
        rows = [rows[i] for i in going]
        mask = torch.cat([mask[going], mask.new_ones(len(going), 1)], dim=1)
        place = place[going, -1:] + 1
        inputs_embeds = embedding(
            torch.tensor([[ids[i]] for i in going], device=mask.device, dtype=torch.long)
        )
    watch.lap(stage)


def pad_left(
    prompts: Sequence[Float[Tensor, "_ d"]], num_cached: int = 0
) -> tuple[Float[Tensor, "b l d"], Int[Tensor, "b m"]]:
    """Bring prompts to one length by zeros before them; the mask has 1 where a prompt or the cache is."""
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=prompts[0].device)
    embeds = pad_sequence(list(prompts), batch_first=True, padding_side="left")
    place = torch.arange(embeds.shape[1], device=lengths.device)
    mask = (place >= embeds.shape[1] - lengths[:, None]).long()
    return embeds, torch.cat([mask.new_ones(len(mask), num_cached), mask], dim=1)


def check_context(num_positions: int, max_new_tokens: int, context_length: int) -> None:
    """Raise InputError if the language model has too few positions for a prompt and its longest answer."""
    if num_positions + max_new_tokens > context_length:
        raise InputError(
            f"a prompt of {num_positions} positions and an answer of up to {max_new_tokens} need "
            f"{num_positions + max_new_tokens} positions, but the model has {context_length}: use fewer frames or "
            "images, a lower compression.retention_ratio or generation.max_new_tokens, or, where kept tokens keep "
            "their places, compression.positions 'consecutive'"
        )


def find_stop_ids(model: OneVision) -> list[int]:
    """Return the ids that end an answer: the checkpoint's, the tokenizer's, and ChatML's end of turn."""
    tokenizer = model.tokenizer
    turn_end = tokenizer.added_tokens_encoder[TURN_END]
    return sorted({*model.geometry.generation.stop_ids, tokenizer.eos_token_id, turn_end} - {None})
