from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import GenerationConfig as TransformersGenerationConfig

from llava_scissor.config import GenerationConfig
from llava_scissor.errors import InputError
from llava_scissor.generation.decode import Decoder, JoinedRows, PlainRows, Reply, find_stop_ids, pad_left
from llava_scissor.generation.detokenizer import Detokenizer
from llava_scissor.generation.sampling import build_processors
from llava_scissor.generation.stopwatch import Stopwatch
from llava_scissor.model import GenerationDefaults
from tests.model.checkpoints import VOCABULARY_SIZE, build_tokenizer
from tests.writing import generate_ids, write

END = 3


@pytest.fixture(scope="module")
def prompt(model):
    tokens = torch.randn(18, 48, generator=torch.Generator().manual_seed(0))
    return model.embed_prompt(model.tokenize("what is this?"), tokens)


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
        monkeypatch.setattr("llava_scissor.generation.decode.find_stop_ids", lambda model: [VOCABULARY_SIZE])
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
        assert laps == ["prefill"] + ["generate"] * len(ids)
        assert ran == [laps[:i] for i in (0, *range(2, len(ids) + 1))]

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
        message = f"{len(prompt)} positions and an answer of up to {room + 1} need 513 .* the model has 512"
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


def test_streaming_equals_not_streaming(model, prompt):
    config, pieces = GenerationConfig(max_new_tokens=12), []
    ids = generate_ids(model, prompt, config, pieces.append)
    assert ids == generate_ids(model, prompt, config)
    assert "".join(pieces) == Detokenizer(model.tokenizer, [END]).whole(ids)
    assert len(pieces) > 1


class TestStopTexts:
    def test_the_answer_ends_before_a_stop_text(self, model, prompt):
        ids = generate_ids(model, prompt, GenerationConfig(max_new_tokens=12))
        words = Detokenizer(model.tokenizer, []).whole(ids).split()
        stop = next(word for i, word in enumerate(words) if i > 2 and word not in words[:i])
        reply = Reply(model, GenerationConfig(max_new_tokens=12, stop=(stop,)))
        write(model, [prompt], [reply])
        assert reply.has_stopped
        assert len(reply.ids) == words.index(stop) + 1
        assert reply.text.whole(reply.ids).split() == words[: words.index(stop)]

    def test_without_one_it_goes_on(self, model, prompt):
        config = GenerationConfig(max_new_tokens=12)
        ids = generate_ids(model, prompt, config.model_copy(update={"stop": ("never written",)}))
        assert ids == generate_ids(model, prompt, config)


class TestAgainstTransformers:
    """The loop here and `generate` of transformers, with the same logits processors."""

    @pytest.mark.parametrize(
        "config",
        [
            GenerationConfig(max_new_tokens=40),
            GenerationConfig(max_new_tokens=40, repetition_penalty=1.3),
            GenerationConfig(max_new_tokens=40, do_sample=True, temperature=2.0, seed=1),
            GenerationConfig(max_new_tokens=40, do_sample=True, top_k=9, top_p=0.9, seed=2),
        ],
        ids=["greedy", "penalty", "temperature", "top"],
    )
    def test_ids(self, config, model, prompt):
        expected = model.language_model.generate(
            inputs_embeds=prompt[None],
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            logits_processor=build_processors(
                config, model.geometry.generation, model.num_token_ids, prompt.device
            ),
            generation_config=TransformersGenerationConfig(
                max_new_tokens=config.max_new_tokens, do_sample=False, eos_token_id=END, pad_token_id=0
            ),
        )
        assert generate_ids(model, prompt, config) == expected[0].tolist()


class TestRows:
    def prompts(self, model):
        noise = torch.Generator().manual_seed(3)
        lengths = {"what is this?": 18, "is this a helpful assistant .": 5, "what": 31}
        return [
            model.embed_prompt(model.tokenize(q), torch.randn(n, 48, generator=noise))
            for q, n in lengths.items()
        ]

    def test_padding_is_on_the_left_and_masked(self):
        embeds, mask = pad_left([torch.ones(2, 4), torch.ones(3, 4)], num_cached=1)
        assert embeds[..., 0].tolist() == [[0, 1, 1], [1, 1, 1]]
        assert mask.tolist() == [[1, 0, 1, 1], [1, 1, 1, 1]]

    def test_positions_count_from_the_first_token_of_each_row(self, model):
        """Rotary positions are relative: a shift would hardly show in the logits, but cost context."""
        seen = []
        handle = model.language_model.model.register_forward_pre_hook(
            lambda module, arguments, keywords: seen.append(keywords["position_ids"]), with_kwargs=True
        )
        prompts = self.prompts(model)
        write(model, prompts, [Reply(model, GenerationConfig(max_new_tokens=1)) for _ in prompts])
        handle.remove()
        for prompt, positions in zip(prompts, seen[0], strict=True):
            assert positions[-len(prompt) :].tolist() == list(range(len(prompt)))

    def test_each_row_has_its_settings_and_its_end(self, model):
        prompts = self.prompts(model)
        configs = [
            GenerationConfig(max_new_tokens=3),
            GenerationConfig(max_new_tokens=20, do_sample=True, temperature=2.0, seed=7),
            GenerationConfig(max_new_tokens=12, repetition_penalty=1.5),
        ]
        alone = [generate_ids(model, p, c) for p, c in zip(prompts, configs, strict=True)]
        replies = [Reply(model, config) for config in configs]
        order = write(model, prompts, replies)
        assert [reply.ids for reply in replies] == alone
        assert len({len(ids) for ids in alone}) > 1
        assert [order.count(row) for row in range(3)] == [len(ids) for ids in alone]

    def test_a_row_that_is_done_leaves_the_batch(self, model):
        sizes = []
        handle = model.language_model.lm_head.register_forward_hook(
            lambda module, inputs, output: sizes.append(len(inputs[0]))
        )
        replies = [Reply(model, GenerationConfig(max_new_tokens=n, stop=())) for n in (2, 1, 4)]
        for reply in replies:
            reply._stop_ids = []
        write(model, self.prompts(model), replies)
        handle.remove()
        assert sizes == [3, 2, 1, 1]

    def test_logits_of_a_padded_row_are_those_of_the_row_alone(self, model, monkeypatch):
        seen = {}
        choose = Reply.choose

        def record(reply, logits):
            seen.setdefault(id(reply), []).append(logits.clone())
            return choose(reply, logits)

        monkeypatch.setattr(Reply, "choose", record)
        config = GenerationConfig(max_new_tokens=6)
        prompts = self.prompts(model)
        alone, together = ([Reply(model, config) for _ in prompts] for _ in range(2))
        for prompt, reply in zip(prompts, alone, strict=True):
            write(model, [prompt], [reply])
        write(model, prompts, together)
        for one, other in zip(alone, together, strict=True):
            # measured: 1.4e-6 with logits of up to 3
            torch.testing.assert_close(
                torch.cat(seen[id(one)]), torch.cat(seen[id(other)]), rtol=0, atol=1e-5
            )


