"""What other programs load this package through."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]  # optional


def lmms_eval_manifest() -> ModelManifest:
    """Tell lmms-eval where the model plugin is; called by the harness through its entry points."""
    from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]  # optional

    return ModelManifest("llava_scissor", simple_class_path=f"{__name__}.lmms_eval.LlavaScissor")
