from __future__ import annotations

import pytest
from safetensors.torch import load_file

from llava_scissor.model import load_model
from llava_scissor.model.weight_names import describe_spelling, our_name, stored_name
from tests.model.checkpoints import save_huggingface, save_original


def stored(directory) -> set[str]:
    return set(load_file(directory / "model.safetensors"))


@pytest.mark.parametrize("layout", ["original", "huggingface"])
def test_names_that_are_written_are_those_of_the_layout_and_are_read_back(layout, reference, tmp_path):
    save = {"original": save_original, "huggingface": lambda *a: save_huggingface(*a, "2024")}[layout]
    names = list(load_model(save(reference, tmp_path), device="cpu").state_dict())
    written = [stored_name(name, layout) for name in names]
    assert set(written) <= stored(tmp_path)
    assert [our_name(name, layout) for name in written] == names
    with pytest.raises(KeyError, match="elsewhere"):
        stored_name("elsewhere.weight", layout)


@pytest.mark.parametrize(
    ("spelling", "words"),
    [
        ("2024", "files of 2024, transformers 4"),
        ("flattened", "saved by transformers 5.6 or newer"),
        ("in_memory", "names of transformers 5 in memory"),
    ],
)
def test_the_three_spellings_of_hugging_face_are_told_apart(spelling, words, reference, tmp_path):
    save_huggingface(reference, tmp_path, spelling)
    assert describe_spelling(stored(tmp_path), "huggingface") == words


def test_the_original_layout_has_one_spelling(checkpoint):
    assert describe_spelling(stored(checkpoint), "original") == "original"
