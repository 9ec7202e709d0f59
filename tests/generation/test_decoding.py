from __future__ import annotations

import dataclasses

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llava_scissor.config import GenerationConfig
from llava_scissor.errors import InputError
from llava_scissor.generation.decoding import TextStream, decode_text, find_stop_ids, generate_ids
from llava_scissor.generation.stopwatch import Stopwatch
from llava_scissor.model import GenerationDefaults
from tests.model.checkpoints import VOCABULARY_SIZE, build_tokenizer

END = 3


@pytest.fixture(scope="module")
def prompt(model):
    tokens = torch.randn(18, 48, generator=torch.Generator().manual_seed(0))
    return model.embed_prompt(model.tokenize("what is this?"), tokens)


@pytest.fixture(scope="module")
def byte_tokenizer():
    """One token for each byte, so that most characters take several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({"<|im_end|>": 0} | {c: i + 1 for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")


class TestGenerate:
    def test_it_is_a_greedy_search_by_hand(self, model, prompt):
        embeds, expected = prompt, []
        for _ in range(10):
            logits = model.language_model(inputs_embeds=embeds[None], use_cache=False).logits[0, -1]
            expected.append(logits.argmax().item())
            if expected[-1] == END:
                break
            embeds = torch.cat([embeds, model.language_model.get_input_embeddings().weight[expected[-1:]]])
        assert generate_ids(model, prompt, GenerationConfig(max_new_tokens=10)) == expected

    def test_it_stops_after_the_first_stop_token(self, model, prompt, monkeypatch):
        ids = generate_ids(model, prompt, GenerationConfig(max_new_tokens=8))
        defaults = GenerationDefaults(stop_ids=(ids[2],))
        monkeypatch.setattr(model, "geometry", dataclasses.replace(model.geometry, generation=defaults))
        first = ids.index(ids[2])
        assert generate_ids(model, prompt, GenerationConfig(max_new_tokens=8)) == ids[: first + 1]

    def test_it_writes_as_many_tokens_as_were_asked_for(self, model, prompt, monkeypatch):
        monkeypatch.setattr(
            "llava_scissor.generation.decoding.find_stop_ids", lambda model: [VOCABULARY_SIZE]
        )
        assert len(generate_ids(model, prompt, GenerationConfig(max_new_tokens=1))) == 1
        assert len(generate_ids(model, prompt, GenerationConfig(max_new_tokens=30))) == 30

    def test_the_head_only_sees_the_last_position(self, model, prompt):
        shapes = []
        head = model.language_model.lm_head
        handle = head.register_forward_hook(lambda module, inputs, output: shapes.append(inputs[0].shape))
        generate_ids(model, prompt, GenerationConfig(max_new_tokens=4))
        handle.remove()
        assert set(shapes) == {(1, 1, 48)}

    def test_prefill_is_timed_apart_from_the_rest(self, model, prompt):
        laps = []
        watch = Stopwatch(model.device)
        watch.lap = laps.append
        ran = []
        handle = model.language_model.model.register_forward_hook(lambda *call: ran.append(list(laps)))
        ids = generate_ids(model, prompt, GenerationConfig(max_new_tokens=5), watch=watch)
        handle.remove()
        assert laps == ["prefill", "generate"]
        assert ran == [[]] + [["prefill"]] * (len(ids) - 1)

    def test_a_seed_repeats_and_leaves_the_global_random_state_alone(self, model, prompt):
        state = torch.random.get_rng_state()
        runs = [
            generate_ids(
                model, prompt, GenerationConfig(do_sample=True, temperature=3.0, seed=s, max_new_tokens=8)
            )
            for s in (1, 1, 2)
        ]
        assert runs[0] == runs[1] != runs[2]
        assert torch.random.get_rng_state().equal(state)

    def test_a_repetition_penalty_changes_what_is_repeated(self, model, prompt):
        plain, varied = (
            generate_ids(model, prompt, GenerationConfig(max_new_tokens=40, repetition_penalty=p))
            for p in (1.0, 50.0)
        )
        assert len(set(varied)) == len(varied)
        assert len(set(plain)) < len(plain)

    def test_prompt_and_answer_must_fit_into_the_context(self, model, prompt):
        room = 512 - len(prompt)
        message = f"{len(prompt)} tokens and an answer of up to {room + 1} need 513 .* the model has 512"
        with pytest.raises(InputError, match=message):
            generate_ids(model, prompt, GenerationConfig(max_new_tokens=room + 1))
        generate_ids(model, prompt[:1], GenerationConfig(max_new_tokens=1))


class TestStopIds:
    def test_they_are_those_of_checkpoint_tokenizer_and_chatml(self, model, monkeypatch):
        assert find_stop_ids(model) == [END]
        tokenizer = build_tokenizer()
        monkeypatch.setattr(model, "tokenizer", tokenizer)
        tokenizer.eos_token = "<|endoftext|>"
        assert find_stop_ids(model) == [0, END]
        tokenizer.eos_token = None
        defaults = GenerationDefaults(stop_ids=(9, END))
        monkeypatch.setattr(model, "geometry", dataclasses.replace(model.geometry, generation=defaults))
        assert find_stop_ids(model) == [END, 9]


class TestText:
    def test_control_tokens_and_space_around_are_left_out(self, tokenizer):
        ids = tokenizer("\n what is <|im_start|> this \n <|im_end|>").input_ids
        assert decode_text(ids, tokenizer, [END]) == "what is this"

    def test_a_stop_token_is_left_out_even_if_it_is_a_word(self, tokenizer):
        ids = tokenizer("what is this").input_ids
        assert decode_text(ids, tokenizer, ids[-1:]) == "what is"


class TestStreaming:
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
    def test_the_pieces_add_up_to_the_text(self, text, byte_tokenizer):
        ids = [*byte_tokenizer(text).input_ids, 0]
        pieces = []
        stream = TextStream(byte_tokenizer, [0], pieces.append)
        stream.put(torch.empty(1, 0, dtype=torch.long))
        for i in ids:
            stream.put(torch.tensor([i]))
        stream.end()
        assert "".join(pieces) == decode_text(ids, byte_tokenizer, [0]) == text.strip()
        assert all(pieces)

    def test_a_character_is_sent_when_it_is_complete(self, byte_tokenizer):
        pieces = []
        stream = TextStream(byte_tokenizer, [0], pieces.append)
        for i in byte_tokenizer("né").input_ids:
            stream.put(torch.tensor([i]))
        assert pieces == ["n", "é"]

    def test_an_answer_cut_inside_a_character_is_sent_whole_in_the_end(self, byte_tokenizer):
        pieces = []
        stream = TextStream(byte_tokenizer, [0], pieces.append)
        ids = byte_tokenizer("né").input_ids[:-1]
        for i in ids:
            stream.put(torch.tensor([i]))
        stream.end()
        assert "".join(pieces) == decode_text(ids, byte_tokenizer, [0]) == "n\N{REPLACEMENT CHARACTER}"

    def test_streaming_equals_not_streaming(self, model, prompt):
        config, pieces = GenerationConfig(max_new_tokens=12), []
        ids = generate_ids(model, prompt, config, pieces.append)
        assert ids == generate_ids(model, prompt, config)
        assert "".join(pieces) == decode_text(ids, model.tokenizer, [END])
        assert len(pieces) > 1
