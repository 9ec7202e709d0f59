from __future__ import annotations

import json

import av
import numpy as np
import pytest

from llava_scissor.demo.clips import (
    CLIP_FPS,
    CLIP_FRAMES,
    CLIP_SIZE_PX,
    scene_of_seed,
    write_clip,
    write_demo_clips,
)
from llava_scissor.demo.drawing import render
from llava_scissor.demo.questions import QUESTION_TYPES, Question
from llava_scissor.video import read_video
from tests.demo.oracle import answer

SEED = (5, 1)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_clip(*scene_of_seed(SEED), path)
    return path


def test_written_and_read_back(path) -> None:
    scene, rng = scene_of_seed(SEED)
    drawn = render(scene, rng, CLIP_SIZE_PX, np.linspace(0, 1, CLIP_FRAMES)).astype(np.int16)
    clip = read_video(path, CLIP_FRAMES)
    assert clip.frames.shape == (CLIP_FRAMES, CLIP_SIZE_PX, CLIP_SIZE_PX, 3) == (48, 256, 256, 3)
    assert clip.indices == tuple(range(CLIP_FRAMES))
    assert (clip.num_source_frames, clip.num_missing, clip.fps) == (CLIP_FRAMES, 0, CLIP_FPS)
    assert np.abs(clip.frames.numpy() - drawn).mean() < 5  # noise and half of the colour resolution are lost


def test_the_file_is_h264(path) -> None:
    with av.open(str(path)) as container:
        (stream,) = container.streams
        assert (stream.type, stream.codec_context.name, stream.pix_fmt) == ("video", "h264", "yuv420p")
        assert (stream.frames, stream.average_rate) == (CLIP_FRAMES, CLIP_FPS)


def test_the_seed_decides() -> None:
    scene, rng = scene_of_seed(SEED)
    same, same_rng = scene_of_seed(SEED)
    assert scene == same != scene_of_seed((5, 2))[0]
    assert rng.random() == same_rng.random()


def test_a_directory_of_clips(tmp_path) -> None:
    seeds = [(5, 1), (6,)]
    write_demo_clips(tmp_path / "videos", seeds)
    listing = json.loads((tmp_path / "videos" / "clips.json").read_text(encoding="utf-8"))
    assert list(listing) == ["shapes-5-1.mp4", "shapes-6.mp4"]
    for seed, (name, entries) in zip(seeds, listing.items(), strict=True):
        scene, _ = scene_of_seed(seed)
        questions = [Question(*entry) for entry in entries]
        assert [q.kind for q in questions] == sorted({q.kind for q in questions})
        assert all(q.answer == answer(scene, q.kind, q.text) for q in questions)
        assert (tmp_path / "videos" / name).stat().st_size > 1000


def test_shipped_clips_exist_and_have_questions(clips) -> None:
    assert 2 <= len(clips) <= 4
    for clip in clips:
        assert clip.path.is_file()
        assert len(clip.questions) >= 5
        assert read_video(clip.path, 8).num_source_frames == CLIP_FRAMES
    on_disk = {path.name for path in clips[0].path.parent.glob("*.mp4")}
    assert on_disk == {clip.path.name for clip in clips}
    assert {q.kind for clip in clips for q in clip.questions} == set(QUESTION_TYPES)


def test_shipped_clips_show_the_scene_of_their_name(clips) -> None:
    for clip in clips:
        seed = tuple(int(part) for part in clip.path.stem.removeprefix("shapes-").split("-"))
        scene, rng = scene_of_seed(seed)
        drawn = render(scene, rng, CLIP_SIZE_PX, np.linspace(0, 1, CLIP_FRAMES)).astype(np.int16)
        read = read_video(clip.path, CLIP_FRAMES).frames.numpy()
        assert np.abs(read - drawn).mean() < 6
        for question in clip.questions:
            assert question.answer == answer(scene, question.kind, question.text)
