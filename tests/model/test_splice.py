from __future__ import annotations

import pytest
import torch

from llava_scissor.errors import InputError
from llava_scissor.model.splice import prompt_positions, splice


def rows(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None].expand(-1, 2)


def test_visual_blocks_take_the_places_between_the_texts():
    spliced = splice([rows(1, 2), rows(), rows(3)], [rows(10, 11, 12), rows(20)])
    assert spliced[:, 0].tolist() == [1, 2, 10, 11, 12, 20, 3]


def test_text_alone_stays_as_it_is():
    assert splice([rows(1, 2)], []).equal(rows(1, 2))


def test_visual_blocks_take_the_dtype_of_the_text():
    assert splice([rows(1), rows(2)], [rows(3).double()]).dtype == torch.float32


@pytest.mark.parametrize("num_blocks", [0, 2])
def test_counts_that_differ_are_refused_with_both_numbers(num_blocks):
    with pytest.raises(InputError, match=f"1 placeholders for {num_blocks} visual blocks"):
        splice([rows(1), rows(2)], [rows(3)] * num_blocks)


def test_positions_go_on_behind_what_each_block_stands_for():
    blocks = [torch.tensor([0, 4, 5, 9]), torch.tensor([0, 1])]  # three rows of nine, one row of one
    assert prompt_positions([2, 0, 2], blocks).tolist() == [0, 1, 2, 6, 7, 11, 12, 13]
    assert prompt_positions([3], []).tolist() == [0, 1, 2]
