from __future__ import annotations

import pytest
import torch

from llava_scissor.demo.vocabulary import build_tokenizer
from llava_scissor.errors import InputError
from llava_scissor.model import OneVision
from llava_scissor.model.published import published_geometry


@pytest.mark.parametrize(
    ("size", "billions"), [("0.5b", 0.89), ("7b", 8.03)]
)  # as published: 0.9 and 8.0 billion, tower included
def test_the_named_sizes_are_those_of_the_published_models(size: str, billions: float) -> None:
    with torch.device("meta"):
        model = OneVision(published_geometry(size), build_tokenizer())
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.005)


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"model size '3b': expected 0\.5b or 7b"):
        published_geometry("3b")
