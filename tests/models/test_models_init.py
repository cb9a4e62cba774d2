# SPDX-License-Identifier: MIT
"""Initial weights follow upstream's rules, layer by layer and in upstream's order."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cyclegan_fast import models

RULES = {
    "normal": lambda w, gain: nn.init.normal_(w, 0.0, gain),
    "xavier": lambda w, gain: nn.init.xavier_normal_(w, gain=gain),
    "kaiming": lambda w, gain: nn.init.kaiming_normal_(w, a=0, mode="fan_in"),
    "orthogonal": lambda w, gain: nn.init.orthogonal_(w, gain=gain),
}


@pytest.mark.parametrize("init_type", RULES)
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_same_seed_gives_the_weights_of_a_walk_over_the_layers(init_type, norm):
    net = models.ResnetGenerator(3, 3, 4, norm, n_blocks=1)
    for parameter in net.parameters():
        nn.init.constant_(parameter, 7.0)
    torch.manual_seed(3)
    models.init_weights(net, init_type, 0.05)
    torch.manual_seed(3)
    for module in net.modules():  # leaves, which alone have weights, come in the same order
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            expected = RULES[init_type](module.weight.detach().clone(), 0.05)
            assert torch.equal(module.weight, expected)
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            expected = nn.init.normal_(module.weight.detach().clone(), 1.0, 0.05)
            assert torch.equal(module.weight, expected)
            assert not module.bias.any()


@pytest.mark.parametrize(
    ("init_type", "deviation"),
    [
        ("normal", 0.02),
        ("xavier", 0.02 * math.sqrt(2 / (256 * 9 + 256 * 9))),
        ("kaiming", math.sqrt(2 / (256 * 9))),
    ],
)
def test_spread_of_a_wide_convolution_is_the_formulas(init_type, deviation):
    net = models.init_weights(nn.Conv2d(256, 256, 3), init_type)
    assert net.weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert abs(net.weight.mean().item()) < 0.01 * deviation


def test_orthogonal_rows_are_orthogonal():
    weight = models.init_weights(nn.Linear(32, 16), "orthogonal", 0.5).weight.flatten(1)
    torch.testing.assert_close(weight @ weight.T, 0.25 * torch.eye(16))


def test_other_layers_stay_and_a_generator_is_obeyed():
    net = nn.Sequential(nn.Conv2d(2, 2, 3), nn.InstanceNorm2d(2, affine=True), nn.PReLU())
    nn.init.constant_(net[1].weight, 5.0)
    nn.init.constant_(net[1].bias, 4.0)
    generator = torch.Generator().manual_seed(9)
    state = torch.get_rng_state()
    assert models.init_weights(net, generator=generator) is net
    assert torch.equal(torch.get_rng_state(), state)
    first = net[0].weight.detach().clone()
    assert torch.equal(net[1].weight, torch.full((2,), 5.0))
    assert torch.equal(net[1].bias, torch.full((2,), 4.0))
    assert torch.equal(net[2].weight, torch.full((1,), 0.25))
    models.init_weights(net, generator=generator.manual_seed(9))
    assert torch.equal(net[0].weight, first)
