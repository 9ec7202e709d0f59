"""Prefill and steps of a language model that drops visual tokens after its first layers: FastV."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from llava_scissor.compression import Compressor
from llava_scissor.compression.baselines.selection import select
from llava_scissor.compression.protocol import PromptPruner, stage_of
from llava_scissor.errors import InputError
from llava_scissor.generation.encode import EncodedMedia
from llava_scissor.model import OneVision


class PrunedRow:
    """A prompt of which the language model drops visual tokens on its way through the layers.

    The first `layer` layers of the pruner hold keys and values of the whole prompt, the others of what is kept.
    Kept tokens stay at their original positions, and the answer goes on behind the whole prompt. It is one
    row of `llava_scissor.generation.decode.Rows`: the layers of two prompts would differ in length.

    Attributes:
        media: what the model sees; after the prefill, with what was kept.
        cache: keys and values, of different lengths.
    """

    def __init__(
        self, model: OneVision, text_ids: list[list[int]], media: EncodedMedia, pruner: PromptPruner
    ) -> None:
        config = model.language_model.config
        num_layers, is_full = config.num_hidden_layers, "sliding_attention" not in (config.layer_types or ())
        if not 0 < pruner.layer < num_layers or not is_full or hasattr(model.language_model, "hf_device_map"):
            raise InputError(
                f"{type(pruner).__name__} drops tokens after {pruner.layer} of {num_layers} layers: expected 1 "
                f"to {num_layers - 1}, a language model with full attention in every layer, and no device_map"
            )
        self.media = media
        self.cache = DynamicCache(config=config)
        self._text_ids, self._pruner = text_ids, pruner
        self._embed, self._model = model.embed, model.language_model

    def __len__(self) -> int:
        return 1

    def prefill(self) -> Float[Tensor, "1 v"]:
        """Read the prompt; returns the logits of the first token of the answer."""
        layers, first = self._model.model.layers, self._pruner.layer
        prompt = self._embed(self._text_ids, self.media.visuals)[None]  # (1, L, D)
        positions = torch.arange(prompt.shape[1], device=prompt.device)
        before = self._run(layers[: first - 1], prompt, positions)
        hidden = self._run(layers[first - 1 : first], before, positions)
        attention = self._attention_of_last(layers[first - 1], before[:, -1:], positions[-1:])
        visual = _visual_positions(self._text_ids, self.media).to(prompt.device)  # (N,)
        kept = self._pruner.select(attention[visual])
        stays = torch.ones_like(positions, dtype=torch.bool)
        stays[visual] = False
        stays[visual[kept]] = True
        hidden = self._run(layers[first:], hidden[:, stays], positions[stays])
        self.media = _with_kept(self.media, kept)
        return self._logits(hidden)

    def step(self, ids: Int64[Tensor, " 1"]) -> Float[Tensor, "1 v"]:
        """Read the next token of the answer; returns the logits of the one after it."""
        # The first layer, unlike the last, has seen the whole prompt and every token of the answer.
        embedding = self._model.model.embed_tokens
        hidden = embedding(ids[None].to(embedding.weight.device))
        position = torch.tensor([self.cache.get_seq_length(0)], device=hidden.device)
        return self._logits(self._run(self._model.model.layers, hidden, position))

    def keep(self, rows: list[int]) -> None:
        """Do nothing: the only row stays."""

    def _run(self, layers: Iterable[nn.Module], hidden: Tensor, positions: Int64[Tensor, " l"]) -> Tensor:
        # The mask counts what is in `hidden` alone: a single token behind a cache sees everything.
        mask = None
        if hidden.shape[1] > 1:
            mask = create_causal_mask(self._model.config, hidden, None, None)
        rotary = self._model.model.rotary_emb(hidden, positions[None])
        for layer in layers:  # the cache without its keyword, which transformers renames in 5.24
            hidden = layer(hidden, mask, None, self.cache, use_cache=True, position_embeddings=rotary)
        return hidden

    def _attention_of_last(self, layer: Any, hidden: Tensor, position: Tensor) -> Float32[Tensor, " l"]:
        """Return the attention of the last position in a layer that has run, mean over heads."""
        block = layer.self_attn
        keys = self.cache.layers[block.layer_idx].keys[0]  # (H_kv, L, D_h)
        query = (
            block.q_proj(layer.input_layernorm(hidden)).unflatten(-1, (-1, block.head_dim)).transpose(1, 2)
        )
        query, _ = apply_rotary_pos_emb(query, query, *self._model.model.rotary_emb(hidden, position[None]))
        groups = query[0, :, 0].float().unflatten(0, (len(keys), -1))  # (H_kv, H / H_kv, D_h)
        return (groups @ keys.float().transpose(1, 2) * block.scaling).softmax(-1).mean((0, 1))

    def _logits(self, hidden: Tensor) -> Float[Tensor, "1 v"]:
        return self._model.lm_head(self._model.model.norm(hidden[:, -1])).float()


def prune(
    model: OneVision, text_ids: list[list[int]], media: EncodedMedia, compressor: Compressor | None
) -> PrunedRow | None:
    """Return the row of a prompt that loses visual tokens inside the language model; None if it loses none.

    Args:
        model: the model.
        text_ids: token ids of the texts before, between and behind the visual blocks.
        media: the visual blocks, and what was compressed of them.
        compressor: None for that of the model.

    Raises:
        InputError: the language model cannot drop tokens where the compressor asks for it.
    """
    compressor = model.compressor if compressor is None else compressor
    if stage_of(compressor) != "language_model" or not media.compressions:
        return None
    return PrunedRow(model, text_ids, media, cast(PromptPruner, compressor))


def _visual_positions(text_ids: list[list[int]], media: EncodedMedia) -> Int64[Tensor, " n"]:
    """Return the positions of all visual tokens in the prompt, newlines left out."""
    positions, start = [], 0
    for ids, visual, compression in zip(text_ids[:-1], media.visuals, media.compressions, strict=True):
        start += len(ids)
        positions.append(torch.arange(start, start + compression.num_kept))
        start += len(visual)
    return torch.cat(positions)


def _with_kept(media: EncodedMedia, kept: Int64[Tensor, " k"]) -> EncodedMedia:
    """Return the media with compressions that say what was kept; `kept` counts the tokens of all blocks."""
    compressions, first = [], 0
    for visual, before in zip(media.visuals, media.compressions, strict=True):
        num_frames = int(before.frame_span[-1, 1]) + 1
        tokens = visual[: before.num_input].unflatten(0, (num_frames, -1))  # (F, P, D)
        mine = kept[(kept >= first) & (kept < first + before.num_input)] - first
        compressions.append(select(tokens, mine))
        first += before.num_input
    return replace(media, compressions=tuple(compressions))
