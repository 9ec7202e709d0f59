from __future__ import annotations

import pytest
import torch

from llava_scissor.demo.curriculum import DemoNetwork
from llava_scissor.demo.export import export
from llava_scissor.model import load_model
from llava_scissor.model.checkpoint import find_directory


@pytest.fixture
def one_thread():
    """Sums in one order only, so that results can be compared bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def network() -> DemoNetwork:
    """The demo network with random weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DemoNetwork().eval()


@pytest.fixture(scope="session")
def untrained_directory(network, tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo") / "model"
    export(network, directory)
    return directory


@pytest.fixture(scope="session")
def untrained(untrained_directory):
    """The random network as it is loaded from the checkpoint that it was exported to."""
    return load_model(untrained_directory, device="cpu")


@pytest.fixture(scope="session")
def shipped_directory():
    directory = find_directory("demo")
    if not (directory / "model.safetensors").is_file():
        pytest.fail(f"the shipped model is not there: {directory} has no model.safetensors")
    return directory


@pytest.fixture(scope="session")
def shipped(shipped_directory):
    return load_model("demo", device="cpu")


@pytest.fixture(scope="session")
def clips():
    from llava_scissor.demo.clips import demo_clips

    try:
        return demo_clips()
    except FileNotFoundError as error:
        pytest.fail(f"the shipped clips are not there: {error}")
