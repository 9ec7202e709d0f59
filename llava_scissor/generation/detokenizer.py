"""From the ids of an answer to its text, whole or piece by piece."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


class Detokenizer:
    """The text of an answer, which ends before the first of the stop texts.

    Cost: each call decodes all ids again. That is little beside a step of the language model.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int], stop_texts: Sequence[str] = ()
    ) -> None:
        self._tokenizer, self._stop_ids, self._stop_texts = tokenizer, stop_ids, stop_texts
        self._num_sent = 0

    def whole(self, ids: Sequence[int]) -> str:
        """Return the text of all ids, without control tokens and without space around it."""
        return self._cut(_decode(ids, self._tokenizer, self._stop_ids)).strip()

    def has_stop_text(self, ids: Sequence[int]) -> bool:
        """Return whether one of the stop texts was written."""
        text = _decode(ids, self._tokenizer, self._stop_ids) if self._stop_texts else ""
        return any(stop in text for stop in self._stop_texts)

    def next_piece(self, ids: Sequence[int], is_last: bool = False) -> str:
        """Return the text that is certain and was not returned yet; the pieces add up to the whole text.

        The next id may still change the end of the text. So these are held back until the last call: space at
        the end, an incomplete character, the beginning of a stop text.
        """
        text = _decode(ids, self._tokenizer, self._stop_ids)
        if not is_last and text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        held = 0 if is_last or self.has_stop_text(ids) else self._num_held(text)
        certain = self._cut(text[: len(text) - held]).lstrip()
        piece = certain.rstrip()[self._num_sent :]
        self._num_sent += len(piece)
        return piece

    def _cut(self, text: str) -> str:
        return text[: min((text.find(stop) for stop in self._stop_texts if stop in text), default=len(text))]

    def _num_held(self, text: str) -> int:
        """Return the length of the longest end of `text` that a stop text begins with."""
        lengths = [n for stop in self._stop_texts for n in range(1, len(stop)) if text.endswith(stop[:n])]
        return max(lengths, default=0)


def _decode(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int]) -> str:
    kept = [i for i in ids if i not in stop_ids]
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)  # of one answer; it would be a list of several
    return text
