"""Many questions in one sequence give the logits that each of them has alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from llava_scissor.demo.packing import answer_logits, pack_questions
from llava_scissor.demo.questions import Question, sample_questions
from llava_scissor.demo.scenes import sample_scene
from llava_scissor.demo.vocabulary import TURN_END, build_tokenizer, words
from llava_scissor.model.prompt import build_prompt, tokenize_prompt

NUM_VISUAL = 37
SYSTEM = "You are a helpful assistant."
TOLERANCE = (
    2e-5  # largest difference seen in float32: 2e-6, of logits up to 3; bf16 or a wrong place: above 1e-2
)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def language_model():
    config = Qwen2Config(
        vocab_size=len(words()),
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Qwen2ForCausalLM(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def visual():
    return torch.randn(3, NUM_VISUAL, 48, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def batch() -> list[list[Question]]:
    """Three videos with different numbers of questions, so that two of them are padded."""
    rngs = [np.random.default_rng(seed) for seed in range(3)]
    drawn = [sample_questions(sample_scene(rng), rng, per_type=2) for rng in rngs]
    assert len({len(questions) for questions in drawn}) > 1
    return drawn


def alone(language_model, tokenizer, visual, question: Question) -> torch.Tensor:
    """Logits for the answer's tokens and the end of the turn, of one question as it is asked at inference."""
    before, behind = tokenize_prompt(build_prompt(question.text, SYSTEM), tokenizer)
    answer = tokenizer(question.answer, add_special_tokens=False).input_ids
    embed = language_model.get_input_embeddings()
    parts = [embed(torch.tensor(before)), visual, embed(torch.tensor([*behind, *answer]))]
    logits = language_model(inputs_embeds=torch.cat(parts)[None], use_cache=False).logits[0]
    return logits[-len(answer) - 1 :]


def test_packed_is_alone(language_model, tokenizer, visual, batch) -> None:
    packed = pack_questions(batch, tokenizer)
    logits, trained = answer_logits(language_model, tokenizer, visual, packed)
    expected = [
        alone(language_model, tokenizer, visual[video], question)
        for video, questions in enumerate(batch)
        for question in questions
    ]
    assert len(logits) == trained.sum() == sum(map(len, expected))
    torch.testing.assert_close(logits, torch.cat(expected), rtol=0, atol=TOLERANCE)


def test_the_test_would_see_a_wrong_mask_or_place(language_model, tokenizer, visual, batch) -> None:
    packed = pack_questions(batch, tokenizer)
    right, _ = answer_logits(language_model, tokenizer, visual, packed)
    for name in ("block", "position"):
        changed = packed._replace(**{name: torch.zeros_like(packed.position)})
        wrong, _ = answer_logits(language_model, tokenizer, visual, changed)
        assert (wrong - right).abs().max() > 100 * TOLERANCE


def test_targets_are_the_answers_and_the_end_of_the_turn(tokenizer, batch) -> None:
    packed = pack_questions(batch, tokenizer)
    for row, questions in enumerate(batch):
        for block, question in enumerate(questions):
            mine = packed.block[row] == block
            targets = packed.target[row][mine]
            ids = tokenizer(f"{question.answer}{TURN_END}").input_ids
            assert targets[targets != -100].tolist() == ids
            assert packed.position[row][mine].tolist() == list(range(mine.sum()))
            text = build_prompt(question.text, SYSTEM).split("<image>")[1] + question.answer
            assert packed.ids[row][mine].tolist() == tokenizer(text).input_ids


def test_padding_is_trained_on_nothing(tokenizer, batch) -> None:
    packed = pack_questions(batch, tokenizer)
    padding = packed.block == -1
    assert padding.any()
    assert (packed.target[padding] == -100).all()
    lengths = (~padding).sum(1)
    assert packed.ids.shape == (3, lengths.max())
    assert all(not padding[row, :length].any() for row, length in enumerate(lengths))
