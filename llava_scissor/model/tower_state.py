"""Attention and keys of the vision tower's last block, read while the tower runs as usual."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import SiglipVisionModel

from llava_scissor.compression.protocol import Needs, TowerState
from llava_scissor.model.pooling import pool_frames


@contextmanager
def watch_last_block(tower: SiglipVisionModel, needs: Needs) -> Iterator[list[TowerState]]:
    """Read what is needed from the last block each time the tower runs.

    The block keeps its attention kernel, which returns no attention; only its queries and keys are computed a
    second time. Calls of the same tower from other threads are not read.

    Args:
        tower: the vision tower; it ends with the block whose output is used.
        needs: what to read. If that is nothing, nothing is done.

    Yields:
        A list that gets the state of the patches at each call of the tower.
    """
    seen: list[TowerState] = []
    if needs == Needs():
        yield seen
        return

    reader = threading.get_ident()

    def read(block: Any, arguments: tuple[Any, ...], keywords: dict[str, Any] | None = None) -> None:
        # torch may call a hook that is just being added or removed without keywords, but only in other threads.
        if keywords is None or threading.get_ident() != reader:
            return
        hidden = keywords["hidden_states"] if "hidden_states" in keywords else arguments[0]
        queries, keys = (
            proj(hidden).unflatten(-1, (-1, block.head_dim)) for proj in (block.q_proj, block.k_proj)
        )  # (F, S, H, D_k)
        received = torch.stack([attention_received(q, k) for q, k in zip(queries, keys, strict=True)])
        mean_keys = keys.mean(2, dtype=torch.float32)
        seen.append(TowerState(received if needs.attention else None, mean_keys if needs.keys else None))

    handle = (
        tower.encoder.layers[-1].get_submodule("self_attn").register_forward_pre_hook(read, with_kwargs=True)
    )
    try:
        yield seen
    finally:
        handle.remove()


def attention_received(queries: Float[Tensor, "s h k"], keys: Float[Tensor, "s h k"]) -> Tensor:
    """Return the mean attention that each patch of a frame receives (s,), over heads and queries; it sums to 1.

    Cost: memory for the attention of one frame, H * S^2 numbers.
    """
    queries, keys = queries.float().transpose(0, 1), keys.float().transpose(0, 1)  # (H, S, D_k)
    logits = queries @ keys.transpose(1, 2) * queries.shape[-1] ** -0.5
    return logits.softmax(-1).mean((0, 1))


def pool_states(states: list[TowerState], stride: int) -> TowerState:
    """Join the states of successive chunks of frames, and pool them as the patches are pooled."""
    attention = [
        pool_frames(s.attention[..., None], stride)[..., 0] for s in states if s.attention is not None
    ]
    keys = [pool_frames(s.keys, stride) for s in states if s.keys is not None]
    return TowerState(torch.cat(attention) if attention else None, torch.cat(keys) if keys else None)
