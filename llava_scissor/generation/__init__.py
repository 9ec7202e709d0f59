"""Answers to questions about videos."""

from llava_scissor.generation.ask import Answer, ask

__all__ = ["Answer", "ask"]
