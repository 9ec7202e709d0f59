from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from llava_scissor.demo.scenes import BACKGROUNDS, COLORS, DIRECTIONS, NUMBERS, SHAPES
from llava_scissor.demo.vocabulary import PAD, TURN_END, TURN_START, UNKNOWN, build_tokenizer, words
from llava_scissor.model.prompt import build_prompt

QUESTION = "Which appears first, the circle or the ring?"
PROMPT = build_prompt(QUESTION, "You are a helpful assistant.")


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_ids_are_places_in_the_list(tokenizer) -> None:
    listed = words()
    assert len(set(listed)) == len(listed) == len(tokenizer)
    assert tokenizer.get_vocab() == {word: i for i, word in enumerate(listed)}
    assert {*COLORS, *SHAPES, *BACKGROUNDS, *DIRECTIONS, *NUMBERS} <= set(listed)
    assert listed[:4] == [PAD, UNKNOWN, TURN_START, TURN_END]


def test_round_trip(tokenizer) -> None:
    ids = tokenizer(QUESTION).input_ids
    assert len(ids) == 10
    assert tokenizer.decode(ids) == "which appears first , the circle or the ring ?"
    assert tokenizer(tokenizer.decode(ids)).input_ids == ids
    assert tokenizer.decode(tokenizer("top left").input_ids) == "top left"


def test_the_prompt_has_no_unknown_word_but_the_placeholder(tokenizer) -> None:
    texts = PROMPT.split("<image>")
    assert len(texts) == 2
    tokens = [tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids) for text in texts]
    assert UNKNOWN not in tokens[0] + tokens[1]
    assert tokens[0][:3] == [TURN_START, "system", "\n"]
    assert tokens[0][-4:] == ["\n", TURN_START, "user", "\n"]
    assert tokens[1][0] == "\n"
    assert tokens[1][-5:] == [TURN_END, "\n", TURN_START, "assistant", "\n"]


def test_special_tokens(tokenizer) -> None:
    assert (tokenizer.pad_token, tokenizer.unk_token, tokenizer.eos_token) == (PAD, UNKNOWN, TURN_END)
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    assert {TURN_START, TURN_END, PAD} <= special
    ids = tokenizer(f"{TURN_START}yes{TURN_END}").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == [TURN_START, "yes", TURN_END]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "yes"


def test_case_is_ignored(tokenizer) -> None:
    assert tokenizer("WHAT Is The BackGround?").input_ids == tokenizer("what is the background?").input_ids


@pytest.mark.parametrize("word", ["giraffe", "reds", "42", "café", "!", "\N{CJK UNIFIED IDEOGRAPH-4E00}"])
def test_an_unknown_word_is_one_unknown_token(tokenizer, word: str) -> None:
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(f"the {word} ring").input_ids)
    assert tokens == ["the", UNKNOWN, "ring"]


def test_spaces_do_not_matter_and_line_breaks_do(tokenizer) -> None:
    assert tokenizer("  the   ring ?").input_ids == tokenizer("the ring?").input_ids
    assert tokenizer.convert_ids_to_tokens(tokenizer("the\nring").input_ids) == ["the", "\n", "ring"]


def test_saved_and_loaded(tokenizer, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in (PROMPT, QUESTION, "a purple giraffe", ""):
        assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert (loaded.eos_token_id, loaded.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert loaded.decode(loaded("bottom right ?").input_ids) == "bottom right ?"
