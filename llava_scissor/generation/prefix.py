"""Keys and values that prompts about the same media have in common, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import takewhile

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from llava_scissor.generation.decode import PlainRows
from llava_scissor.generation.requests import Query
from llava_scissor.model import OneVision


class PrefixCache:
    """The keys and values of the last prompt, for the next one that begins like it.

    All prompts have the same visual blocks, and the same texts before and between them. They differ in the ids
    of the last text.
    """

    def __init__(self, model: OneVision) -> None:
        self._model = model
        self._cache = self._empty()
        self._shared_ids: list[int] = []  # of the last text, in the cache
        self._last: Query | None = None  # whose prompt and answer are in the cache, in place of those ids

    def start(self, query: Query) -> tuple[PlainRows, int]:
        """Begin with one prompt; it and its answer stay in the cache.

        Returns:
            The row, and how many positions of its prompt were in the cache.
        """
        ids = query.text_ids[-1]
        rest = self._embed_rest(query, ids, len(ids) - 1)  # the last id gives the first token of the answer
        self._last = query
        num_cached = len(query.positions) - len(rest)
        return PlainRows(self._model, [rest], [query.positions[num_cached:]], self._cache), num_cached

    @torch.no_grad()
    def share(self, queries: Sequence[Query]) -> tuple[PlainRows, int]:
        """Begin with several prompts; what all of them begin with is computed once, and stays in the cache.

        Returns:
            The rows, and how many positions all prompts have in common.

        Cost: a copy of the keys and values of the common positions for each prompt.
        """
        texts = [query.text_ids[-1] for query in queries]
        num_ids = min(_count_common(*texts), min(map(len, texts)) - 1)
        first = queries[0]
        rest = self._embed_rest(first, texts[0][:num_ids], num_ids)
        self._last, self._shared_ids = None, texts[0][:num_ids]
        end = len(first.positions) - len(texts[0]) + num_ids
        if len(rest):
            PlainRows(self._model, [rest], [first.positions[end - len(rest) : end]], self._cache).prefill()
        cache = copy(self._cache)
        cache.layers = [copy(layer) for layer in cache.layers]  # repeating gives these tensors of their own
        cache.batch_repeat_interleave(len(queries))
        prompts = [self._model.embed([ids[num_ids:]], []) for ids in texts]
        return PlainRows(self._model, prompts, [query.positions[end:] for query in queries], cache), end

    def _embed_rest(self, query: Query, ids: list[int], num_reusable: int) -> Float[Tensor, "l d"]:
        """Keep in the cache what a prompt with these last ids begins with; returns the embeddings of the rest."""
        num_before = len(query.positions) - len(query.text_ids[-1])
        cached = self._cached_ids
        num_cached = num_before + len(cached)
        if any(self._cache.get_seq_length(i) != num_cached for i in range(len(self._cache.layers))):
            # Nothing is there yet, or a step that failed left the layers uneven.
            self._cache = self._empty()
            return self._model.embed([*query.text_ids[:-1], ids], query.media.visuals)
        num_shared = _count_common(cached, ids[:num_reusable])
        self._cache.crop(num_shared - len(cached))
        return self._model.embed([ids[num_shared:]], [])

    @property
    def _cached_ids(self) -> list[int]:
        if self._last is None:
            return self._shared_ids
        return [*self._last.text_ids[-1], *self._last.reply.ids[:-1]]  # the last token was not read yet

    def _empty(self) -> DynamicCache:
        return DynamicCache(config=self._model.language_model.config)


def _count_common(*sequences: Sequence[int]) -> int:
    """Return how many ids all sequences begin with."""
    return sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, zip(*sequences, strict=False)))
