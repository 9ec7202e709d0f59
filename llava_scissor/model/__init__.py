"""LLaVA-OneVision: the way of the data from frames and images to embeddings, and the loading of checkpoints."""

from llava_scissor.model.checkpoint import load_model, load_model_from
from llava_scissor.model.geometry import GenerationDefaults, Geometry
from llava_scissor.model.images import Images
from llava_scissor.model.onevision import OneVision
from llava_scissor.model.prompt import Turn

__all__ = ["GenerationDefaults", "Geometry", "Images", "OneVision", "Turn", "load_model", "load_model_from"]
