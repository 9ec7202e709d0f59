"""The decode loop: embeddings in, answers out, one token of each answer at every step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, cast

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, DynamicCache

from llava_scissor.config import GenerationConfig
from llava_scissor.errors import InputError
from llava_scissor.generation.detokenizer import Detokenizer
from llava_scissor.generation.sampling import build_processors
from llava_scissor.generation.stopwatch import Stopwatch
from llava_scissor.model import OneVision
from llava_scissor.model.prompt import TURN_END


class Rows(Protocol):
    """Prompts inside the language model, one a row, which grow by a token at each step."""

    def __len__(self) -> int:
        """Return B, the number of rows."""
        ...

    def prefill(self) -> Float[Tensor, "b v"]:
        """Read the prompts; returns the float32 logits of the first token of each answer (B, V)."""
        ...

    def step(self, ids: Int64[Tensor, " b"]) -> Float[Tensor, "b v"]:
        """Read the next token of each answer, ids on any device; returns the logits of the one after it (B, V)."""
        ...

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but these; allowed at any time."""
        ...


class PlainRows:
    """Prompts that every layer of the language model sees whole, computed as one batch.

    Args:
        model: the model; only its language model is run.
        prompts: embeddings of each prompt behind what is in the cache, (L_i, D). Shorter ones are padded on
            the left.
        positions: position of each of these embeddings, (L_i,); None: one after the other, behind the cache.
        cache: keys and values of what stands before, with a row for each prompt; None if nothing does. It grows.
    """

    def __init__(
        self,
        model: OneVision,
        prompts: Sequence[Float[Tensor, "_ d"]],
        positions: Sequence[Int64[Tensor, " _"]] | None = None,
        cache: Cache | None = None,
    ) -> None:
        self._model = model.language_model
        self._cache = DynamicCache(config=self._model.config) if cache is None else cache
        num_cached = self._cache.get_seq_length()
        positions = positions or [torch.arange(num_cached, num_cached + len(prompt)) for prompt in prompts]
        self._prompts: Tensor | None  # (B, L, D), until they were read
        self._prompts, self._mask = pad_left(prompts, num_cached)
        padded = pad_sequence(list(positions), batch_first=True, padding_side="left")
        self._positions = padded.to(self._mask.device)  # (B, L)

    def __len__(self) -> int:
        return len(self._mask)

    def prefill(self) -> Float[Tensor, "b v"]:
        """Read the prompts; returns the logits of the first token of each answer."""
        assert self._prompts is not None, "the prompts are read once"
        logits = self._run(self._prompts)
        self._prompts = None
        return logits

    def step(self, ids: Int64[Tensor, " b"]) -> Float[Tensor, "b v"]:
        """Read a token of each answer; returns the logits of the next."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(ids), 1)], dim=1)
        self._positions = self._positions[:, -1:] + 1
        return self._run(self._model.get_input_embeddings()(ids[:, None].to(self._mask.device)))

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but these, and their keys and values."""
        self._cache.batch_select_indices(torch.tensor(rows, device=self._mask.device))
        self._mask, self._positions = self._mask[rows], self._positions[rows]
        if self._prompts is not None:
            self._prompts = self._prompts[rows]

    def _run(self, inputs_embeds: Float[Tensor, "b l d"]) -> Float[Tensor, "b v"]:
        # The cache has no keyword here, because transformers 5.24 renames it.
        context = self._mask, self._positions, self._cache
        output = self._model(None, *context, inputs_embeds=inputs_embeds, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1].float()


class JoinedRows:
    """Rows of several kinds behind one face; each kind is computed by itself."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = list(parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def prefill(self) -> Float[Tensor, "b v"]:
        """Read the prompts of one part after the other."""
        return torch.cat([part.prefill() for part in self._parts])

    def step(self, ids: Int64[Tensor, " b"]) -> Float[Tensor, "b v"]:
        """Read the tokens of one part after the other."""
        split = ids.split([len(part) for part in self._parts])
        return torch.cat([part.step(own) for part, own in zip(self._parts, split, strict=True)])

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but these, and the parts without rows."""
        kept, first = [], 0
        for part in self._parts:
            own, num_rows = [row - first for row in rows if first <= row < first + len(part)], len(part)
            if own:
                part.keep(own)
                kept.append(part)
            first += num_rows
        self._parts = kept