class Endless(Reply):
    """An answer that ends only where it is cut."""

    def __init__(self, model, num_tokens):
        super().__init__(model, GenerationConfig(max_new_tokens=num_tokens))
        self._stop_ids = []


class TestStepping:
    """What a server does between two steps."""

    LENGTHS = (9, 4, 23)

    def prompts(self, model):
        noise = torch.Generator().manual_seed(5)
        return [torch.randn(n, model.geometry.language.hidden_size, generator=noise) for n in self.LENGTHS]

    def decoder(self, model, replies, parts=1):
        """All prompts in one batch, or each in one of its own."""
        prompts = self.prompts(model)
        split = [prompts] if parts == 1 else [[prompt] for prompt in prompts]
        rows = JoinedRows([PlainRows(model, part) for part in split])
        return Decoder(rows, dict(enumerate(replies)), Stopwatch(model.device))

    @pytest.fixture
    def alone(self, model):
        """Each answer by itself."""
        replies = [Endless(model, 8) for _ in self.LENGTHS]
        for prompt, reply in zip(self.prompts(model), replies, strict=True):
            write(model, [prompt], [reply])
        return [reply.ids for reply in replies]

    def test_a_step_is_one_token_of_each(self, model, alone):
        replies = [Endless(model, n) for n in (2, 8, 3)]
        decoder = self.decoder(model, replies)
        steps = [list(decoder.step()) for _ in range(9)]
        assert steps == [[0, 1, 2], [0, 1, 2], [1, 2], [1], [1], [1], [1], [1], []]
        assert [reply.ids for reply in replies] == [alone[0][:2], alone[1], alone[2][:3]]

    def test_nothing_runs_before_the_first_step_and_between_steps(self, model):
        calls = []
        handle = model.language_model.register_forward_hook(lambda *call: calls.append(1))
        replies = [Endless(model, 8) for _ in self.LENGTHS]
        decoder = self.decoder(model, replies)
        counts = [len(calls)]
        for _ in range(3):
            decoder.step()
            counts.append(len(calls))
        handle.remove()
        assert counts == [0, 1, 2, 3]
        assert [len(reply.ids) for reply in replies] == [3, 3, 3]

    @pytest.mark.parametrize("parts", [1, 3])
    @pytest.mark.parametrize("moment", [0, 1, 4])
    @pytest.mark.parametrize("dropped", [[0], [1], [2], [2, 0]])
    def test_others_do_not_notice_that_one_is_dropped(self, dropped, moment, parts, model, alone):
        replies = [Endless(model, 8) for _ in self.LENGTHS]
        decoder = self.decoder(model, replies, parts)
        for _ in range(moment):
            decoder.step()
        for number in dropped:
            decoder.drop(number)
            decoder.drop(number)  # again: nothing left to do
        assert list(decoder.step()) == [n for n in range(3) if n not in dropped]
        list(decoder)
        for number, reply in enumerate(replies):
            expected = alone[number][:moment] if number in dropped else alone[number]
            assert reply.ids == expected

    def test_all_may_be_dropped(self, model):
        replies = [Endless(model, 8) for _ in self.LENGTHS]
        decoder = self.decoder(model, replies)
        decoder.step()
        for number in range(3):
            decoder.drop(number)
        assert decoder.step() == {}
        assert [len(reply.ids) for reply in replies] == [1, 1, 1]

    def test_pieces_add_up_to_the_answers(self, model):
        replies = [Endless(model, 8) for _ in self.LENGTHS]
        texts = ["", "", ""]
        for pieces in self.decoder(model, replies):
            for number, piece in pieces.items():
                texts[number] += piece
        assert texts == [reply.text.whole(reply.ids) for reply in replies]
        assert all(texts)

    def test_two_decoders_take_turns_on_one_model(self, model, alone):
        replies = [[Endless(model, 8) for _ in self.LENGTHS] for _ in range(2)]
        one, other = (self.decoder(model, own) for own in replies)
        one.step()
        while other.step():
            one.step()
        list(one)
        assert [[reply.ids for reply in own] for own in replies] == [alone, alone]
