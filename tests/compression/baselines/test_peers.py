"""What holds for every method that compares tokens."""

from __future__ import annotations

import pytest
import torch

from llava_scissor.compression import Compressor, Identity
from llava_scissor.compression.baselines.divprune import DivPrune
from llava_scissor.compression.baselines.fastvid import FastVID
from llava_scissor.compression.baselines.holitom import HoliTom
from llava_scissor.compression.baselines.norm import L2Norm
from llava_scissor.compression.baselines.prunevid import PruneVid
from llava_scissor.compression.baselines.temporal import EVS, DyCoke
from llava_scissor.compression.baselines.tome import ToMe
from llava_scissor.compression.baselines.unified import Unified
from llava_scissor.compression.baselines.vidcom2 import VidCom2
from llava_scissor.compression.baselines.visionzip import VisionZip
from llava_scissor.compression.protocol import Needs, TowerCompressor, TowerState, needs_of
from llava_scissor.errors import InputError
from tests.compression.baselines.budgets import SIZE, counts
from tests.compression.checks import assert_same_bytes
from tests.compression.draws import constant, draw, gaussian, ratio_of, smooth, with_zeros

SELECTING = [L2Norm, DyCoke, DivPrune, EVS, VidCom2]
MERGING = [ToMe, PruneVid, VisionZip, FastVID, HoliTom, Unified]
ATTENTIVE = [VisionZip, FastVID, HoliTom, Unified]
every_method = pytest.mark.parametrize("method", [*SELECTING, *MERGING])


def state(video, seed=0) -> TowerState:
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(video.shape[:2], generator=generator)
    return TowerState(attention, torch.randn(*video.shape[:2], 4, generator=generator))


def keep(method, video, count):
    ratio = ratio_of(count, video.shape[0] * video.shape[1])
    return method(retention_ratio=ratio)(video, state(video))


@every_method
@pytest.mark.parametrize(
    ("frames", "kind"),
    [
        *((f, gaussian) for f in (1, 2, 3, 4, 5, 7, 32)),
        *((f, k) for f in (1, 5) for k in (smooth, constant, with_zeros)),
    ],
)
def test_the_budget_is_met(method, frames, kind):
    video = draw(kind, frames, SIZE, 6)
    flat, before = video.flatten(0, 1), video.clone()
    for count in counts(frames):
        result = keep(method, video, count)
        assert result.tokens.shape == (count, 6)
        assert result.tokens.isfinite().all()
        assert result.sizes.min() >= 1
        assert torch.bincount(result.component[result.component >= 0]).tolist() == result.sizes.tolist()
        assert torch.equal(result.assignment, result.component)
        if count == frames * SIZE:
            assert torch.equal(result.tokens, flat)
        if method in SELECTING:
            kept = (result.component >= 0).nonzero().flatten()
            assert torch.equal(result.tokens, flat[kept])
            assert result.component[kept].tolist() == list(range(count))
        slack = 1e-5 * flat.abs().max()
        assert (result.tokens >= flat.amin(0) - slack).all()
        assert (result.tokens <= flat.amax(0) + slack).all()
    assert torch.equal(video, before)


@every_method
def test_the_same_again(method):
    video = draw(smooth, 5, SIZE, 6)
    assert_same_bytes(keep(method, video, 13), keep(method, video, 13))


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_number_format_stays(method, dtype):
    video = draw(gaussian, 5, SIZE, 6).to(dtype)
    result = keep(method, video, 13)
    assert result.tokens.dtype == dtype
    if method in SELECTING:
        assert torch.equal(result.tokens, video.flatten(0, 1)[result.component >= 0])


@every_method
def test_the_order_of_the_channels_does_not_matter(method):
    video = draw(gaussian, 5, SIZE, 6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    plain, permuted = keep(method, video, 17), keep(method, video[..., order], 17)
    assert torch.equal(plain.component, permuted.component)
    torch.testing.assert_close(plain.tokens[:, order], permuted.tokens)


@every_method
def test_bad_tokens_are_refused(method, unchecked_shapes):
    video = draw(gaussian, 3, SIZE, 6)
    video[1, 2, 3] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        keep(method, video, 4)
    with pytest.raises(InputError, match="must be a non-empty floating tensor"):
        method(retention_ratio=0.5)(torch.ones(3, 4))


@every_method
def test_each_is_a_compressor(method):
    assert isinstance(method(retention_ratio=0.5), Compressor)


@pytest.mark.parametrize("method", ATTENTIVE)
def test_what_is_needed_must_be_given(method, unchecked_shapes):
    video = draw(gaussian, 3, SIZE, 6)
    asked = r"needs the attention of the vision tower, finite and of shape \(3, 9\), got "
    for tower in (None, TowerState(), TowerState(keys=torch.ones(3, SIZE, 4))):
        with pytest.raises(InputError, match=asked + "none: give the state that"):
            method(retention_ratio=0.5)(video, tower)
    keys = torch.ones(3, SIZE, 4)
    with pytest.raises(InputError, match=asked + r"shape \(3, 8\)"):
        method(retention_ratio=0.5)(video, TowerState(torch.ones(3, SIZE - 1), keys))
    with pytest.raises(InputError, match=asked + r"shape \(3, 9\), or values that are not finite"):
        method(retention_ratio=0.5)(video, TowerState(torch.full((3, SIZE), torch.nan), keys))


def test_keys_must_be_given(unchecked_shapes):
    video = draw(gaussian, 3, SIZE, 6)
    message = (
        r"VisionZip needs the keys of the vision tower, finite and of shape \(3, 9\) \+ \(width,\), got none"
    )
    with pytest.raises(InputError, match=message):
        VisionZip(retention_ratio=0.5)(video, TowerState(torch.ones(3, SIZE)))
    assert isinstance(VisionZip(retention_ratio=0.5), TowerCompressor)
    assert needs_of(VisionZip(retention_ratio=0.5), ToMe(retention_ratio=0.5)) == Needs(
        attention=True, keys=True
    )
    assert needs_of(Unified(retention_ratio=0.5), ToMe(retention_ratio=0.5)) == Needs(attention=True)
    assert needs_of(ToMe(retention_ratio=0.5), Identity(), len) == Needs()
