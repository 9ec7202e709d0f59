"""The demo model's tokenizer: one token a word, case ignored."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llava_scissor.demo.scenes import BACKGROUNDS, COLORS, DIRECTIONS, NUMBERS, SHAPES

PAD, UNKNOWN, TURN_START, TURN_END = "<|endoftext|>", "<unk>", "<|im_start|>", "<|im_end|>"
_PROMPT = "system user assistant you are a helpful . \n"
_QUESTION = (
    "? , what color is the shape object how many objects in video which way does move background "
    "there an where when it appears first last or yes no top bottom"
)


def words() -> list[str]:
    """List every token once, in the order of their ids."""
    listed = [PAD, UNKNOWN, TURN_START, TURN_END, *_PROMPT.split(" "), *_QUESTION.split(" ")]
    listed += [*COLORS, *SHAPES, *BACKGROUNDS, *DIRECTIONS, *NUMBERS]
    return list(dict.fromkeys(listed))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer: words, punctuation and line breaks are tokens, spaces separate them.

    Returns:
        A tokenizer with ChatML's turn marks as special tokens; a word it does not know becomes `<unk>`.
    """
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words())}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    pieces = Regex(r"\n|\w+|[^\w\s]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, behavior="removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=TURN_END,
        additional_special_tokens=[TURN_START],
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
