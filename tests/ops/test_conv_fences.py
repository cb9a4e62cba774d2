# SPDX-License-Identifier: MIT
"""Convolutions in Triton touch no byte beside their operands.

The interpreter refuses an address outside all tensors of a launch. Here each tensor lies alone
between pages that nobody may touch, at their end or at their beginning, and nan where it has gaps:
what is read beyond one is not another.
"""

from __future__ import annotations

import sys
from functools import reduce
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conv_raw import Layer, implicit_in_small_tiles
from on_load_case import OnLoad, layer
from test_conv_factored import small_tiles as small_factored_tiles  # noqa: F401
from test_conv_rows import BF16, F32, LAST, TWO, form, small_tiles  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[1] / "csrc"))
from fenced import Fences  # noqa: E402

from cyclegan_fast.ops import _triton  # noqa: E402
from cyclegan_fast.ops.reflect_conv2d import triton_factored as factored  # noqa: E402
from cyclegan_fast.ops.reflect_conv2d import triton_rows as rows  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not _triton.INTERPRETED, reason="a GPU has no such pages"),
    pytest.mark.skipif(sys.platform != "linux", reason="pages are protected as Linux does it"),
]
WRITTEN = {
    "forward": ("y", "moments"),
    "gradient_of_input": ("grad_x", "partial"),
    "gradient_of_weight": ("grad_weight", "grad_bias"),
}


@pytest.fixture(params=["at the end", "at the beginning"])
def fences(request):
    fences = Fences(at_end=request.param == "at the end")
    yield fences
    fences.remove()


def fenced(value, fences, blank, name=""):
    """A copy whose tensors are between fences; of those that are blank, the memory alone."""
    if isinstance(value, torch.Tensor) and value.numel():
        sides = zip(value.shape, value.stride(), strict=True)
        extent = 1 + sum((size - 1) * stride for size, stride in sides)
        memory = fences.tensor((extent,), value.dtype).fill_(torch.nan)
        copy = memory.as_strided(value.shape, value.stride())
        return copy if name in blank else copy.copy_(value)
    if isinstance(value, tuple):
        parts = zip(value._fields, value, strict=True)
        return type(value)(*(fenced(part, fences, blank, field) for field, part in parts))
    return value


def check(module, function, calls, arguments, fences) -> None:
    """The same bits as before, from operands between fences."""
    names = WRITTEN[function]
    between = [fenced(call, fences, (*names, "workspace")) for call in calls]
    getattr(module, function)(between, *arguments)
    for call, ours in zip(calls, between, strict=True):
        for name in names:
            of = ("norm", name) if name == "partial" else (name,)
            made, expected = (reduce(_part, of, each) for each in (ours, call))
            assert (made is None) == (expected is None)
            assert made is None or torch.equal(made, expected), name


def _part(call, name):
    return None if call is None else getattr(call, name)


def test_rows(fences, form):  # noqa: F811
    norm = {"act": 2, "pad": 1, "affine": True, "skip": True}
    tested = Layer(rows, F.conv2d, *TWO, 0, 1, BF16, LAST)
    calls = tested.check_forward(bias=True, moments=True)
    check(rows, "forward", calls, (0, 1, False), fences)
    calls = tested.check_gradient_of_input(norm=norm)
    check(rows, "gradient_of_input", calls, (0, 1), fences)
    for groups, tanh in [(1, True), (2, False)]:
        calls = tested.check_gradient_of_weight(tanh=tanh, groups=groups)
        check(rows, "gradient_of_weight", calls, (0, 1), fences)


@pytest.mark.parametrize(
    ("shape", "weight_shape", "padding", "dtype"),
    [((1, 3, 3, 4), (17, 3, 5, 5), 2, F32), ((1, 17, 6, 7), (3, 17, 5, 5), 0, BF16)],
    ids=str,
)
def test_factored(shape, weight_shape, padding, dtype, fences):
    def linear(x, weight):
        return F.conv2d(F.pad(x, (padding,) * 4, mode="reflect"), weight)

    tested = Layer(factored, linear, shape, weight_shape, padding, 1, dtype, LAST)
    first = shape[1] < weight_shape[0]
    calls = tested.check_forward(bias=True, moments=first)
    check(factored, "forward", calls, (padding, 1, False), fences)
    norm = None if first else {"act": 1, "pad": 1, "affine": True, "skip": True}
    calls = tested.check_gradient_of_input(norm=norm)
    check(factored, "gradient_of_input", calls, (padding, 1), fences)
    calls = tested.check_gradient_of_weight(tanh=True)
    check(factored, "gradient_of_weight", calls, (padding, 1), fences)


@pytest.mark.parametrize(
    ("case", "on_load"),
    [
        (("reflect", (1, 3, 4, 5), (17, 3, 3, 3), 1, 1), True),
        (("zeros", (2, 3, 5, 6), (4, 3, 4, 4), 1, 2), False),
        (("transposed", (1, 3, 2, 3), (3, 4, 3, 3), 1, 2), True),
    ],
    ids=str,
)
def test_implicit_and_transposed(case, on_load, fences, monkeypatch):
    """Each sum in splits, and each image in several chunks."""
    implicit_in_small_tiles(monkeypatch)
    tested = layer(case, BF16)
    module, (*_, padding, stride) = tested.module, case
    zeros = (True,) if case[0] == "zeros" else ()
    norm = {"act": 1, "affine": True, "skip": True}
    if on_load:
        calls = tested.check_forward(affine=True, bias=True, moments=True)
    else:
        calls = super(OnLoad, tested).check_forward(bias=True, moments=True)
    check(module, "forward", calls, (padding, stride, False, *zeros), fences)
    calls = tested.check_gradient_of_input(affine=True, on_load=on_load, norm=norm)
    check(module, "gradient_of_input", calls, (padding, stride, *zeros), fences)
    given = {"affine": True} if on_load else None
    calls = tested.check_gradient_of_weight(before=given, behind=given)
    check(module, "gradient_of_weight", calls, (padding, stride, *zeros), fences)
