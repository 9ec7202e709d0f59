"""What can be imported, from where, and what that costs. Each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import llava_scissor
from llava_scissor import compression, config
from llava_scissor.compression import baselines
from llava_scissor.compression.registry import COMPRESSORS

PUBLIC = [
    "Answer",
    "CompressionResult",
    "Compressor",
    "Config",
    "Identity",
    "KeepPositions",
    "Images",
    "OneVision",
    "Request",
    "Scissor",
    "ScissorError",
    "Session",
    "StreamingScissor",
    "Turn",
    "VideoClip",
    "VisualBudget",
    "__version__",
    "ask",
    "ask_batch",
    "build_compressor",
    "compress",
    "compress_batch",
    "load_config",
    "load_model",
    "load_model_from",
    "read_video",
    "visual_budget",
]
PUBLIC_COMPRESSION = [
    "CompressionResult",
    "Compressor",
    "Identity",
    "KeepPositions",
    "Scissor",
    "ScissorConfig",
    "StreamingScissor",
    "build_compressor",
    "compress",
    "compress_batch",
]
SETTINGS = [kind.__name__ for kind in config.METHODS.values()]
OPTIONAL = [
    "beartype",
    "bitsandbytes",
    "decord",
    "flash_attn",
    "hypothesis",
    "lmms_eval",
    "matplotlib",
    "networkx",
    "pytest",
    "torchvision",
]

IMPORT_ALL_WITHOUT = """
import importlib, pkgutil, sys

class Without:
    # As if the packages were not installed: found by nothing, whoever asks.
    def __init__(self, finder, names):
        self.finder, self.names = finder, names

    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in self.names else self.finder.find_spec(name, *rest)

    def __getattr__(self, name):
        return getattr(self.finder, name)

blocked = sys.argv[1:]
sys.meta_path[:] = [Without(finder, blocked) for finder in sys.meta_path]
for name in blocked:
    assert importlib.util.find_spec(name) is None, name

import llava_scissor
names = [module.name for module in pkgutil.walk_packages(llava_scissor.__path__, "llava_scissor.")]
plugin = "llava_scissor.integrations.lmms_eval"
names.remove(plugin)
for name in names:
    importlib.import_module(name)
try:
    importlib.import_module(plugin)
except ModuleNotFoundError as error:
    assert error.name == "lmms_eval", error
for name in llava_scissor.__all__:
    getattr(llava_scissor, name)
print(len(names), sorted(set(blocked) & set(sys.modules)))
"""


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error::DeprecationWarning:llava_scissor", "-c", code, *arguments]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (llava_scissor, sorted([*PUBLIC, *baselines.__all__, *SETTINGS])),
        (compression, PUBLIC_COMPRESSION),
    ],
    ids=["package", "compression"],
)
def test_the_public_names_are_pinned(module, names: list[str]) -> None:
    assert sorted(module.__all__) == names
    assert all(hasattr(module, name) for name in names)
    assert set(names) <= set(dir(module))


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="module 'llava_scissor' has no attribute 'kompress'"):
        llava_scissor.kompress  # noqa: B018


def test_a_public_name_is_that_of_its_room() -> None:
    for name, room in llava_scissor._ROOM_OF.items():
        assert getattr(llava_scissor, name) is getattr(import_module(f"llava_scissor.{room}"), name)
    assert set(llava_scissor._ROOM_OF) | {"__version__"} == set(llava_scissor.__all__)


@pytest.mark.parametrize(
    "module", ["llava_scissor", "llava_scissor.config", "llava_scissor.errors", "llava_scissor.cli.app"]
)
def test_importing_costs_no_torch(module: str) -> None:
    code = (
        f"import sys, {module}; print(sorted({{'torch', 'transformers', 'numpy', 'av'}} & set(sys.modules)))"
    )
    assert run(code) == "[]\n"


def test_every_module_imports_without_the_optional_packages() -> None:
    count, found = run(IMPORT_ALL_WITHOUT, *OPTIONAL).split(maxsplit=1)
    assert int(count) > 40
    assert found.strip() == "[]"


def test_every_method_can_be_imported_by_name() -> None:
    for settings, compressor in COMPRESSORS.items():
        assert getattr(llava_scissor, settings.__name__) is settings
        assert getattr(llava_scissor, compressor.__name__) is compressor


def test_a_settings_class_costs_no_torch() -> None:
    code = "import sys; from llava_scissor import HoliTomConfig; print('torch' in sys.modules)"
    assert run(code) == "False\n"
