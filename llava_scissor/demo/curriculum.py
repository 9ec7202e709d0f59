"""The eight training stages of the demo model.

Trained end to end from nothing, a model of this size never learns to look up one property of an object by
another. So each half is first taught alone: the vision tower names what every patch shows; the language model
answers from symbolic tokens, which are sums of its own word embeddings, first of small pictures, then of whole
frames and videos; tower and projector learn to turn pictures into those symbols; then projector and language
model are tuned together on rendered video. Every stage sees all visual tokens of its frames: nothing is
dropped, merged or compressed in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

from llava_scissor.demo.drawing import patch_labels, render
from llava_scissor.demo.packing import PackedQuestions, answer_logits, pack_questions
from llava_scissor.demo.questions import QUESTION_TYPES, Question, sample_questions
from llava_scissor.demo.scenes import BACKGROUNDS, COLORS, NUM_STEPS, SHAPES, Scene, Shape, sample_scene
from llava_scissor.demo.vocabulary import PAD, TURN_END, build_tokenizer, words
from llava_scissor.model.pooling import pool_frames
from llava_scissor.model.projector import Projector

IMAGE_SIZE = 128
NUM_PATCHES = 16
NUM_CELLS = 8
_FRAME_QUESTIONS = {"background", "count", "color", "shape", "exists", "where"}
_LOOKUP_QUESTIONS = {"color", "shape", "exists", "where"}
_TIME_QUESTIONS = {"direction", "order", "end"}
_SMALL_PICTURE = (0, 2, 5, 7)
_TIMES = np.linspace(0, 1, NUM_STEPS)


class Cells(NamedTuple):
    """What the cells of B pictures or videos show, T instants each, R rows and C columns.

    Attributes:
        share: share of the cell that an object's box covers, 0 if it is hardly any.
        color: token id of that object's colour.
        kind: token id of its shape.
        background: token id of the background.
    """

    share: Float[Tensor, "b t r c"]
    color: Int64[Tensor, "b t r c"]
    kind: Int64[Tensor, "b t r c"]
    background: Int64[Tensor, " b"]


class DemoNetwork(nn.Module):
    """The demo model's parts and, for training only, a head for patches and row and column vectors."""

    def __init__(self):
        super().__init__()
        self.tokenizer = build_tokenizer()
        tower = SiglipVisionConfig(
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=IMAGE_SIZE,
            patch_size=IMAGE_SIZE // NUM_PATCHES,
            vision_use_head=False,
        )
        text = Qwen2Config(
            vocab_size=len(words()),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            initializer_range=0.07,
            bos_token_id=None,
            eos_token_id=words().index(TURN_END),
            pad_token_id=words().index(PAD),
        )
        self.vision_tower = SiglipVisionModel(tower)
        self.projector = Projector(tower.hidden_size, text.hidden_size)
        self.image_newline = nn.Parameter(torch.zeros(192))
        self.language_model = Qwen2ForCausalLM(text)
        nn.init.normal_(self.language_model.model.embed_tokens.weight, std=0.08)
        self.patch_head = nn.Linear(
            128, 1 + len(COLORS) + 1 + len(SHAPES) + len(BACKGROUNDS) + 2 * NUM_PATCHES
        )
        self.rows_and_columns = nn.Parameter(torch.randn(2, NUM_CELLS, 192) * 0.08)

    def patches(self, frames: UInt8[Tensor, "f h w 3"]) -> Float[Tensor, "f n d"]:
        """Return the tower's last block, before its final norm."""
        pixels = rearrange(frames, "f h w c -> f c h w").float() / 127.5 - 1
        embedded = self.vision_tower.embeddings(pixels)
        return self.vision_tower.encoder(inputs_embeds=embedded).last_hidden_state

    def project(self, patches: Float[Tensor, "f n d"]) -> Float[Tensor, "f p e"]:
        """Return visual tokens: projector, then pooling of two by two patches."""
        return pool_frames(self.projector(patches), NUM_PATCHES // NUM_CELLS)

    def symbols(
        self, cells: Cells, lines: tuple[int, ...] = tuple(range(NUM_CELLS))
    ) -> Float[Tensor, "b n d"]:
        """Return symbolic visual tokens (B, T * P, D): word embeddings by coverage, plus row and column.

        A picture of fewer rows and columns than `NUM_CELLS` takes those of the given numbers.
        """
        embed = self.language_model.model.embed_tokens.weight
        share = cells.share[..., None].to(embed.dtype)
        behind = embed[cells.background][:, None, None, None]
        shown = share * (embed[cells.color] + embed[cells.kind]) + (1 - share) * behind
        place = self.rows_and_columns[0, :, None] + self.rows_and_columns[1, None]  # (R, C, D)
        grid = (shown + 0.7 * place)[:, :, lines][:, :, :, lines]
        return rearrange(grid, "b t r c d -> b (t r c) d")

    def answer_loss(self, visual: Float[Tensor, "b n d"], packed: PackedQuestions):
        """Return cross-entropy of the answers' tokens and the share predicted right."""
        newline = self.image_newline.expand(visual.shape[0], 1, -1).to(visual.dtype)
        logits, trained = answer_logits(
            self.language_model, self.tokenizer, torch.cat([visual, newline], dim=1), packed
        )
        targets = packed.target[trained]
        return functional.cross_entropy(logits, targets), (logits.argmax(-1) == targets).float().mean()


@dataclass(frozen=True)
class Stage:
    """One stage: what is trained on what, for how long.

    Attributes:
        name: also the name of its checkpoint file.
        parts: attributes of `DemoNetwork` that are trained; all others stay as they are.
        make_batch: (generators, one for each sample) -> tuple of tensors or of such tuples, on the CPU.
        loss: (network, batch) -> loss and a share of right answers to report, both scalar tensors.
        use_stored: whether to start from the weights as a checkpoint stores them, in float16.
    """

    name: str
    steps: int
    batch_size: int
    learning_rate: float
    parts: tuple[str, ...]
    make_batch: Callable
    loss: Callable
    use_stored: bool = False


_tokenizer = cache(build_tokenizer)


def cells_of(scenes: list[Scene], times: np.ndarray) -> Cells:
    """Tabulate what the cells of some scenes show at some instants."""
    ids = {word: i for i, word in enumerate(words())}
    tables = zip(*(_cells(scene, times, ids) for scene in scenes), strict=True)
    share, color, kind = (torch.from_numpy(np.stack(table)) for table in tables)
    return Cells(share, color, kind, torch.tensor([ids[scene.background] for scene in scenes]))


def _cells(scene: Scene, times: np.ndarray, ids: dict[str, int]) -> tuple[np.ndarray, ...]:
    """Return for each instant and cell the share that an object's box covers, its colour and shape ids."""
    share = np.zeros((len(times), NUM_CELLS, NUM_CELLS), np.float32)
    color, kind = np.zeros(share.shape, np.int64), np.zeros(share.shape, np.int64)
    low = np.arange(NUM_CELLS) / NUM_CELLS
    for t, time in enumerate(times):
        for shape in (o for o in scene.objects if o.is_visible(time)):
            reach = 0.9 * shape.radius
            overlap = [
                np.clip(
                    (np.minimum(low + 1 / NUM_CELLS, c + reach) - np.maximum(low, c - reach)) * NUM_CELLS,
                    0,
                    1,
                )
                for c in shape.center(time)
            ]
            covered = overlap[1][:, None] * overlap[0]
            mine = covered > share[t]
            share[t][mine] = covered[mine]
            color[t][mine], kind[t][mine] = ids[shape.color], ids[shape.kind]
    share[share < 0.15] = 0
    return share, color, kind


def _still(scene: Scene, time: float) -> Scene:
    """Return the scene as one frame shows it: its visible objects, not moving."""
    visible = [o for o in scene.objects if o.is_visible(time)]
    return Scene(tuple(_stopped(o, time) for o in visible), scene.background)


def _stopped(shape: Shape, time: float) -> Shape:
    center = shape.center(time)
    return replace(shape, begin=center, end=center, start=0, direction="still")


def _photograph(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Halve the colour resolution of every third clip, as video codecs do."""
    if rng.random() > 0.33:
        return frames
    pixels = frames.astype(np.float32)
    luma = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    chroma = pixels - luma[..., None]
    coarse = chroma.reshape(len(frames), IMAGE_SIZE // 2, 2, IMAGE_SIZE // 2, 2, 3).mean((2, 4))
    smooth = coarse.repeat(2, axis=1).repeat(2, axis=2)
    return np.clip(luma[..., None] + smooth, 0, 255).astype(np.uint8)


def _patch_batch(generators):
    """Two frames of each scene with what every patch shows."""
    frames, labels, backgrounds = [], [], []
    for rng in generators:
        scene = sample_scene(rng)
        times = rng.choice(_TIMES, 2, replace=False)
        frames.append(_photograph(render(scene, rng, IMAGE_SIZE, times), rng))
        labels += [patch_labels(scene, time, NUM_PATCHES) for time in times]
        backgrounds += [BACKGROUNDS.index(scene.background)] * 2
    covered, kind, color = (np.stack(part).reshape(len(labels), -1) for part in zip(*labels, strict=True))
    unclear = (covered > 0) & (covered <= 0.25)
    kind, color = (np.where(unclear, -100, np.where(covered > 0.25, a + 1, 0)) for a in (kind, color))
    labels = (torch.from_numpy(part) for part in (kind, color, np.array(backgrounds)))
    return torch.from_numpy(np.concatenate(frames)), *labels


def _patch_loss(network: DemoNetwork, batch):
    frames, kind, color, backgrounds = batch
    scores = network.patch_head(network.patches(frames)).float()
    colors, kinds, behind, row, column = scores.split(
        [1 + len(COLORS), 1 + len(SHAPES), len(BACKGROUNDS), NUM_PATCHES, NUM_PATCHES], dim=-1
    )
    num_patches = scores.shape[1]
    place = torch.arange(num_patches, device=scores.device).expand(len(frames), -1)
    rare = torch.ones(1 + len(COLORS), device=scores.device)
    rare[0] = 0.3
    entropy = [
        functional.cross_entropy(colors.flatten(0, 1), color.flatten(), weight=rare),
        2 * functional.cross_entropy(kinds.flatten(0, 1), kind.flatten(), weight=rare[: 1 + len(SHAPES)]),
        0.5 * functional.cross_entropy(behind.mean(1), backgrounds),
        0.5 * functional.cross_entropy(behind.flatten(0, 1), backgrounds.repeat_interleave(num_patches)),
        0.05 * functional.cross_entropy(row.flatten(0, 1), (place // NUM_PATCHES).flatten()),
        0.05 * functional.cross_entropy(column.flatten(0, 1), (place % NUM_PATCHES).flatten()),
    ]
    objects = kind > 0
    return sum(entropy), (kinds.argmax(-1) == kind)[objects].float().mean()


def _small_picture(rng: np.random.Generator) -> Scene:
    """Draw two to four objects that stand still, each in a cell of its own of a picture of four by four."""
    count = int(rng.integers(2, 5))
    cells = rng.permutation(len(_SMALL_PICTURE) ** 2)[:count]
    colors, kinds = rng.permutation(list(COLORS))[:count], rng.permutation(list(SHAPES))[:count]
    objects = []
    for cell, color, kind in zip(cells, colors, kinds, strict=True):
        row, column = (_SMALL_PICTURE[i] for i in divmod(int(cell), len(_SMALL_PICTURE)))
        center = ((column + 0.5) / NUM_CELLS, (row + 0.5) / NUM_CELLS)
        objects.append(Shape(str(color), str(kind), "still", 0.6 / NUM_CELLS, center, center, 0))
    return Scene(tuple(objects), str(rng.choice(BACKGROUNDS)))


def _small_symbols_batch(generators):
    """Small pictures with the questions that look up one property of an object by another."""
    scenes = [_small_picture(rng) for rng in generators]
    asked = (_ask(s, rng, _LOOKUP_QUESTIONS) for s, rng in zip(scenes, generators, strict=True))
    return cells_of(scenes, np.zeros(1)), _pack(asked)


def _small_symbols_loss(network: DemoNetwork, batch):
    cells, packed = batch
    return network.answer_loss(network.symbols(cells, _SMALL_PICTURE), packed)


def _frame_symbols_batch(generators):
    """One instant of each scene with the questions that a single frame answers."""
    scenes = [_still(sample_scene(rng), rng.choice(_TIMES)) for rng in generators]
    asked = (_ask(s, rng, _FRAME_QUESTIONS) for s, rng in zip(scenes, generators, strict=True))
    return cells_of(scenes, np.zeros(1)), _pack(asked)


def _video_symbols_batch(generators):
    scenes = [sample_scene(rng) for rng in generators]
    return cells_of(scenes, _TIMES), _pack(map(_ask_once, scenes, generators))


def _time_symbols_batch(generators):
    """Whole videos again, with more of the questions that need more than one frame."""
    scenes = [sample_scene(rng) for rng in generators]
    asked = (_ask(s, rng, _TIME_QUESTIONS, per_type=4) for s, rng in zip(scenes, generators, strict=True))
    return cells_of(scenes, _TIMES), _pack(asked)


def _symbols_loss(network: DemoNetwork, batch):
    cells, packed = batch
    return network.answer_loss(network.symbols(cells), packed)


def _ask(scene: Scene, rng: np.random.Generator, kinds=QUESTION_TYPES, per_type: int = 2) -> list[Question]:
    """Draw questions of some types."""
    return [q for q in sample_questions(scene, rng, per_type) if q.kind in kinds]


def _ask_once(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Draw one question of each type and a second one of the types that are hardest."""
    drawn = _ask(scene, rng)
    first_of_kind = {kind: next((q for q in drawn if q.kind == kind), None) for kind in QUESTION_TYPES}
    return [q for q in drawn if q is first_of_kind[q.kind] or q.kind in {"direction", "order", "where"}]


def _pack(asked: Iterable[list[Question]]) -> PackedQuestions:
    return pack_questions(list(asked), _tokenizer())


def _projector_batch(generators):
    scenes = [sample_scene(rng) for rng in generators]
    times = [rng.choice(_TIMES, 1) for rng in generators]
    frames = [
        _photograph(render(s, rng, IMAGE_SIZE, t), rng)
        for s, rng, t in zip(scenes, generators, times, strict=True)
    ]
    stills = [_still(s, t[0]) for s, t in zip(scenes, times, strict=True)]
    return torch.from_numpy(np.concatenate(frames)), cells_of(stills, np.zeros(1))


def _projector_loss(network: DemoNetwork, batch):
    """Weighted regression onto the symbols: a cell with an object counts five times."""
    frames, cells = batch
    visual = network.project(network.patches(frames)).float()
    with torch.no_grad():
        wanted = network.symbols(cells).float()
    weight = 1 + 4 * (cells.share.flatten(1) > 0).float()
    error = (visual - wanted).square().mean(-1)
    return (error * weight).mean(), functional.cosine_similarity(visual, wanted, dim=-1).mean()


def _video_batch(generators, ask=_ask_once):
    scenes = [sample_scene(rng) for rng in generators]
    frames = [
        _photograph(render(s, rng, IMAGE_SIZE, _TIMES), rng)
        for s, rng in zip(scenes, generators, strict=True)
    ]
    return torch.from_numpy(np.stack(frames)), _pack(map(ask, scenes, generators))


def _video_loss(network: DemoNetwork, batch):
    frames, packed = batch
    patches = network.patches(rearrange(frames, "b t h w c -> (b t) h w c"))
    visual = rearrange(network.project(patches), "(b t) p d -> b (t p) d", b=len(frames))
    return network.answer_loss(visual, packed)


_WORDS = ("language_model", "image_newline")
_SYMBOLS = (*_WORDS, "rows_and_columns")
_SIGHT = ("vision_tower", "projector")
STAGES = (
    Stage("tower", 1200, 32, 1e-3, ("vision_tower", "patch_head"), _patch_batch, _patch_loss),
    Stage("small-symbols", 500, 32, 2e-3, _SYMBOLS, _small_symbols_batch, _small_symbols_loss),
    Stage("frame-symbols", 500, 32, 1.5e-3, _SYMBOLS, _frame_symbols_batch, _symbols_loss),
    Stage("video-symbols", 600, 24, 1.5e-3, _SYMBOLS, _video_symbols_batch, _symbols_loss),
    Stage("time-symbols", 500, 20, 1.5e-3, _SYMBOLS, _time_symbols_batch, _symbols_loss),
    Stage("projector", 800, 32, 1e-3, _SIGHT, _projector_batch, _projector_loss),
    Stage("joint", 900, 16, 7e-4, (*_WORDS, "projector"), _video_batch, _video_loss),
    Stage("all", 1800, 16, 4e-4, (*_WORDS, *_SIGHT), partial(_video_batch, ask=_ask), _video_loss, True),
)
