"""What the generators are said to be is measured on what they draw."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional

from llava_scissor.bench.features import GENERATORS, similarity_profile
from llava_scissor.compression import compress
from llava_scissor.config import ScissorConfig
from llava_scissor.errors import InputError

CPU = torch.device("cpu")
every_generator = pytest.mark.parametrize("name", GENERATORS)


def draw(name: str, num_frames: int, tokens_per_frame: int = 196, width: int = 256, seed: int = 0):
    return GENERATORS[name](num_frames, tokens_per_frame, width, torch.float32, CPU, seed)


@every_generator
def test_shape_dtype_and_seed(name: str) -> None:
    generate = GENERATORS[name]
    tokens = generate(3, 49, 16, torch.bfloat16, CPU, 1)
    assert tokens.shape == (3, 49, 16)
    assert tokens.dtype == torch.bfloat16
    assert torch.equal(tokens, generate(3, 49, 16, torch.bfloat16, CPU, 1))
    assert not torch.equal(tokens, generate(3, 49, 16, torch.bfloat16, CPU, 2))


@every_generator
def test_more_frames_are_a_longer_video(name: str) -> None:
    """What changes how fast does not depend on the number of frames."""
    long = draw(name, 20, 49, 16)
    torch.testing.assert_close(draw(name, 5, 49, 16), long[:5], rtol=0, atol=1e-5)


@every_generator
def test_no_frame_is_special(name: str) -> None:
    """Neither are frames at knots of an interpolation longer than others, nor do all videos turn at once."""
    draws = [draw(name, 40, 49, 32, seed) for seed in range(24)]
    power = torch.stack([tokens.square().mean((1, 2)) for tokens in draws]).mean(0)
    change = torch.stack([(tokens[1:] - tokens[:-1]).square().mean((1, 2)) for tokens in draws]).mean(0)
    assert power.max() / power.min() < 1.3
    assert change.max() / change.min() < 1.5


@pytest.mark.parametrize(
    ("name", "inside_frame", "next_frame"),
    [
        ("made-up", [(-0.2, 0), (-0.02, 0.02), (0.05, 0.3)], [(-0.1, 0.2), (0.8, 0.95), (0.98, 1)]),
        ("smooth", [(0.3, 0.5), (0.55, 0.75), (0.85, 0.95)], [(0.85, 0.95), (0.92, 0.97), (0.96, 0.99)]),
        ("chains", [(-0.2, 0), (-0.02, 0.05), (0.05, 0.4)], [(0.7, 0.95), (0.92, 0.99), (0.98, 1)]),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_similarities_are_those_of_the_kind(name: str, inside_frame, next_frame, seed: int) -> None:
    found = similarity_profile(draw(name, 16, seed=seed))
    for ranges, values in ((inside_frame, found["inside_frame"]), (next_frame, found["next_frame"])):
        assert values is not None
        for (low, high), value in zip(ranges, values, strict=True):
            assert low <= value <= high, found


@pytest.mark.parametrize(
    ("name", "taus"),
    [
        ("made-up", [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995]),
        ("smooth", [0.9, 0.92, 0.93, 0.94, 0.95, 0.955, 0.96, 0.965, 0.98]),
        ("chains", [0.75, 0.85, 0.9, 0.92, 0.94, 0.96, 0.98, 0.99, 0.995, 0.998]),
    ],
)
def test_the_count_rises_gradually_with_the_threshold(name: str, taus: list[float]) -> None:
    """Otherwise no threshold would keep about as many tokens as a budget does."""
    tokens = draw(name, 8)
    shares = [compress(tokens, ScissorConfig(tau=tau)).retention_ratio for tau in taus]
    assert shares == sorted(shares)
    assert shares[0] < 0.15
    assert shares[-1] > 0.8
    steps = [later - earlier for earlier, later in itertools.pairwise(shares)]
    assert max(steps) < 0.35, shares


def largest_component(name: str):
    tokens = draw(name, 32)
    result = compress(tokens, ScissorConfig(retention_ratio=0.05))
    members = tokens.flatten(0, 1)[result.component == result.sizes.argmax()]
    unit = functional.normalize(members, dim=-1)
    return len(members) / result.num_input, float((unit @ unit.T).min()), result.tau


def test_chains_link_what_has_nothing_in_common() -> None:
    share, least_similar, tau = largest_component("chains")
    assert share > 0.08
    assert least_similar < 0 < 0.8 < tau


def test_smooth_videos_have_one_large_component() -> None:
    share, least_similar, tau = largest_component("smooth")
    assert share > 0.3
    assert least_similar < tau - 0.3


def test_made_up_regions_are_alike_all_through() -> None:
    share, least_similar, tau = largest_component("made-up")
    assert share < 0.08
    assert least_similar > tau - 0.05


@every_generator
def test_a_number_that_is_no_square_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="square number, got 50"):
        draw(name, 1, 50, 8)


def test_the_profile_is_that_of_its_pairs() -> None:
    frames = torch.tensor([[[1.0, 0], [0, 1]], [[1, 1], [0, 1]], [[1, 0], [0, 2]]])
    found = similarity_profile(frames)
    assert found["inside_frame"] == [0.0, 0.0, 0.0]  # of 0, 0.7071 and 0, by rank
    assert found["next_frame"] == [0.7071, 0.7071, 1.0]
    assert similarity_profile(frames[:1, :1]) == {"inside_frame": None, "next_frame": None}
