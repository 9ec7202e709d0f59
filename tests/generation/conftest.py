from __future__ import annotations

import pytest
import torch

from llava_scissor.model import load_model
from llava_scissor.video import VideoClip
from tests.model.checkpoints import build_reference, build_tokenizer, save_original


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return load_model(save_original(build_reference(), tmp_path_factory.mktemp("checkpoint")), device="cpu")


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="session")
def clip():
    pixels = torch.randint(256, (4, 40, 60, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return VideoClip(
        frames=pixels,
        indices=(0, 2, 4, 6),
        timestamps_s=(0.0, 0.2, 0.4, 0.6),
        num_source_frames=8,
        fps=10.0,
        num_missing=0,
        source="clip",
    )
