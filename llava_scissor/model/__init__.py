"""LLaVA-OneVision: the way of the data from frames to embeddings, and the loading of checkpoints."""

from llava_scissor.model.checkpoint import load_model
from llava_scissor.model.geometry import GenerationDefaults, Geometry
from llava_scissor.model.onevision import OneVision

__all__ = ["GenerationDefaults", "Geometry", "OneVision", "load_model"]
