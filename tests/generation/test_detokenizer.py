from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llava_scissor.generation.detokenizer import Detokenizer

END = 3


@pytest.fixture(scope="module")
def byte_tokenizer():
    """One token for each byte, so that most characters take several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({"<|im_end|>": 0} | {c: i + 1 for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")


def pieces_of(tokenizer, ids, stop_texts=()):
    """What is handed out after each id, up to the stop."""
    text = Detokenizer(tokenizer, [0], stop_texts)
    pieces = []
    for n in range(1, len(ids) + 1):
        is_last = n == len(ids) or text.has_stop_text(ids[:n])
        pieces.append(text.next_piece(ids[:n], is_last))
        if is_last:
            return pieces, text.whole(ids[:n])
    return pieces, ""


class TestWhole:
    def test_control_tokens_and_space_around_are_left_out(self, tokenizer):
        ids = tokenizer("\n what is <|im_start|> this \n <|im_end|>").input_ids
        assert Detokenizer(tokenizer, [END]).whole(ids) == "what is this"

    def test_a_stop_token_is_left_out_even_if_it_is_a_word(self, tokenizer):
        ids = tokenizer("what is this").input_ids
        assert Detokenizer(tokenizer, ids[-1:]).whole(ids) == "what is"


class TestPieces:
    @pytest.mark.parametrize(
        "text",
        [
            "plain words",
            "  space\n around \n",
            "Ünïcödé",
            "日本語、テスト",
            "a 🙂🚀 b",
            "tail �",
            "",
            " ",
            "x",
        ],
    )
    def test_they_add_up_to_the_text(self, text, byte_tokenizer):
        ids = [*byte_tokenizer(text).input_ids, 0]
        pieces, whole = pieces_of(byte_tokenizer, ids)
        assert "".join(pieces) == whole == Detokenizer(byte_tokenizer, [0]).whole(ids) == text.strip()

    def test_a_character_is_sent_when_it_is_complete(self, byte_tokenizer):
        assert pieces_of(byte_tokenizer, [*byte_tokenizer("né").input_ids, 0])[0] == ["n", "", "é", ""]

    def test_an_answer_cut_inside_a_character_is_sent_whole_in_the_end(self, byte_tokenizer):
        ids = byte_tokenizer("né").input_ids[:-1]
        pieces, whole = pieces_of(byte_tokenizer, ids)
        assert "".join(pieces) == whole == "n\N{REPLACEMENT CHARACTER}"


class TestStopTexts:
    @pytest.mark.parametrize(
        ("text", "stops", "expected"),
        [
            ("one. two", ("two",), "one."),
            ("one\n\ntwo", ("\n",), "one"),
            ("one", ("two",), "one"),
            ("aaab", ("aab",), "a"),
            ("one two three", ("three", "two"), "one"),
            ("abcabd", ("abd", "bcd"), "abc"),
            ("stop", ("stop",), ""),
            ("né né", (" n",), "né"),
        ],
    )
    def test_nothing_of_the_stop_text_is_handed_out(self, text, stops, expected, byte_tokenizer):
        pieces, whole = pieces_of(byte_tokenizer, [*byte_tokenizer(text).input_ids, 0], stops)
        assert "".join(pieces) == whole == expected

    def test_what_could_become_a_stop_text_waits(self, byte_tokenizer):
        pieces, _ = pieces_of(byte_tokenizer, [*byte_tokenizer("xENy").input_ids, 0], ("END",))
        assert pieces == ["x", "", "", "ENy", ""]
