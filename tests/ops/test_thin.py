# SPDX-License-Identifier: MIT
"""Layers with few channels on one side, factored by rows: right, and taken where it is said."""

from __future__ import annotations

import pytest
import torch
from conv_case import check, operands

from cyclegan_fast.ops import reflect_conv2d
from cyclegan_fast.ops.reflect_conv2d import thin

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
LAST = torch.channels_last
# The generators' last layer and their first one, smaller; one channel; a kernel that is not square;
# one row of results; no padding.
CASES = [
    ((2, 16, 13, 10), (3, 16, 7, 7), 3, "tanh"),
    ((2, 3, 10, 13), (16, 3, 7, 7), 3, "none"),
    ((1, 17, 9, 9), (1, 17, 7, 7), 3, "none"),
    ((1, 20, 8, 7), (4, 20, 5, 3), 2, "none"),
    ((1, 16, 7, 12), (2, 16, 7, 7), 0, "none"),
    ((1, 2, 9, 11), (18, 2, 5, 5), 1, "tanh"),
]


@pytest.fixture
def calls(monkeypatch):
    """Names of what was factored."""
    seen = []
    for name in ("convolved", "gradients", "gradient_of_few_channels"):
        right = getattr(thin, name)

        def seeing(*arguments, name=name, right=right):
            seen.append(name)
            return right(*arguments)

        monkeypatch.setattr(thin, name, seeing)
    return seen


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "weight", "padding", "act"), CASES, ids=str)
def test_within_the_budget(shape, weight, padding, act, dtype, calls):
    y = check(operands(shape, weight, dtype, "cpu", LAST), padding, 1, act)
    assert y.is_contiguous(memory_format=LAST)
    few_results = weight[0] <= thin.MOST_THIN
    assert calls == (["convolved", "gradients"] if few_results else ["gradient_of_few_channels"])


@pytest.mark.parametrize("shape", [(2, 16, 9, 8), (2, 2, 9, 8)], ids=str)
def test_gradcheck(shape):
    weight = (2, 16, 5, 5) if shape[1] == 16 else (16, 2, 5, 5)
    leaves = operands(shape, weight, torch.float64, "cpu", LAST)
    assert torch.autograd.gradcheck(
        lambda *given: reflect_conv2d(*given, padding=2, act="tanh"), leaves, fast_mode=True
    )


@pytest.mark.parametrize(
    "needs", [(True, False, False), (False, True, False), (False, False, True)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_each_gradient_by_itself(needs, dtype, calls):
    leaves = operands((2, 16, 9, 8), (3, 16, 7, 7), dtype, "cpu", LAST)
    y = reflect_conv2d(*leaves, padding=3)
    grad = torch.randn(y.shape).to(y)
    whole = torch.autograd.grad(y, leaves, grad)
    some = [leaf.detach().requires_grad_(need) for leaf, need in zip(leaves, needs, strict=True)]
    y = reflect_conv2d(*some, padding=3)
    index = needs.index(True)
    (alone,) = torch.autograd.grad(y, some[index], grad)
    torch.testing.assert_close(alone, whole[index], rtol=1e-5, atol=1e-5)
    assert calls.count("gradients") == 2


def test_what_is_factored_is_what_comes_back(monkeypatch):
    x, weight, bias = operands((1, 3, 9, 8), (16, 3, 7, 7), torch.float32, "cpu", LAST)
    y = reflect_conv2d(x, weight, bias, padding=0)
    monkeypatch.setattr(thin, "gradient_of_few_channels", lambda g, x, w: torch.full_like(x, 7.0))
    gradients = torch.autograd.grad(y.sum(), (x, weight, bias))
    assert (gradients[0] == 7).all()
    assert not any((gradient == 7).all() for gradient in gradients[1:])


@pytest.mark.parametrize(
    ("layout", "weight", "stride"),
    [
        (torch.contiguous_format, (3, 16, 7, 7), 1),
        (LAST, (3, 16, 7, 7), 2),
        (LAST, (3, 16, 4, 7), 1),
        (LAST, (5, 16, 7, 7), 1),
    ],
    ids="contiguous stride low wide".split(),
)
def test_all_else_is_the_librarys(layout, weight, stride, calls):
    leaves = operands((1, 16, 9, 8), weight, torch.float32, "cpu", layout)
    reflect_conv2d(*leaves, padding=1, stride=stride).sum().backward()
    leaves = operands((1, 15, 9, 8), (3, 15, 7, 7), torch.float32, "cpu", LAST)
    reflect_conv2d(*leaves, padding=1).sum().backward()
    assert not calls
