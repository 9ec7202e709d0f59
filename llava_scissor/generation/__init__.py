"""Answers to questions about videos, images and text."""

from llava_scissor.generation.answer import Answer
from llava_scissor.generation.requests import Batch, Request, ask, ask_batch
from llava_scissor.generation.session import Session

__all__ = ["Answer", "Batch", "Request", "Session", "ask", "ask_batch"]
