from __future__ import annotations

from pathlib import Path

import pytest

from llava_scissor.config import METHODS, Config, load_config
from llava_scissor.config.messages import sections_of
from llava_scissor.config.reference import render_reference

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_loads_with_all_sections(path: Path) -> None:
    assert load_config(path).model_fields_set == set(Config.model_fields)
    first_line = path.read_text(encoding="utf-8").splitlines()[0]
    assert first_line.startswith("# ")
    assert first_line.endswith(".")


def test_the_demo_file_uses_the_shipped_model() -> None:
    config = load_config(ROOT / "configs" / "demo.yaml")
    assert config.model == Config().model
    assert config.video == Config().video
    assert config.compression == Config().compression


def test_the_papers_model_has_the_papers_settings() -> None:
    config = load_config(ROOT / "configs" / "llava-scissor-7b.yaml")
    compression = config.compression
    assert (compression.effective_tau, compression.epsilon, config.video.num_frames) == (0.9, 0.05, 32)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_one_override_switches_to_an_exact_ratio(path: Path) -> None:
    compression = load_config(path, ["compression.retention_ratio=0.1"]).compression
    assert (compression.retention_ratio, compression.effective_tau) == (0.1, None)


def test_the_reference_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    is_up_to_date = page == render_reference()
    assert is_up_to_date, (
        "run `python scripts/write_configuration_reference.py` and commit docs/configuration.md"
    )


def test_the_reference_page_has_every_key() -> None:
    page = render_reference()
    for name, field in Config.model_fields.items():
        assert f"## `{name}`: " in page
        for section in sections_of(field):
            assert all(f"| `{key}` | " in page for key in set(section.model_fields) - {"method"})
    assert all(f"`{method}`" in page for method in METHODS)
