"""Compressors that look into the vision tower, on every way to an answer."""

from __future__ import annotations

import pytest
from PIL import Image

from llava_scissor.compression.baselines.unified import Unified
from llava_scissor.compression.baselines.visionzip import VisionZip
from llava_scissor.config import GenerationConfig
from llava_scissor.generation import Request, Session, ask, ask_batch
from llava_scissor.model import Images

CONFIG = GenerationConfig(max_new_tokens=4)
PICTURE = Image.effect_noise((90, 60), 80)


@pytest.mark.parametrize("method", [VisionZip, Unified])
@pytest.mark.parametrize("kind", ["video", "images"])
def test_every_way_gives_the_same_answer(method, kind, model, clip, monkeypatch) -> None:
    monkeypatch.setattr(model, "compressor", method(retention_ratio=0.25))
    media = clip if kind == "video" else Images(PICTURE, PICTURE, compress=True)
    one = ask(model, media, "what is this?", generation_config=CONFIG)
    assert one.compressions[0].num_kept == int(0.25 * one.compressions[0].num_input)
    with Session(model, media, generation_config=CONFIG) as session:
        assert session.ask("what are You").text
        assert session.ask("what is this?").text == one.text
    (batched,) = ask_batch(model, [Request(media, "what is this?")], generation_config=CONFIG)
    assert batched.text == one.text
