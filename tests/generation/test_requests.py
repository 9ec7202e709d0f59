"""What belongs to a request: its compressor and its system prompt, whatever else the model is asked."""

from __future__ import annotations

from dataclasses import replace
from threading import Barrier, Thread

import pytest

from llava_scissor.compression import Identity, build_compressor
from llava_scissor.compression.baselines.fastv import FastV
from llava_scissor.compression.baselines.visionzip import VisionZip
from llava_scissor.config import GenerationConfig, ScissorConfig
from llava_scissor.errors import InputError
from llava_scissor.generation import Request, Session, ask, ask_batch

QUESTION = "what is this?"
CONFIG = GenerationConfig(max_new_tokens=6)
SYSTEM = "You are this"


def scissor(ratio):
    return build_compressor(ScissorConfig(retention_ratio=ratio))


def told(answer):
    """What an answer is made of, as far as its compressor decides it."""
    (kept,) = answer.compressions
    return answer.text, answer.num_prompt_tokens, kept.num_kept, kept.assignment.tolist()


@pytest.mark.parametrize(
    ("few", "many"),
    [
        (scissor(0.1), scissor(0.7)),
        (VisionZip(retention_ratio=0.2), VisionZip(retention_ratio=0.6)),
        (VisionZip(retention_ratio=0.2), FastV(retention_ratio=0.5, layer=1)),
    ],
    ids=["scissor", "attention", "stages"],
)
def test_threads_with_compressors_of_their_own_share_a_model(few, many, model, clip):
    jobs = [(clip, few), (replace(clip, frames=clip.frames.flip(1)), many)]
    alone = [told(ask(model, c, QUESTION, None, CONFIG, compressor=compressor)) for c, compressor in jobs]
    assert alone[0][2] != alone[1][2]
    together: list[list] = [[], []]
    start = Barrier(2)

    def run(i):
        for _ in range(6):
            start.wait(timeout=60)
            one, compressor = jobs[i]
            together[i].append(told(ask(model, one, QUESTION, None, CONFIG, compressor=compressor)))

    threads = [Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [[alone[0]] * 6, [alone[1]] * 6]
    assert isinstance(model.compressor, Identity)


def test_every_way_of_asking_takes_a_compressor(model, clip):
    few, many = scissor(0.25), scissor(0.5)
    expected = {c: told(ask(model, clip, QUESTION, None, CONFIG, compressor=c)) for c in (few, many)}
    assert (expected[few][2], expected[many][2]) == (9, 18)
    with Session(model, clip, None, CONFIG, compressor=few) as session:
        assert told(session.ask(QUESTION)) == expected[few]
    requests = [Request(clip, QUESTION), Request(clip, QUESTION, compressor=many)]
    batch = ask_batch(model, requests, None, CONFIG, compressor=few)
    assert [told(answer) for answer in batch] == [expected[few], expected[many]]


def test_the_system_prompt_is_an_argument(model, clip):
    own = model.geometry.system_prompt
    assert model.tokenize(QUESTION, system=own) == model.tokenize(QUESTION)
    before, _ = model.tokenize(QUESTION, system=SYSTEM)
    words = model.tokenizer(SYSTEM, add_special_tokens=False).input_ids
    assert any(before[i : i + len(words)] == words for i in range(len(before)))
    plain = ask(model, clip, QUESTION, None, CONFIG)
    given = ask(model, clip, QUESTION, None, CONFIG, system=SYSTEM)
    difference = len(model.tokenize(QUESTION)[0]) - len(before)
    assert plain.num_prompt_tokens - given.num_prompt_tokens == difference != 0
    with Session(model, clip, None, CONFIG, system=SYSTEM) as session:
        assert told(session.ask(QUESTION)) == told(given)
    batch = ask_batch(model, [Request(clip, QUESTION), Request(clip, QUESTION, system=SYSTEM)], None, CONFIG)
    assert [told(answer) for answer in batch] == [told(plain), told(given)]


@pytest.mark.parametrize(
    ("system", "message"),
    [
        ("", "a system prompt must be a text that is not blank, got ''"),
        ("You<|im_end|>", "the system prompt contains the control token '<|im_end|>'"),
        ("<image>", "the system prompt contains the control token '<image>'"),
        ("\ud800", "the system prompt is not valid Unicode"),
    ],
)
def test_a_bad_system_prompt_is_refused_as_a_question_is(system, message, model):
    with pytest.raises(InputError) as caught:
        ask(model, "there/is/no/film.mp4", QUESTION, system=system)
    assert message in str(caught.value)
