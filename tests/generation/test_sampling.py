from __future__ import annotations

import dataclasses

import pytest
import torch

from llava_scissor.config import GenerationConfig
from llava_scissor.generation.sampling import Draw, NoUnspelledTokens, build_processors
from llava_scissor.model import GenerationDefaults

CPU = torch.device("cpu")
NO_IDS = torch.empty(1, 0, dtype=torch.long)
CHECKPOINT = GenerationDefaults((3,), repetition_penalty=1.1, temperature=0.7, top_p=0.8, top_k=20)


def listed(config: GenerationConfig, defaults: GenerationDefaults = CHECKPOINT) -> list[str]:
    return [type(processor).__name__ for processor in build_processors(config, defaults, 5, CPU)]


def test_a_greedy_answer_only_has_the_penalty_of_the_checkpoint():
    assert listed(GenerationConfig()) == ["NoUnspelledTokens", "RepetitionPenaltyLogitsProcessor"]


def test_the_caller_may_switch_the_penalty_off():
    assert listed(GenerationConfig(repetition_penalty=1.0)) == ["NoUnspelledTokens"]


def test_sampling_takes_open_settings_from_the_checkpoint():
    _, penalty, temperature, top_k, top_p, draw = build_processors(
        GenerationConfig(do_sample=True), CHECKPOINT, 5, CPU
    )
    assert (penalty.penalty, temperature.temperature, top_k.top_k, top_p.top_p) == (1.1, 0.7, 20, 0.8)
    assert isinstance(draw, Draw)


def test_sampling_prefers_the_settings_of_the_caller():
    config = GenerationConfig(do_sample=True, repetition_penalty=1.3, temperature=2.0, top_p=0.5, top_k=3)
    _, penalty, temperature, top_k, top_p, _ = build_processors(config, CHECKPOINT, 5, CPU)
    assert (penalty.penalty, temperature.temperature, top_k.top_k, top_p.top_p) == (1.3, 2.0, 3, 0.5)


def test_sampling_without_limits_only_draws():
    config = GenerationConfig(do_sample=True, repetition_penalty=1.0, top_p=1.0, top_k=0)
    assert listed(config) == ["NoUnspelledTokens", "TemperatureLogitsWarper", "Draw"]
    bare = dataclasses.replace(CHECKPOINT, top_k=0, top_p=1.0, repetition_penalty=1.0)
    assert listed(GenerationConfig(do_sample=True), bare) == listed(config)


def test_the_penalty_meets_an_answer_without_tokens():
    scores = torch.randn(1, 8)
    processors = build_processors(GenerationConfig(repetition_penalty=1.5), CHECKPOINT, 8, CPU)
    assert processors(NO_IDS, scores.clone()).equal(scores)
    penalised = processors(torch.tensor([[2]]), scores.clone())
    expected = scores.clone()
    expected[0, 2] = expected[0, 2] / 1.5 if expected[0, 2] > 0 else expected[0, 2] * 1.5
    torch.testing.assert_close(penalised, expected)


def test_ids_without_a_text_are_ruled_out():
    scores = NoUnspelledTokens(3)(NO_IDS, torch.ones(1, 5))
    assert scores.tolist() == [[1, 1, 1, -torch.inf, -torch.inf]]


class TestDraw:
    scores = torch.tensor([[0.0, 1.0, -torch.inf, 2.0]])

    def draws(self, seed: int, count: int) -> list[int]:
        draw = Draw(seed, CPU)
        return [draw(NO_IDS, self.scores).argmax().item() for _ in range(count)]

    def test_one_token_is_left(self):
        assert Draw(0, CPU)(NO_IDS, self.scores).isfinite().sum() == 1

    def test_a_seed_repeats_and_another_differs(self):
        assert self.draws(1, 50) == self.draws(1, 50) != self.draws(2, 50)

    def test_the_shares_are_those_of_the_softmax(self):
        shares = torch.bincount(torch.tensor(self.draws(0, 4000)), minlength=4) / 4000
        torch.testing.assert_close(shares, self.scores.softmax(-1)[0], rtol=0, atol=0.03)

    def test_the_global_random_state_is_neither_read_nor_written(self):
        state = torch.random.get_rng_state()
        first = self.draws(5, 10)
        assert torch.random.get_rng_state().equal(state)
        with torch.random.fork_rng():
            torch.manual_seed(99)
            assert self.draws(5, 10) == first


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_every_seed_that_a_config_allows_can_be_used(seed):
    Draw(GenerationConfig(do_sample=True, seed=seed).seed, CPU)
