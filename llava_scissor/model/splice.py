"""Text and visual embeddings in one sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llava_scissor.errors import InputError


def splice(
    texts: Sequence[Float[Tensor, "_ d"]], visuals: Sequence[Float[Tensor, "_ d"]]
) -> Float[Tensor, "l d"]:
    """Put each visual block in the place of a placeholder: text, visual, text, visual, ..., text.

    Args:
        texts: embeddings of the text before, between and behind the placeholders; a part may have no tokens.
        visuals: the visual blocks in the order of the placeholders.

    Returns:
        All rows in order (L, D), in the dtype and on the device of the text.

    Raises:
        InputError: the prompt has another number of placeholders than there are visual blocks.
    """
    num_placeholders, num_visuals = len(texts) - 1, len(visuals)
    if num_placeholders != num_visuals:
        raise InputError(f"the prompt has {num_placeholders} placeholders for {num_visuals} visual blocks")
    parts = [texts[0]]
    for visual, text in zip(visuals, texts[1:], strict=True):
        parts += [visual.to(text), text]
    return torch.cat(parts)  # (L, D)


def prompt_positions(num_ids: Sequence[int], blocks: Sequence[Int64[Tensor, " _"]]) -> Int64[Tensor, " l"]:
    """Return the position of each row of a spliced prompt.

    Args:
        num_ids: tokens of each text.
        blocks: for each visual block the positions of its rows, and then the one at which the next text begins,
            all counted from the beginning of the block.
    """
    parts = [torch.arange(num_ids[0])]
    start = num_ids[0]
    for block, count in zip(blocks, num_ids[1:], strict=True):
        parts.append(start + block[:-1])
        start += int(block[-1])
        parts.append(start + torch.arange(count))
        start += count
    return torch.cat(parts)
