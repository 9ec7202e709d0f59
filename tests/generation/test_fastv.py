"""A language model that drops visual tokens after some layers."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from transformers import DynamicCache

from llava_scissor.compression import Identity
from llava_scissor.compression.baselines.fastv import FastV
from llava_scissor.config import GenerationConfig, VideoConfig
from llava_scissor.errors import InputError
from llava_scissor.generation import Batch, Request, Session, ask, ask_batch
from llava_scissor.generation.encode import encode_media
from llava_scissor.generation.fastv import PrunedRow, prune
from llava_scissor.generation.stopwatch import Stopwatch
from llava_scissor.model import Images

QUESTION, OTHER = "what is this?", "is this a helpful assistant"
CONFIG = GenerationConfig(max_new_tokens=5)
PICTURE = Image.effect_noise((90, 60), 80)


@pytest.fixture
def read(model, clip):
    """A function that returns the pruned prompt of a question about the clip."""

    def read(ratio, layer=1, media=clip, question=QUESTION) -> PrunedRow:
        compressor = FastV(retention_ratio=ratio, layer=layer)
        encoded = encode_media(model, media, VideoConfig(), Stopwatch(model.device), compressor)
        text_ids = model.tokenize(question, len(encoded.visuals))
        found = prune(model, text_ids, encoded, compressor)
        assert found is not None
        return found

    return read


def prompt_of(model, row, question=QUESTION):
    """Embeddings of the whole prompt."""
    return model.embed(model.tokenize(question, len(row.media.visuals)), row.media.visuals)


@torch.no_grad()
def plain_layers(model, prompt, layer):
    """Hidden states in front of a layer, and its attention, by the model's own eager forward (H, L, L)."""
    language_model = model.language_model
    language_model.set_attn_implementation("eager")
    try:
        found = language_model(inputs_embeds=prompt[None], output_attentions=True, output_hidden_states=True)
    finally:
        language_model.set_attn_implementation("sdpa")
    return found.hidden_states[layer][0], found.attentions[layer][0]


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_with_all_tokens_the_logits_are_those_of_the_model(kernel, model, read) -> None:
    pruned = read(1.0)
    logits = model.language_model(inputs_embeds=prompt_of(model, pruned)[None]).logits[0, -1:]
    model.language_model.set_attn_implementation(kernel)
    try:
        torch.testing.assert_close(pruned.prefill(), logits, rtol=0, atol=1e-5)
    finally:
        model.language_model.set_attn_implementation("sdpa")


def test_those_with_the_most_attention_of_the_last_token_are_kept(model, read, monkeypatch) -> None:
    pruned, seen, select = read(0.4), [], FastV.select
    monkeypatch.setattr(
        FastV, "select", lambda self, received: seen.append(received) or select(self, received)
    )
    _, attention = plain_layers(model, prompt_of(model, pruned), 0)
    before = len(model.tokenize(QUESTION)[0])
    received = attention[:, -1, before : before + 36].mean(0)
    pruned.prefill()
    torch.testing.assert_close(seen[0], received)
    (compression,) = pruned.media.compressions
    assert (compression.num_input, compression.num_kept) == (36, 14)
    kept = compression.assignment >= 0
    assert received[kept].min() > received[~kept].max()
    visual = pruned.media.visuals[0]
    assert compression.tokens.equal(visual[:36][kept])


def test_the_layers_behind_see_what_is_kept_at_its_own_positions(model, read) -> None:
    """The last layer by hand: a mask over the whole prompt in place of shorter keys."""
    pruned = read(0.4)
    logits = pruned.prefill()
    before = len(model.tokenize(QUESTION)[0])
    stays = torch.ones(len(prompt_of(model, pruned)), dtype=torch.bool)
    stays[before : before + 36] = pruned.media.compressions[0].assignment >= 0
    hidden, _ = plain_layers(model, prompt_of(model, pruned), 1)
    last = model.language_model.model.layers[1]
    rotary = model.language_model.model.rotary_emb(hidden[None], torch.arange(len(hidden))[None])
    allowed = (torch.ones(len(hidden), len(hidden)).tril().bool() & stays)[None, None]
    with torch.no_grad():
        out = last(hidden[None], attention_mask=allowed, position_embeddings=rotary)
        expected = model.language_model.lm_head(model.language_model.model.norm(out[:, -1]))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_the_cache_has_two_lengths(model, read) -> None:
    pruned = read(0.25)
    pruned.prefill()
    length = len(prompt_of(model, pruned))
    assert [layer.get_seq_length() for layer in pruned.cache.layers] == [length, length - 36 + 9]
    pruned.step(torch.tensor([5]))
    assert [layer.get_seq_length() for layer in pruned.cache.layers] == [length + 1, length + 1 - 36 + 9]


