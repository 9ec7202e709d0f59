"""Check every tensor signature of the package while it is tested, and fix what hypothesis draws."""

from __future__ import annotations

import jaxtyping
import pytest
from hypothesis import settings

CHECKED = ["llava_scissor.compression", "llava_scissor.model", "llava_scissor.video"]

# The hook rewrites modules as they are imported, so nothing above may import them.
jaxtyping.install_import_hook(CHECKED, "beartype.beartype")

# The default draws the same examples every time; `pytest --hypothesis-profile=search` looks for other ones.
settings.register_profile("fixed", deadline=None, derandomize=True, max_examples=25, database=None)
settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("fixed")


@pytest.fixture
def unchecked_shapes(monkeypatch):
    """Switch the signature checks off, to reach the errors that a user gets for wrong tensors."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