class Reply:
    """One answer in the making: chooses its tokens, and knows when it is complete.

    Attributes:
        ids: the ids so far, the one that ended the answer included.
        text: the text of the ids.
    """

    def __init__(self, model: OneVision, config: GenerationConfig) -> None:
        self.ids: list[int] = []
        self._stop_ids = find_stop_ids(model)
        self.text = Detokenizer(model.tokenizer, self._stop_ids, config.stop)
        self._max_new_tokens = config.max_new_tokens
        device = model.language_model.model.embed_tokens.weight.device
        self._processors = build_processors(config, model.geometry.generation, model.num_token_ids, device)

    def choose(self, logits: Float[Tensor, "1 v"]) -> str:
        """Take the next token: the likeliest, or one that is drawn.

        Returns:
            The text that is certain now and was not before; the pieces add up to the answer.
        """
        ids = torch.tensor([self.ids], dtype=torch.long, device=logits.device)
        self.ids.append(int(self._processors(cast(torch.LongTensor, ids), logits).argmax()))
        return self.text.next_piece(self.ids, self.is_done)

    @property
    def has_stopped(self) -> bool:
        """Whether the answer came to its end, by a stop id or a stop text."""
        return bool(self.ids) and (self.ids[-1] in self._stop_ids or self.text.has_stop_text(self.ids))

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to write: the end was reached, or the largest number of tokens."""
        return len(self.ids) >= self._max_new_tokens or self.has_stopped


class Decoder:
    """Writes one answer to each prompt, one token of each at every step.

    Nothing runs between two steps. The caller may stream the text, drop answers that nobody waits for, or
    forget the decoder: that ends all of them.

    Reference: the ids are those of `generate` in transformers, which can neither be stopped between tokens nor
    give the rows of a batch settings and generators of their own.
    """

    def __init__(self, rows: Rows, replies: Mapping[int, Reply], watch: Stopwatch) -> None:
        """Take the prompts and where their answers go, without computing anything.

        Args:
            rows: the prompts.
            replies: the answers by number, in the order of the rows.
            watch: gets a lap `prefill`, up to the logits of the first tokens, and laps `generate` after it.
        """
        self._rows, self._replies, self._watch = rows, replies, watch
        self._open = list(replies)  # the number of each row's answer
        self._is_prefilled = False

    def step(self) -> dict[int, str]:
        """Choose the next token of each answer that is not complete; the first step reads the prompts.

        Returns:
            By number of the answer the new text, which may be empty. Nothing if all answers are complete.
        """
        if not self._open:
            return {}
        logits = self._next_logits()  # (B, V)
        pieces = {n: self._replies[n].choose(logits[i : i + 1]) for i, n in enumerate(self._open)}
        self._keep([n for n in self._open if not self._replies[n].is_done])
        self._watch.lap("generate")
        return pieces

    def drop(self, number: int) -> None:
        """Write no more of an answer; without effect if it is complete."""
        self._keep([n for n in self._open if n != number])

    def __iter__(self) -> Iterator[dict[int, str]]:
        """Yield what `step` returns until all answers are complete."""
        while pieces := self.step():
            yield pieces

    @torch.no_grad()
    def _next_logits(self) -> Float[Tensor, "b v"]:
        if self._is_prefilled:
            return self._rows.step(torch.tensor([self._replies[n].ids[-1] for n in self._open]))
        logits = self._rows.prefill()
        self._is_prefilled = True
        self._watch.lap("prefill")
        return logits

    def _keep(self, numbers: list[int]) -> None:
        if 0 < len(numbers) < len(self._open):
            self._rows.keep([i for i, n in enumerate(self._open) if n in numbers])
        self._open = numbers


def pad_left(
    prompts: Sequence[Float[Tensor, "_ d"]], num_cached: int = 0
) -> tuple[Float[Tensor, "b l d"], Int[Tensor, "b m"]]:
    """Bring prompts to one length by zeros before them; the mask has 1 where a prompt or the cache is."""
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=prompts[0].device)
    embeds = pad_sequence(list(prompts), batch_first=True, padding_side="left")
    column = torch.arange(embeds.shape[1], device=lengths.device)
    mask = (column >= embeds.shape[1] - lengths[:, None]).long()
    return embeds, torch.cat([mask.new_ones(len(mask), num_cached), mask], dim=1)


def check_context(num_positions: int, max_new_tokens: int, context_length: int) -> None:
    """Raise InputError if the language model has too few positions for a prompt and its longest answer."""
    if num_positions + max_new_tokens > context_length:
        raise InputError(
            f"a prompt of {num_positions} positions and an answer of up to {max_new_tokens} need "
            f"{num_positions + max_new_tokens} positions, but the model has {context_length}: use fewer frames or "
            "images, a lower compression.retention_ratio or generation.max_new_tokens, or, where kept tokens keep "
            "their positions, compression.positions 'consecutive'"
        )


def find_stop_ids(model: OneVision) -> list[int]:
    """Return the ids that end an answer: the checkpoint's, the tokenizer's, and ChatML's end of turn."""
    tokenizer = model.tokenizer
    ends = (tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(TURN_END))
    return sorted({*model.geometry.generation.stop_ids, *(end for end in ends if isinstance(end, int))})
