"""Many questions about one video in one sequence, each seeing the video and itself.

The visual tokens are most of a sequence, so sharing them between questions trains on several times as many
answers for the same work. A position restarts after the video for every question: each is computed exactly as
if it stood alone behind the video.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llava_scissor.demo.questions import Question
from llava_scissor.demo.vocabulary import TURN_END

_BEFORE_VIDEO = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
_AFTER_VIDEO = "\n{question}<|im_end|>\n<|im_start|>assistant\n"
_NO_TARGET = -100


class PackedQuestions(NamedTuple):
    """Questions of a batch of videos as tensors.

    Attributes:
        ids: token ids of the text behind the video, padded (B, L).
        block: number of the question that a token belongs to, -1 for padding (B, L).
        position: place of a token behind the video, restarting at 0 for each question (B, L).
        target: id that the token should predict, `-100` where none is trained (B, L).
    """

    ids: Int[Tensor, "b l"]
    block: Int[Tensor, "b l"]
    position: Int[Tensor, "b l"]
    target: Int[Tensor, "b l"]


def pack_questions(batch: list[list[Question]], tokenizer) -> PackedQuestions:
    """Put each video's questions and answers behind one another.

    Args:
        batch: the questions of each video.
        tokenizer: the demo model's tokenizer.

    Returns:
        Tensors padded to the longest video's text.
    """
    end = tokenizer.convert_tokens_to_ids(TURN_END)
    rows: list[list[tuple[int, int, int, int]]] = []
    for questions in batch:
        row = []
        for block, question in enumerate(questions):
            prompt = tokenizer(_AFTER_VIDEO.format(question=question.text)).input_ids
            answer = [*tokenizer(question.answer).input_ids, end]
            ids = [*prompt, *answer[:-1]]
            targets = [_NO_TARGET] * (len(prompt) - 1) + answer
            row += [(i, block, at, t) for at, (i, t) in enumerate(zip(ids, targets, strict=True))]
        rows.append(row)
    longest = max(len(row) for row in rows)
    padding = (0, -1, 0, _NO_TARGET)
    table = torch.tensor([row + [padding] * (longest - len(row)) for row in rows])  # (B, L, 4)
    return PackedQuestions(*table.unbind(-1))


def answer_logits(
    language_model, tokenizer, visual: Float[Tensor, "b n d"], packed: PackedQuestions
) -> tuple[Float[Tensor, "a v"], Bool[Tensor, "b l"]]:
    """Run the language model over the packed sequences.

    Args:
        language_model: a `Qwen2ForCausalLM`.
        tokenizer: its tokenizer.
        visual: visual tokens with the newline appended, the same number for each video.
        packed: the questions behind them.

    Returns:
        Logits of the trained positions in row-major order, and the mask (B, L) of those positions.
    """
    batch, num_visual, _ = visual.shape
    embed = language_model.get_input_embeddings()
    opening = torch.tensor(tokenizer(_BEFORE_VIDEO).input_ids, device=visual.device)
    prefix = embed(opening).expand(batch, -1, -1)
    embeds = torch.cat([prefix, visual.to(prefix.dtype), embed(packed.ids)], dim=1)
    shared = len(opening) + num_visual
    mask = _mask(packed.block, shared)
    places = torch.arange(shared, device=visual.device).expand(batch, -1)
    positions = torch.cat([places, shared + packed.position], dim=1)
    hidden = language_model.model(
        inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state[:, shared:]
    trained = packed.target != _NO_TARGET
    return language_model.lm_head(hidden[trained]).float(), trained


def _mask(block: Int[Tensor, "b l"], shared: int) -> Bool[Tensor, "b 1 t t"]:
    """Causal, and behind the video only inside one's own question."""
    batch, length = block.shape
    total = shared + length
    causal = torch.ones(total, total, dtype=torch.bool, device=block.device).tril()
    allowed = causal.expand(batch, -1, -1).clone()
    allowed[:, shared:, shared:] &= block[:, :, None] == block[:, None, :]
    return allowed[:, None]
