"""The ChatML prompt around a question, and its tokens."""

from __future__ import annotations

import logging

from transformers import PreTrainedTokenizerBase

from llava_scissor.errors import InputError

logger = logging.getLogger(__name__)

PLACEHOLDER = "<image>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"


def build_prompt(question: str, system_prompt: str) -> str:
    """Write the prompt for one question about one video, up to where the answer begins.

    Reference: `qwen_1_5` and `qwen_2` upstream, which are the same; a video has a single placeholder.
    """
    return (
        f"{TURN_START}system\n{system_prompt}{TURN_END}\n"
        f"{TURN_START}user\n{PLACEHOLDER}\n{question}{TURN_END}\n"
        f"{TURN_START}assistant\n"
    )


def tokenize_prompt(prompt: str, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the token ids of the texts before, between and behind the placeholders.

    The placeholder is cut out of the text and never becomes a token id: in some tokenizers it is plain text,
    in some a special token, in others its usual id means something else.
    """
    return [tokenizer(text, add_special_tokens=False).input_ids for text in prompt.split(PLACEHOLDER)]


def check_question(question: object, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a question that cannot be asked, and name on the log the words that the tokenizer does not know.

    Whatever the tokenizer reads as a control token, such as `<|im_end|>`, would end the user's turn, and the
    placeholder `<image>` would ask for another video. Both are refused rather than taken as plain text, so
    that the text the user reads is the text the model reads.

    Raises:
        InputError: the question is not a string, is blank, is not valid Unicode or has such a token.
    """
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"a question must be a text that is not blank, got {question!r}")
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the question is not valid Unicode: {error}; give it as UTF-8") from error
    encoding = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)
    offsets = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
    spelled = [(i, question[begin:end]) for i, (begin, end) in offsets]
    unknown = [word for i, word in spelled if i == tokenizer.unk_token_id and word != tokenizer.unk_token]
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    control = [word for i, word in spelled if i in special and word not in unknown]
    control += [PLACEHOLDER] * (PLACEHOLDER in question)
    if control:
        raise InputError(f"the question contains the control token {control[0]!r}: rephrase it without")
    if unknown:
        words = ", ".join(repr(word) for word in dict.fromkeys(unknown))
        logger.warning("the model's tokenizer does not know these words of the question: %s", words)
