"""What a checkpoint's configuration says: sizes and choices of the data path, defaults of the generation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from transformers import Qwen2Config, SiglipVisionConfig

Layout = Literal["original", "huggingface"]
Merge = Literal["flat", "spatial", "spatial_unpad"]


@dataclass(frozen=True)
class GenerationDefaults:
    """What a checkpoint's generation_config.json says, for settings that the caller leaves open.

    `do_sample` is not among them: answers are greedy unless the caller asks for sampling.

    Attributes:
        stop_ids: token ids that end an answer, besides the tokenizer's own end of turn.
        repetition_penalty: above 1, tokens already in the answer become less likely.
        temperature: sharpness of the draw.
        top_p: total probability of the tokens to draw from.
        top_k: number of tokens to draw from, 0 for all.
    """

    stop_ids: tuple[int, ...] = ()
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True)
class Geometry:
    """Every size and choice of a checkpoint that the data path needs.

    Attributes:
        layout: how the checkpoint spells its configuration and its weights.
        vision: the vision tower, without the blocks behind the one whose output is used.
        language: the language model.
        use_newline: whether one `image_newline` vector follows the visual tokens of a video.
        num_unused_blocks: blocks of the tower that the checkpoint may store behind the last one used.
        pool_stride: side of the square of patches that pooling turns into one visual token.
        default_num_frames: frames to sample when the caller gives no number.
        image_views: how a single image is shown: squashed to a square (`square`), padded to one (`pad`), or as a
            whole and in tiles (`anyres`). If there are several images, each is padded to a square.
        image_merge: how its patches are put together: view after view (`flat`), the tiles as one map
            (`spatial`), or as one map without black border and with a newline after each row (`spatial_unpad`).
        image_grids: rows and columns of tiles that a single image may be cut into.
        max_tiles: number of tiles above which the map is shrunk; None if it never is.
        image_problem: why the checkpoint cannot be asked about images; empty if it can.
        image_mean: mean of the pixels per RGB channel, for pixels in [0, 1].
        image_std: standard deviation of the pixels per RGB channel, for pixels in [0, 1].
        system_prompt: text of the ChatML system turn.
        generation: defaults for stopping and sampling.
    """

    layout: Layout
    vision: SiglipVisionConfig
    language: Qwen2Config
    use_newline: bool
    num_unused_blocks: int = 0
    pool_stride: int = 2
    default_num_frames: int = 32
    image_views: Literal["square", "pad", "anyres"] = "anyres"
    image_merge: Merge = "spatial_unpad"
    image_grids: tuple[tuple[int, int], ...] = tuple(product(range(1, 7), range(1, 7)))
    max_tiles: int | None = 9
    image_problem: str = ""
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    system_prompt: str = "You are a helpful assistant."
    generation: GenerationDefaults = field(default_factory=GenerationDefaults)

    @property
    def has_newline(self) -> bool:
        """Whether the checkpoint has an `image_newline`, for videos or for images."""
        return self.use_newline or self.image_merge == "spatial_unpad"

    @property
    def image_size(self) -> int:
        """Height and width of a frame in pixels."""
        assert isinstance(self.vision.image_size, int)  # transformers knows towers for oblong frames, too
        return self.vision.image_size

    @property
    def patch_size(self) -> int:
        """Height and width of a patch in pixels."""
        assert isinstance(self.vision.patch_size, int)
        return self.vision.patch_size

    @property
    def patches_per_side(self) -> int:
        """Patches along a frame's height and width; pixels that fill no patch are ignored."""
        return self.image_size // self.patch_size

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of one frame after pooling, P."""
        return math.ceil(self.patches_per_side / self.pool_stride) ** 2

    @property
    def num_key_value_heads(self) -> int:
        """Heads of the keys and values in the language model; several heads of queries share each."""
        assert self.language.num_key_value_heads is not None  # transformers fills it in
        return self.language.num_key_value_heads

    @property
    def context_length(self) -> int:
        """Largest number of positions, prompt and answer together, that the language model was made for."""
        return self.language.max_position_embeddings
