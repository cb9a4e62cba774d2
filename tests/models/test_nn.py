# SPDX-License-Identifier: MIT
"""The modules are torch's layers in a row, with torch's state dicts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cyclegan_fast import accelerate, explain
from cyclegan_fast.nn import InstanceNormAct2d, L1Loss, LSGANLoss, ReflectConv2d, ReflectPad2d

X = torch.randn(2, 4, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("act", ["none", "relu", "leaky_relu"])
def test_norm_act_is_torchs_layers_in_a_row(affine, act):
    theirs = torch.nn.InstanceNorm2d(4, eps=1e-3, affine=affine).double()
    ours = InstanceNormAct2d(4, 1e-3, affine, act=act, negative_slope=0.3, pad=2).double()
    if affine:
        torch.nn.init.normal_(theirs.weight)
        torch.nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = X.clone().requires_grad_()
    z = theirs(x)
    z = {"none": z, "relu": F.relu(z), "leaky_relu": F.leaky_relu(z, 0.3)}[act]
    expected = F.pad(z + X, (2, 2, 2, 2), mode="reflect")
    result = ours(x, X)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    upstream = torch.randn(expected.shape, dtype=torch.float64)
    leaves = [x, *theirs.parameters()]
    truth = torch.autograd.grad(expected, leaves, upstream)
    gradients = torch.autograd.grad(result, [x, *ours.parameters()], upstream)
    for gradient, true in zip(gradients, truth, strict=True):
        torch.testing.assert_close(gradient, true, rtol=0, atol=1e-11)


@pytest.mark.parametrize("bias", [True, False])
def test_convolution_is_torchs_with_the_same_weights(bias):
    options = {"stride": 2, "padding": 2, "bias": bias, "dtype": torch.float64}
    torch.manual_seed(1)
    theirs = torch.nn.Conv2d(4, 3, 3, padding_mode="reflect", **options)
    torch.manual_seed(1)
    ours = ReflectConv2d(4, 3, 3, act="tanh", **options)
    for (name, drawn), (other, expected) in zip(
        ours.state_dict().items(), theirs.state_dict().items(), strict=True
    ):
        assert name == other and torch.equal(drawn, expected)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(X), theirs(X).tanh(), rtol=0, atol=1e-12)
    assert repr(ours) == (
        f"ReflectConv2d(4, 3, kernel_size=(3, 3), stride=2, padding=2, bias={bias}, act='tanh')"
    )


def test_pad_and_losses():
    assert torch.equal(ReflectPad2d(2)(X), F.pad(X, (2, 2, 2, 2), mode="reflect"))
    loss = LSGANLoss(real_label=0.9)
    torch.testing.assert_close(loss(X, True), (X - 0.9).square().mean())
    torch.testing.assert_close(loss(X, False), X.square().mean())
    torch.testing.assert_close(L1Loss()(X, 2 * X), X.abs().mean())
    assert not loss.state_dict()


def test_printed():
    text = repr(InstanceNormAct2d(4, act="leaky_relu", pad=1))
    assert text == (
        "InstanceNormAct2d(4, eps=1e-05, affine=False, act='leaky_relu', negative_slope=0.2, pad=1)"
    )
    assert repr(ReflectPad2d(3)) == "ReflectPad2d(3)"
    assert repr(LSGANLoss()) == "LSGANLoss(real_label=1.0, fake_label=0.0)"


def test_they_are_layers_to_fusion():
    net = torch.nn.Sequential(InstanceNormAct2d(4, pad=1), torch.nn.InstanceNorm2d(4)).double()
    expected = net(X)
    assert explain(accelerate(net)).norms == (1, 1)
    torch.testing.assert_close(net(X), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: InstanceNormAct2d(0), "num_features must be at least 1, got 0"),
        (lambda: InstanceNormAct2d(3, act="gelu"), "none, relu, leaky_relu, got 'gelu'"),
        (lambda: InstanceNormAct2d(3, pad=-1), "pad must be at least 0, got -1"),
        (lambda: ReflectPad2d(-2), "pad must be at least 0, got -2"),
        (lambda: ReflectConv2d(0, 3, 3), "in_channels must be at least 1, got 0"),
        (lambda: ReflectConv2d(3, 3, 3, padding=-1), "padding must be at least 0, got -1"),
        (lambda: ReflectConv2d(4, 4, 3, groups=2), "groups must be 1, got 2"),
        (lambda: ReflectConv2d(4, 4, 3, dilation=2), "dilation must be 1, got 2"),
        (lambda: ReflectConv2d(4, 4, 3, act="relu"), "act must be one of none, tanh, got 'relu'"),
        (lambda: InstanceNormAct2d(3)(X), "x must have 3 channels, got 4"),
    ],
)
def test_wrong_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()
