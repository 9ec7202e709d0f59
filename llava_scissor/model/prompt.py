"""The ChatML prompt around a question, and its tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from llava_scissor.errors import InputError

logger = logging.getLogger(__name__)

PLACEHOLDER = "<image>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"


@dataclass(frozen=True)
class Turn:
    """A question that was answered earlier in the conversation."""

    question: str
    answer: str


def build_prompt(
    question: str, system_prompt: str, num_visuals: int = 1, history: Sequence[Turn] = ()
) -> str:
    """Write the prompt for a question, up to where the answer begins.

    Args:
        question: the last question.
        system_prompt: text of the system turn.
        num_visuals: number of placeholders: one for a video, one for each image, 0 for text only. They stand
            before the first question of the conversation.
        history: the earlier turns, oldest first.

    Reference: `qwen_1_5` and `qwen_2` upstream, which are the same.
    """
    placeholders = " ".join([PLACEHOLDER] * num_visuals) + "\n" * (num_visuals > 0)
    turns = [part for turn in history for part in (("user", turn.question), ("assistant", turn.answer))]
    (role, first), *later = [*turns, ("user", question)]
    messages = [("system", system_prompt), (role, placeholders + first), *later]
    written = [f"{TURN_START}{role}\n{text}{TURN_END}\n" for role, text in messages]
    return "".join([*written, f"{TURN_START}assistant\n"])


def tokenize_prompt(prompt: str, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the token ids of the texts before, between and behind the placeholders.

    The placeholder is cut out of the text and never becomes a token id. Tokenizers do not agree on it: for some
    it is plain text, for some a special token, and for others its usual id means something else.
    """
    return [tokenizer(text, add_special_tokens=False).input_ids for text in prompt.split(PLACEHOLDER)]


def check_question(question: object, tokenizer: PreTrainedTokenizerBase, noun: str = "question") -> None:
    """Raise an error for a question that cannot be asked, and log the words that the tokenizer does not know.

    A system prompt is checked in the same way; messages call it by `noun`.

    A control token such as `<|im_end|>` would end the user's turn, and the placeholder `<image>` would ask for
    another video. Neither is quietly turned into plain text: the model reads what the user wrote, or nothing.

    Raises:
        InputError: the question is not a string, is blank, is not valid Unicode or has such a token.
    """
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"a {noun} must be a text that is not blank, got {question!r}")
    unknown = _check_text(noun, question, tokenizer)
    if unknown:
        words = ", ".join(repr(word) for word in unknown)
        logger.warning("the model's tokenizer does not know these words of the %s: %s", noun, words)


def check_history(history: Sequence[Turn], tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise an error for earlier turns that could not have been asked or answered. An answer may be empty.

    Raises:
        InputError: a question or an answer is not a string, is not valid Unicode or has a control token.
    """
    for turn in history:
        if not isinstance(turn, Turn) or not isinstance(turn.answer, str):
            raise InputError(
                f"history must be turns, each with a question and an answer as text, got {turn!r}"
            )
        if not isinstance(turn.question, str) or not turn.question.strip():
            raise InputError(f"a question must be a text that is not blank, got {turn.question!r}")
        _check_text("question", turn.question, tokenizer)
        _check_text("answer", turn.answer, tokenizer)


def _check_text(noun: str, text: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Raise InputError for a text that is not what it looks like; return the words without a token."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the {noun} is not valid Unicode: {error}; give it as UTF-8") from error
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
    spelled = [(i, text[begin:end]) for i, (begin, end) in offsets]
    unknown = [word for i, word in spelled if i == tokenizer.unk_token_id and word != tokenizer.unk_token]
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    control = [word for i, word in spelled if i in special and word not in unknown]
    control += [PLACEHOLDER] * (PLACEHOLDER in text)
    if control:
        raise InputError(f"the {noun} contains the control token {control[0]!r}: rephrase it without")
    return list(dict.fromkeys(unknown))
