"""The linear layers of the language model in 8 or 4 bits, through transformers and bitsandbytes."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import BitsAndBytesConfig
from transformers.quantizers.auto import AutoHfQuantizer

from llava_scissor.errors import InputError, MissingDependencyError
from llava_scissor.model.onevision import OneVision
from llava_scissor.model.placement import is_installed

# 8 bits; 4 bits and a float32 scale for each block of 64. The scales of 8bit, one a row, are too few to count.
BYTES_PER_WEIGHT = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}


class LinearQuantiser:
    """Replaces the linear layers of a language model, except the head, and quantises weights for them.

    The vision tower, the projector, norms, biases, embedding and head keep their number format. 4bit is NF4
    in blocks of 64, 8bit is LLM.int8.

    Args:
        model: the model, without memory for its weights.
        quantization: `8bit` or `4bit`.
        dtype: number format in which 4bit computes.

    Raises:
        InputError: no such quantization, or no device here that bitsandbytes supports.
        MissingDependencyError: bitsandbytes is not installed.

    Reference: Dettmers et al., arXiv:2208.07339 (8bit) and arXiv:2305.14314 (4bit).
    """

    def __init__(self, model: OneVision, quantization: str, dtype: torch.dtype) -> None:
        if quantization not in BYTES_PER_WEIGHT:
            raise InputError(f"quantization {quantization!r}: expected 8bit or 4bit, or None for none")
        if not is_installed("bitsandbytes"):
            raise MissingDependencyError(
                f"quantization {quantization} needs a package that is not installed: "
                "pip install 'llava-scissor[quantization]'"
            )
        is_4bit = quantization == "4bit"
        config = BitsAndBytesConfig(
            load_in_4bit=is_4bit,
            load_in_8bit=not is_4bit,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
        )
        self._model = model.language_model
        self._quantizer = AutoHfQuantizer.from_config(config)
        try:
            self._quantizer.validate_environment()
        except RuntimeError as error:
            raise InputError(f"quantization {quantization} cannot be used here: {error}") from error
        self._quantizer.preprocess_model(self._model, device_map=None)

    def takes(self, name: str) -> bool:
        """Whether a parameter of the model, by its name, is one of those to quantise."""
        inner = name.removeprefix("language_model.")
        return inner != name and self._quantizer.param_needs_quantization(self._model, inner)

    def put(self, name: str, weight: Tensor) -> None:
        """Quantise a weight on its device, and put it into its layer."""
        inner = name.removeprefix("language_model.")
        quantise = self._quantizer.get_quantize_ops().convert
        quantised = quantise({inner: weight}, model=self._model, full_layer_name=inner)[inner]
        layer, _, attribute = inner.rpartition(".")
        setattr(self._model.get_submodule(layer), attribute, quantised)
