"""LLaVA-OneVision with a compressor between pooling and the language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM, SiglipVisionModel

from llava_scissor.compression import CompressionResult, Compressor, Identity
from llava_scissor.compression.protocol import Needs, TowerState, compress_with, needs_of, stage_of
from llava_scissor.errors import InputError
from llava_scissor.model.geometry import Geometry
from llava_scissor.model.image_tiles import choose_grid, join_tiles
from llava_scissor.model.pooling import pool_frames
from llava_scissor.model.projector import Projector
from llava_scissor.model.prompt import Turn, build_prompt, check_history, check_question, tokenize_prompt
from llava_scissor.model.splice import prompt_positions, splice
from llava_scissor.model.tower_state import pool_states, watch_last_block

FRAMES_PER_CHUNK = 8  # bounds the tower's activations; 32 frames of 729 patches would need four times as much


class OneVision(nn.Module):
    """A video or images and a question in, embeddings for the language model out.

    The way of a video, with F frames, P visual tokens a frame, K kept tokens, L positions, D the width:

    1. `vision_tower`: pixels (F, 3, H, W) -> patches (F, s * s, D_v), the output of the tower's last block
    2. `projector`: patches -> (F, s * s, D)
    3. pooling: (F, s * s, D) -> visual tokens (F, P, D)
    4. `compressor`: (F, P, D) -> kept tokens (K, D)
    5. newline: (K, D) -> (K + 1, D) if the checkpoint was trained with one
    6. splice: text and visual embeddings -> (L, D), at positions 0 .. L-1 unless the compressor gives others
    7. `language_model`: (L, D) -> logits; `llava_scissor.generation` turns them into an answer

    Steps 1 to 3 are `encode_video`, step 4 is `compress`, steps 5 and 6 are `embed_prompt`. Some compressors
    also look into the vision tower: `encode_video_with` returns what they need beside the tokens.

    An image becomes several views: the whole and its tiles. They go through steps 1 and 2 (`encode_image`).
    `join_views` then puts their patches together in place of pooling. `embed` splices any number of visual
    blocks.

    Attributes:
        geometry: sizes and choices of the checkpoint.
        tokenizer: the checkpoint's tokenizer.
        num_token_ids: number of ids that the tokenizer has a text for. The embedding may have more rows.
        compressor: for requests without a compressor of their own. Only `compress` calls it.
    """

    image_newline: nn.Parameter | None

    def __init__(
        self,
        geometry: Geometry,
        tokenizer: PreTrainedTokenizerBase,
        compressor: Compressor | None = None,
        attn_implementation: str = "sdpa",
    ) -> None:
        super().__init__()
        vision, language = copy(geometry.vision), copy(geometry.language)
        vision._attn_implementation = language._attn_implementation = attn_implementation
        width = language.hidden_size
        self.vision_tower = SiglipVisionModel(vision)
        # Upstream uses the last block's output. Some transformers releases put the norm into the last hidden
        # state; without a norm there is only one output to return.
        self.vision_tower.register_module("post_layernorm", nn.Identity())
        self.projector = Projector(vision.hidden_size, width)
        newline = nn.Parameter(torch.randn(width) * width**-0.5) if geometry.has_newline else None
        self.register_parameter("image_newline", newline)
        self.language_model = Qwen2ForCausalLM(language)
        self.geometry = geometry
        self.tokenizer = tokenizer
        self.num_token_ids = max(tokenizer.get_vocab().values(), default=-1) + 1
        self.compressor = Identity() if compressor is None else compressor

    @property
    def device(self) -> torch.device:
        """Device of the projector, on which visual tokens are made and compressed."""
        return next(self.projector.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights and of the visual tokens."""
        return next(self.projector.parameters()).dtype

    def encode_video(self, pixel_values: Float[Tensor, "f c h w"]) -> Float[Tensor, "f p d"]:
        """Turn preprocessed frames into visual tokens: vision tower, projector, pooling.

        Args:
            pixel_values: normalised RGB frames (F, 3, image_size, image_size), any float dtype and device.

        Returns:
            Visual tokens (F, P, D), row-major inside a frame, in the model's dtype and on its device.

        Raises:
            InputError: no frames, or frames of another size than the checkpoint's.

        Cost: memory for the activations of `FRAMES_PER_CHUNK` frames, however many there are.
        """
        stride = self.geometry.pool_stride
        return torch.cat([pool_frames(patches, stride) for patches in self._project(pixel_values)])

    def encode_image(self, pixel_values: Float[Tensor, "t c h w"]) -> Float[Tensor, "t n d"]:
        """Turn preprocessed views of one image into projected patches: vision tower, projector, no pooling.

        Args:
            pixel_values: normalised RGB views (T, 3, image_size, image_size): the whole image, then its tiles.

        Returns:
            Patches (T, s * s, D), row-major inside a view, in the model's dtype and on its device.

        Raises:
            InputError: no views, or views of another size than the checkpoint's.
        """
        return torch.cat(list(self._project(pixel_values)))

    def join_views(self, patches: Float[Tensor, "t n d"], height: int, width: int) -> Float[Tensor, "m d"]:
        """Put the patches of the views of one image together, with the newlines of the checkpoint.

        Args:
            patches: of the whole image and its tiles, or of the only view of one of several images.
            height: height of the image in pixels, before any resizing.
            width: width of the image in pixels.

        Returns:
            The visual block of the image, (M, D), put together as `Geometry.image_merge` says.
        """
        geometry = self.geometry
        if geometry.image_merge == "flat":
            return patches.flatten(0, 1)
        newline = self.image_newline if geometry.image_merge == "spatial_unpad" else None
        if len(patches) == 1:
            return patches[0] if newline is None else torch.cat([patches[0], newline[None].to(patches)])
        grid = choose_grid(height, width, geometry.image_size, geometry.image_grids)
        return join_tiles(patches, grid, height, width, newline, geometry.max_tiles)

    def encode_video_with(
        self, pixel_values: Float[Tensor, "f c h w"], needs: Needs | None = None
    ) -> tuple[Float[Tensor, "f p d"], TowerState]:
        """Encode a video, and read from the vision tower what its compressor needs.

        Args:
            pixel_values: as for `encode_video`.
            needs: `needs_of` the compressor that gets the tokens; None for that of the model.

        Returns:
            The visual tokens, as from `encode_video`, and the state of the tower, pooled like them.
        """
        needs = needs_of(self.compressor) if needs is None else needs
        with watch_last_block(self.vision_tower, needs) as states:
            tokens = self.encode_video(pixel_values)
        return tokens, pool_states(states, self.geometry.pool_stride)

    def encode_image_with(
        self, pixel_values: Float[Tensor, "t c h w"], needs: Needs | None = None
    ) -> tuple[Float[Tensor, "t n d"], TowerState]:
        """Encode the views of an image, and read from the vision tower what a compressor needs.

        See `encode_image` and `encode_video_with`.
        """
        needs = needs_of(self.compressor) if needs is None else needs
        with watch_last_block(self.vision_tower, needs) as states:
            patches = self.encode_image(pixel_values)
        return patches, pool_states(states, stride=1)

    def compress(
        self,
        tokens: Float[Tensor, "f p d"],
        tower: TowerState | None = None,
        compressor: Compressor | None = None,
    ) -> CompressionResult:
        """Reduce the visual tokens of one video. No other function of the package calls a compressor.

        Args:
            tokens: (F, P, D).
            tower: what the compressor needs besides, from `encode_video_with`.
            compressor: None for that of the model.
        """
        return compress_with(self.compressor if compressor is None else compressor, tokens, tower)

    def append_newline(self, tokens: Float[Tensor, "k d"]) -> Float[Tensor, "_ d"]:
        """Return the visual block of a video: its kept tokens, and the newline if the checkpoint has one."""
        if not self.geometry.use_newline:
            return tokens
        assert self.image_newline is not None
        return torch.cat([tokens, self.image_newline[None].to(tokens)])  # (K+1, D)

    def block_positions(self, result: CompressionResult) -> Int64[Tensor, " _"]:
        """Return the positions of a video's block, newline included, and then that of the text behind it.

        They count from the beginning of the block.
        """
        num_rows = result.num_kept + self.geometry.use_newline
        if result.positions is None:
            return torch.arange(num_rows + 1)
        behind = result.num_input + torch.arange(1 + self.geometry.use_newline)
        return torch.cat([result.positions.cpu(), behind])

    def tokenize(
        self, question: str, num_visuals: int = 1, history: Sequence[Turn] = (), system: str | None = None
    ) -> list[list[int]]:
        """Return the token ids of the prompt's texts before, between and behind the visual blocks.

        Args:
            question: the question to answer now.
            num_visuals: 1 for a video, the number of images, 0 for text only.
            history: earlier turns of the conversation, oldest first.
            system: the system prompt; None for the one that the checkpoint was trained with.

        Raises:
            InputError: a question or the system prompt is blank, or one of the texts contains a control token.
        """
        if system is None:
            system = self.geometry.system_prompt
        else:
            check_question(system, self.tokenizer, "system prompt")
        check_question(question, self.tokenizer)
        check_history(history, self.tokenizer)
        prompt = build_prompt(question, system, num_visuals, history)
        return tokenize_prompt(prompt, self.tokenizer)

    def embed_prompt(self, text_ids: list[list[int]], tokens: Float[Tensor, "k d"]) -> Float[Tensor, "l d"]:
        """Place the kept tokens, and the newline where there is one, between the texts of a prompt.

        Args:
            text_ids: token ids of the text before and behind the video.
            tokens: kept tokens in the order in which the language model is to read them.

        Returns:
            Embeddings of the whole prompt (L, D) up to where the answer begins.

        Raises:
            InputError: the prompt does not have exactly one placeholder.
        """
        return self.embed(text_ids, [self.append_newline(tokens)])

    def embed(
        self, text_ids: list[list[int]], visuals: Sequence[Float[Tensor, "_ d"]]
    ) -> Float[Tensor, "l d"]:
        """Place visual blocks, newlines included, between the texts of a prompt; see `splice`."""
        return splice([self._embed_text(ids) for ids in text_ids], visuals)

    def forward(self, pixel_values: Float[Tensor, "f c h w"], question: str) -> Float[Tensor, "l v"]:
        """Run the whole way of the data once; returns the logits at every position of the prompt.

        Raises:
            InputError: the compressor works inside the language model, so that some positions have no logits.
        """
        if stage_of(self.compressor) == "language_model":
            raise InputError(
                f"{type(self.compressor).__name__} drops positions inside the language model: call `ask` instead"
            )
        tokens, tower = self.encode_video_with(pixel_values)  # (F, P, D)
        kept = self.compress(tokens, tower)  # .tokens (K, D)
        text_ids = self.tokenize(question)
        embeds = self.embed_prompt(text_ids, kept.tokens)[None]  # (1, L, D)
        positions = prompt_positions([len(ids) for ids in text_ids], [self.block_positions(kept)])
        return self.language_model(
            inputs_embeds=embeds,
            # Without a mask, transformers would take a gap between positions for the start of another text.
            attention_mask=embeds.new_ones(embeds.shape[:2], dtype=torch.long),
            position_ids=positions[None].to(embeds.device),
            use_cache=False,
        ).logits[0]  # (L, V)

    def _project(self, pixel_values: Tensor) -> Iterator[Float[Tensor, "f n d"]]:
        """Run vision tower and projector on a few pictures at a time."""
        size = self.geometry.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, size, size) or not len(pixel_values):
            raise InputError(
                f"expected pixel values of shape (frames, 3, {size}, {size}) with at least one frame, "
                f"got {tuple(pixel_values.shape)}"
            )
        for chunk in pixel_values.split(FRAMES_PER_CHUNK):
            patches = self.vision_tower(chunk.to(self.device, self.dtype)).last_hidden_state  # (F, s*s, D_v)
            yield self.projector(patches)  # (F, s*s, D)

    def _embed_text(self, ids: list[int]) -> Float[Tensor, "t d"]:
        embedding = self.language_model.model.embed_tokens
        return embedding(torch.tensor(ids, dtype=torch.long, device=embedding.weight.device))
