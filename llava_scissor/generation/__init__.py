"""Answers to questions about videos, images and text."""

from llava_scissor.generation.answer import Answer
from llava_scissor.generation.ask import Session, ask
from llava_scissor.generation.batch import Request, ask_batch

__all__ = ["Answer", "Request", "Session", "ask", "ask_batch"]
