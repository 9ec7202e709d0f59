from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from llava_scissor._version import __version__
from llava_scissor.bench.record import record
from llava_scissor.bench.recordings import check_target, read_recording, write_recording
from llava_scissor.config import Config, ModelConfig, VideoConfig
from llava_scissor.demo.clips import demo_clips
from llava_scissor.errors import InputError, VideoError
from llava_scissor.model import load_model_from
from llava_scissor.video import preprocess_frames, read_video
from tests.model.checkpoints import build_reference, save_huggingface, save_original

VIDEO = str(demo_clips()[0].path)


def settings(path: str | Path, num_frames: int, dtype: str = "auto") -> Config:
    model = ModelConfig(path=str(path), device="cpu", dtype=dtype)
    return Config(model=model, video=VideoConfig(num_frames=num_frames))


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def tokens_of(config: Config) -> torch.Tensor:
    """What the model makes of the frames, step by step."""
    model = load_model_from(config.model)
    clip, geometry = read_video(VIDEO, config.video.num_frames), model.geometry
    pixels = preprocess_frames(
        clip.frames, geometry.image_size, geometry.image_mean, geometry.image_std, config.video.resize
    )
    return model.encode_video(pixels)


def test_the_tokens_before_the_compressor_are_written(tmp_path) -> None:
    path = tmp_path / "clip.safetensors"
    written = record(settings("demo", 3), VIDEO, path)
    assert torch.equal(read_recording(path).tokens, written.tokens)
    assert torch.equal(written.tokens, tokens_of(settings("demo", 3)).half())
    assert metadata(path) == {
        "model": "demo",
        "video": Path(VIDEO).name,
        "frames": "0 23 47",
        "version": __version__,
    }


@pytest.mark.parametrize("layout", ["original", "huggingface"])
def test_any_checkpoint_can_be_recorded(tmp_path, layout: str) -> None:
    folder, path = tmp_path / "tiny", tmp_path / "clip.safetensors"
    model = build_reference()
    save_original(model, folder) if layout == "original" else save_huggingface(model, folder, "flattened")
    written = record(settings(folder, 2), VIDEO, path).tokens
    assert torch.equal(written, tokens_of(settings(folder, 2)).half())
    assert written.shape == (2, 9, 48)
    assert metadata(path)["model"] == "tiny"
    assert str(tmp_path) not in str(metadata(path))


def test_bfloat16_stays(tmp_path) -> None:
    written = record(settings("demo", 1, "bfloat16"), VIDEO, tmp_path / "clip")
    assert written.tokens.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("tokens", "dtype"),
    [
        (torch.ones(1, 4, 8), torch.float16),
        (torch.full((1, 4, 8), 1e5), torch.bfloat16),  # float16 ends at 65504
        (torch.ones(1, 4, 8, dtype=torch.bfloat16), torch.bfloat16),
        (torch.ones(8, 4, 1).transpose(0, 2), torch.float16),
    ],
)
def test_tokens_are_stored_in_16_bits_that_hold_them(tmp_path, tokens, dtype) -> None:
    path = tmp_path / "clip"
    write_recording(path, tokens, {})
    found = read_recording(path).tokens
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), tokens.float(), rtol=0.01, atol=0)


def test_tokens_that_are_no_numbers_are_not_written(tmp_path) -> None:
    with pytest.raises(InputError, match="contain NaN or infinity: try another number format"):
        write_recording(tmp_path / "clip", torch.full((1, 1, 2), float("nan")), {})
    assert not (tmp_path / "clip").exists()


def test_a_target_that_cannot_be_written_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nowhere; make it first"):
        check_target(tmp_path / "nowhere" / "clip")
    with pytest.raises(InputError, match="is a folder, expected the name of a file"):
        check_target(tmp_path)
    check_target(tmp_path / "clip")
    with pytest.raises(InputError, match=r"nowhere.clip cannot be written"):
        write_recording(tmp_path / "nowhere" / "clip", torch.ones(1, 1, 2), {})


def test_a_video_that_is_none_is_named(tmp_path) -> None:
    with pytest.raises(VideoError, match=r"nowhere\.mp4"):
        record(settings("demo", 1), str(tmp_path / "nowhere.mp4"), tmp_path / "clip")
    assert not (tmp_path / "clip").exists()
