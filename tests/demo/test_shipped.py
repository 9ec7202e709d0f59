"""The model and the clips in the package: what they must be able to do."""

from __future__ import annotations

import json

import pytest

from llava_scissor.compression import Identity, build_compressor
from llava_scissor.config import GenerationConfig, ScissorConfig, VideoConfig
from llava_scissor.demo.vocabulary import build_tokenizer
from llava_scissor.generation import ask
from llava_scissor.model import load_model
from llava_scissor.results.answers import ANSWER_TASK
from llava_scissor.results.store import ResultStore
from llava_scissor.suites.suite import Suite, run_suite
from tests.demo.test_export import FILES

MEGABYTE = 10**6


def test_the_files(shipped_directory, clips) -> None:
    model_files = list(shipped_directory.iterdir())
    assert {path.name for path in model_files} - {"README.md"} == FILES
    videos = list(clips[0].path.parent.iterdir())
    assert sum(path.stat().st_size for path in model_files + videos) < 10 * MEGABYTE
    config = json.loads((shipped_directory / "config.json").read_text(encoding="utf-8"))
    assert config["mm_vision_tower"] == "llava-scissor/siglip-demo"


def test_its_layout_and_sizes(shipped) -> None:
    geometry = shipped.geometry
    assert (geometry.layout, geometry.use_newline) == ("original", True)
    assert (geometry.image_size, geometry.tokens_per_frame, geometry.default_num_frames) == (128, 64, 8)
    assert 2e6 <= sum(p.numel() for p in shipped.parameters()) <= 5e6
    assert shipped.tokenizer.get_vocab() == build_tokenizer().get_vocab()


def test_held_out_clips_are_answered(shipped, tmp_path) -> None:
    """A floor below what docs/evaluation.md reports, for clips that no report is about."""
    clips = Suite("unreported", 50_000, 24)
    store = ResultStore(tmp_path, {"suite": clips.name}, ANSWER_TASK)
    answers = run_suite(shipped, {("none", 1.0): Identity()}, clips, store)
    assert len(answers) > 24 * 5
    wrong = [a for a in answers if not a.is_right]
    assert len(wrong) <= 0.07 * len(answers), wrong


def test_shipped_clips_are_answered(shipped, clips) -> None:
    right = []
    for clip in clips:
        for question in clip.questions:
            said = ask(
                shipped, clip.path, question.text, VideoConfig(), GenerationConfig(max_new_tokens=8)
            ).text
            right.append(said == question.answer)
    assert sum(right) / len(right) >= 0.9


def test_a_tenth_of_the_tokens_still_answers(shipped_directory, clips) -> None:
    compressor = build_compressor(ScissorConfig(retention_ratio=0.1))
    model = load_model("demo", device="cpu", compressor=compressor)
    answer = ask(model, clips[0].path, "What is the background?", VideoConfig(), GenerationConfig())
    assert (answer.compression.num_input, answer.compression.num_kept) == (512, 51)
    assert answer.text in ("plain", "stripes", "checker", "dots", "gradient")


@pytest.mark.parametrize("num_frames", [1, 4, 16])
def test_other_numbers_of_frames(shipped, clips, num_frames: int) -> None:
    config = VideoConfig(num_frames=num_frames)
    answer = ask(
        shipped, clips[0].path, "What is the background?", config, GenerationConfig(max_new_tokens=4)
    )
    assert answer.compression.num_input == 64 * num_frames
