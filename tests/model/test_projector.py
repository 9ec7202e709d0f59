from __future__ import annotations

import math

import torch

from llava_scissor.model.projector import Projector


def test_it_is_two_linear_maps_with_an_exact_gelu_between():
    torch.manual_seed(0)
    projector, patches = Projector(4, 6).double(), torch.randn(2, 3, 4, dtype=torch.float64)
    first, second = projector[0], projector[2]
    hidden = patches @ first.weight.T + first.bias
    erf = torch.tensor([math.erf(x / math.sqrt(2)) for x in hidden.flatten().tolist()], dtype=torch.float64)
    expected = (hidden * 0.5 * (1 + erf.view_as(hidden))) @ second.weight.T + second.bias
    torch.testing.assert_close(projector(patches), expected)


def test_its_weights_have_the_names_of_the_original_layout():
    assert set(Projector(4, 6).state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
