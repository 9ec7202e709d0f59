"""What holds for every compression method of the settings, whatever it chooses."""

from __future__ import annotations

import pytest
import torch

from llava_scissor.compression import Identity, build_compressor
from llava_scissor.compression.baselines import ToMe, Unified, VisionZip
from llava_scissor.compression.protocol import Needs, TowerCompressor, TowerState, compress_with, needs_of
from llava_scissor.config import METHODS
from llava_scissor.errors import InputError
from tests.compression.baselines.budgets import SIZE, counts
from tests.compression.checks import assert_same_bytes
from tests.compression.draws import constant, draw, gaussian, ratio_of, smooth, with_zeros

KEEPS_ALL = {"none", "fastv"}  # fastv drops tokens inside the language model
SELECTING = {"random", "uniform", "uniform_frames", "l2norm", "dycoke", "divprune", "evs", "vidcom2"}
ATTENTIVE = ["visionzip", "fastvid", "holitom", "unified"]
LOOKS_AT_NO_VALUE = {"none", "fastv", "random", "uniform", "uniform_frames", "pooling"}
every_method = pytest.mark.parametrize("name", METHODS)


def state(video, seed=0) -> TowerState:
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(video.shape[:2], generator=generator)
    return TowerState(attention, torch.randn(*video.shape[:2], 4, generator=generator))


def build(name, ratio, **options):
    return build_compressor(
        METHODS[name](**({} if name == "none" else {"retention_ratio": ratio}), **options)
    )


def keep(name, video, count):
    ratio = ratio_of(count, video.shape[0] * video.shape[1])
    return compress_with(build(name, ratio), video, state(video))


@every_method
@pytest.mark.parametrize(
    ("frames", "kind"),
    [
        *((f, gaussian) for f in (1, 2, 3, 4, 5, 7, 32)),
        *((f, k) for f in (1, 5) for k in (smooth, constant, with_zeros)),
    ],
)
def test_the_budget_is_met(name, frames, kind):
    """Exactly, with tokens of the source or inside their convex hull, and without touching the input."""
    video = draw(kind, frames, SIZE, 6)
    flat, before = video.flatten(0, 1), video.clone()
    for count in counts(frames):
        result = keep(name, video, count)
        num_kept = frames * SIZE if name in KEEPS_ALL else count
        assert result.tokens.shape == (num_kept, 6)
        assert result.tokens.isfinite().all()
        assert result.sizes.min() >= 1
        assert torch.bincount(result.component[result.component >= 0]).tolist() == result.sizes.tolist()
        assert result.assignment.max() < num_kept
        if name != "scissor":  # whose merge is a step of its own
            assert torch.equal(result.assignment, result.component)
        if num_kept == frames * SIZE:
            assert torch.equal(result.tokens, flat)
        if name in SELECTING:
            kept = (result.component >= 0).nonzero().flatten()
            assert torch.equal(result.tokens, flat[kept])
            assert result.component[kept].tolist() == list(range(count))
        slack = 1e-5 * flat.abs().max()
        assert (result.tokens >= flat.amin(0) - slack).all()
        assert (result.tokens <= flat.amax(0) + slack).all()
    assert torch.equal(video, before)


@every_method
def test_the_same_again(name):
    video = draw(smooth, 5, SIZE, 6)
    assert_same_bytes(keep(name, video, 13), keep(name, video, 13))


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_number_format_and_the_device_stay(name, dtype):
    video = draw(gaussian, 5, SIZE, 6).to(dtype)
    result = keep(name, video, 13)
    assert (result.tokens.dtype, result.tokens.device) == (dtype, video.device)
    if name in SELECTING:
        assert torch.equal(result.tokens, video.flatten(0, 1)[result.component >= 0])


@every_method
def test_the_order_of_the_channels_does_not_matter(name):
    video = draw(gaussian, 5, SIZE, 6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    plain, permuted = keep(name, video, 17), keep(name, video[..., order], 17)
    assert torch.equal(plain.component, permuted.component)
    torch.testing.assert_close(plain.tokens[:, order], permuted.tokens)


@every_method
def test_tensors_of_another_shape_or_kind_are_refused(name, unchecked_shapes):
    for tokens in (torch.ones(3, 4), torch.ones(3, 4, 2, dtype=torch.int64), torch.ones(0, 4, 2)):
        with pytest.raises(InputError, match="must be a non-empty floating tensor"):
            compress_with(build(name, 0.5), tokens, None)


@pytest.mark.parametrize("name", sorted(set(METHODS) - LOOKS_AT_NO_VALUE))
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_tokens_that_are_not_finite_are_refused(name, value):
    video = draw(gaussian, 3, SIZE, 6)
    video[1, 2, 3] = value
    with pytest.raises(InputError, match="NaN or infinity"):
        keep(name, video, 4)


@pytest.mark.parametrize("name", ATTENTIVE)
def test_what_is_needed_must_be_given(name, unchecked_shapes):
    video, compressor = draw(gaussian, 3, SIZE, 6), build(name, 0.5)
    asked = r"needs the attention of the vision tower, finite and of shape \(3, 9\), got "
    for tower in (None, TowerState(), TowerState(keys=torch.ones(3, SIZE, 4))):
        with pytest.raises(InputError, match=asked + "none: give the state that"):
            compressor(video, tower)
    keys = torch.ones(3, SIZE, 4)
    with pytest.raises(InputError, match=asked + r"shape \(3, 8\)"):
        compressor(video, TowerState(torch.ones(3, SIZE - 1), keys))
    with pytest.raises(InputError, match=asked + r"shape \(3, 9\), or values that are not finite"):
        compressor(video, TowerState(torch.full((3, SIZE), torch.nan), keys))


def test_keys_must_be_given(unchecked_shapes):
    video = draw(gaussian, 3, SIZE, 6)
    message = (
        r"VisionZip needs the keys of the vision tower, finite and of shape \(3, 9\) \+ \(width,\), got none"
    )
    zip_, unified, tome = (kind(retention_ratio=0.5) for kind in (VisionZip, Unified, ToMe))
    with pytest.raises(InputError, match=message):
        zip_(video, TowerState(torch.ones(3, SIZE)))
    assert isinstance(zip_, TowerCompressor)
    assert needs_of(zip_, tome) == Needs(attention=True, keys=True)
    assert needs_of(unified, tome) == Needs(attention=True)
    assert needs_of(tome, Identity(), len) == Needs()
