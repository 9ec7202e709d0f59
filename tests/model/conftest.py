from __future__ import annotations

import pytest

from tests.model.checkpoints import build_reference, build_tokenizer, save_original


@pytest.fixture(scope="session")
def reference():
    return build_reference()


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer()


@pytest.fixture
def checkpoint(reference, tmp_path):
    """A checkpoint in the original layout that a test may damage."""
    return save_original(reference, tmp_path / "checkpoint")
