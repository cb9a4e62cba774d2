# SPDX-License-Identifier: MIT
"""The weight's gradient by Winograd's algorithm: right, and taken where it is said to be."""

from __future__ import annotations

import pytest
import torch
from conv_case import operands
from numerics import assert_within_budget

from cyclegan_fast.ops import reflect_conv2d
from cyclegan_fast.ops.reflect_conv2d import winograd

aten = torch.ops.aten
CHANNELS, SIDE = winograd.LEAST_CHANNELS, 64
assert SIDE**2 == winograd.LEAST_PIXELS


def library(grad_y, x, weight):
    """The gradient by PyTorch's own convolution."""
    _, gradient, _ = aten.convolution_backward(
        grad_y, x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False]
    )
    return gradient


@pytest.fixture
def calls(monkeypatch):
    """One entry for each call of weight_gradient."""
    seen, right = [], winograd.weight_gradient

    def seeing(*arguments):
        seen.append(len(arguments))
        return right(*arguments)

    monkeypatch.setattr(winograd, "weight_gradient", seeing)
    return seen


# As few pixels as there may be; sides odd and unlike, channels that are no multiple of a vector; an
# image far off centre; one row, so that half of every window lies beyond the image.
@pytest.mark.parametrize(
    ("shape", "out_channels", "offset"),
    [
        ((1, CHANNELS, SIDE + 2, SIDE + 2), CHANNELS, 0.0),
        ((2, CHANNELS + 3, 53, 46), CHANNELS + 9, 0.0),
        ((3, CHANNELS, 39, 39), CHANNELS, 30.0),
        ((1, CHANNELS, 3, 4099), CHANNELS, 1.0),
    ],
    ids=str,
)
def test_within_the_budget(shape, out_channels, offset):
    generator = torch.Generator().manual_seed(1)
    n, channels, height, width = shape

    def drawn(*sizes):
        values = torch.randn(sizes, generator=generator)
        return values.contiguous(memory_format=torch.channels_last)

    x = drawn(*shape).relu() + offset
    grad_y, weight = (
        drawn(n, out_channels, height - 2, width - 2),
        drawn(out_channels, channels, 3, 3),
    )
    assert winograd.serves(x, weight, 1)
    ours = winograd.weight_gradient(grad_y, x)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    truth = library(grad_y.double(), x.double(), weight.double())
    assert_within_budget(ours, library(grad_y, x, weight), truth, "weight")


def test_the_convolution_takes_it_and_no_other_gradient_changes(calls):
    leaves = operands(
        (1, CHANNELS, SIDE, SIDE), (CHANNELS, CHANNELS, 3, 3), torch.float32, "cpu",
        torch.channels_last,
    )[:2]  # fmt: skip
    y = reflect_conv2d(*leaves, padding=1)
    grad = torch.randn(y.shape).contiguous(memory_format=torch.channels_last)
    of_x, of_weight = torch.autograd.grad(y, leaves, grad)

    def alone(i):
        some = [leaf.detach().requires_grad_(j == i) for j, leaf in enumerate(leaves)]
        return torch.autograd.grad(reflect_conv2d(*some, padding=1), some[i], grad)[0]

    assert torch.equal(of_x, alone(0))
    assert len(calls) == 1
    padded = torch.nn.functional.pad(leaves[0].detach().double(), (1,) * 4, mode="reflect")
    truth = library(grad.double(), padded, leaves[1].double())
    eager = library(grad, padded.float(), leaves[1])
    assert_within_budget(of_weight, eager, truth, "weight")
    assert torch.equal(of_weight, alone(1))
    assert len(calls) == 2


def test_ten_runs_give_the_same_bits():
    x = torch.randn(1, CHANNELS, 40, 40).contiguous(memory_format=torch.channels_last)
    grad_y = torch.randn(1, CHANNELS, 38, 38)
    first = winograd.weight_gradient(grad_y, x)
    for _ in range(9):
        assert torch.equal(winograd.weight_gradient(grad_y, x), first)


X = torch.empty(1, CHANNELS, SIDE + 2, SIDE + 2).contiguous(memory_format=torch.channels_last)
WEIGHT = torch.empty(CHANNELS, CHANNELS, 3, 3)


@pytest.mark.parametrize(
    ("x", "weight", "stride"),
    [
        (X.double(), WEIGHT.double(), 1),
        (X.bfloat16(), WEIGHT.bfloat16(), 1),
        (X.contiguous(), WEIGHT, 1),
        (X[:, :, 2:], WEIGHT, 1),
        (X[:, 1:].contiguous(memory_format=torch.channels_last), WEIGHT[:, 1:], 1),
        (X, WEIGHT[1:], 1),
        (X, torch.empty(CHANNELS, CHANNELS, 4, 3), 1),
        (X, WEIGHT, 2),
        (X.to("meta"), WEIGHT.to("meta"), 1),
    ],
    ids="float64 bfloat16 contiguous small thin few kernel stride meta".split(),
)
def test_all_else_is_the_librarys(x, weight, stride):
    assert winograd.serves(X, WEIGHT, 1)
    assert not winograd.serves(x, weight, stride)


def test_with_a_bias_the_library_makes_both(calls):
    leaves = operands(
        (1, CHANNELS, SIDE, SIDE), (CHANNELS, CHANNELS, 3, 3), torch.float32, "cpu",
        torch.channels_last,
    )  # fmt: skip
    torch.autograd.grad(reflect_conv2d(*leaves, padding=1).sum(), leaves)
    assert not calls
