"""Pictures of what a compressor kept."""

from llava_scissor.visualization.report import write_report

__all__ = ["write_report"]