def test_the_answer_goes_on_behind_the_whole_prompt(model, read) -> None:
    """With all tokens, steps with the cache are those of the model."""
    pruned = read(1.0)
    pruned.prefill()
    cache = DynamicCache(config=model.language_model.config)
    with torch.no_grad():
        model.language_model(None, None, None, cache, inputs_embeds=prompt_of(model, pruned)[None])
        for token in (7, 9, 11):
            plain = model.language_model(torch.tensor([[token]]), None, None, cache).logits[0, -1:]
            torch.testing.assert_close(pruned.step(torch.tensor([token])), plain, rtol=0, atol=1e-5)


def test_a_batch_of_pruned_and_plain_prompts_goes_on_when_one_is_dropped(model, clip) -> None:
    """With all tokens kept, a pruned row says what a plain one says, whatever stands beside it."""
    keep_all = FastV(retention_ratio=1.0, layer=1)
    questions = [(QUESTION, None), (OTHER, keep_all), ("what are You", None), (QUESTION, keep_all)]
    requests = [Request(clip, question, compressor=compressor) for question, compressor in questions]
    alone = [ask(model, clip, question, generation_config=CONFIG) for question, _ in questions]
    batch = Batch(model, requests, None, CONFIG)
    batch.step()
    batch.drop(1)
    while batch.step():
        pass
    texts = [answer.text for answer in batch.outcomes()]
    assert [texts[i] for i in (0, 2, 3)] == [alone[i].text for i in (0, 2, 3)]
    assert alone[1].text.startswith(texts[1])
    assert len(texts[1]) < len(alone[1].text)


def test_every_way_gives_the_same_answer(model, clip, monkeypatch) -> None:
    monkeypatch.setattr(model, "compressor", FastV(retention_ratio=0.25, layer=1))
    one, other = (ask(model, clip, q, generation_config=CONFIG) for q in (QUESTION, OTHER))
    assert one.compression.num_kept == 9
    assert not one.compression.assignment.equal(other.compression.assignment)
    with Session(model, clip, generation_config=CONFIG) as session:
        for expected, question in ((one, QUESTION), (other, OTHER), (one, QUESTION)):
            found = session.ask(question)
            assert (found.text, found.num_cached_tokens) == (expected.text, 0)
            assert found.compression.assignment.equal(expected.compression.assignment)
        together = session.ask_together([OTHER, QUESTION])
        for expected, found in zip((other, one), together, strict=True):
            assert (found.text, found.num_cached_tokens) == (expected.text, 0)
            assert found.compression.assignment.equal(expected.compression.assignment)
    requests, pieces = [Request(clip, OTHER), Request(None, QUESTION), Request(clip, QUESTION)], ["", "", ""]

    def on_text(row, piece):
        pieces[row] += piece

    batch = ask_batch(model, requests, None, CONFIG, on_text)
    assert [piece.strip() for piece in pieces] == [answer.text for answer in batch]
    assert [batch[0].text, batch[2].text] == [other.text, one.text]
    assert batch[1].text == ask(model, None, QUESTION, generation_config=CONFIG).text
    assert set(batch[0].timings_s) == set(one.timings_s)


def test_a_ratio_of_one_is_no_compressor(model, clip, monkeypatch) -> None:
    plain = ask(model, clip, QUESTION, generation_config=CONFIG)
    assert isinstance(model.compressor, Identity)
    monkeypatch.setattr(model, "compressor", FastV(retention_ratio=1.0, layer=1))
    assert ask(model, clip, QUESTION, generation_config=CONFIG).text == plain.text


def test_images_share_one_budget(model, read) -> None:
    pruned = read(0.2, media=Images(PICTURE, PICTURE.rotate(90), compress=True))
    pruned.prefill()
    compressions = pruned.media.compressions
    assert sum(c.num_kept for c in compressions) == int(0.2 * sum(c.num_input for c in compressions))
    assert [len(c.assignment) for c in compressions] == [c.num_input for c in compressions]


def test_without_anything_to_drop_nothing_changes(model, clip) -> None:
    encoded = encode_media(model, clip, VideoConfig(), Stopwatch(model.device))
    assert prune(model, model.tokenize(QUESTION), encoded, None) is None
    uncompressed = encode_media(model, Images(PICTURE), VideoConfig(), Stopwatch(model.device))
    assert prune(model, model.tokenize(QUESTION), uncompressed, FastV(retention_ratio=0.5, layer=1)) is None


def test_a_layer_that_is_not_there_is_refused(read) -> None:
    with pytest.raises(InputError, match="drops tokens after 2 of 2 layers: expected 1 to 1"):
        read(0.5, 2)


def test_models_that_it_cannot_run_are_refused(model, read, monkeypatch) -> None:
    monkeypatch.setattr(model.language_model, "hf_device_map", {}, raising=False)
    with pytest.raises(InputError, match="full attention in every layer, and no device_map"):
        read(0.5)


def test_there_are_no_logits_at_every_position(model, monkeypatch) -> None:
    monkeypatch.setattr(model, "compressor", FastV(retention_ratio=0.5, layer=1))
    with pytest.raises(InputError, match="FastV drops positions"):
        model(torch.zeros(1, 3, 75, 75), QUESTION)
