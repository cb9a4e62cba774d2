# SPDX-License-Identifier: MIT
"""The transposed convolution's launchers, whose result is stride times as large as its input."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conv_raw import Layer, implicit_in_small_tiles

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_transposed
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput

pytestmark = pytest.mark.skipif(
    not _triton.INTERPRETED, reason="on a GPU the real sizes are cut into real tiles"
)
FORMATS = [torch.contiguous_format, torch.channels_last]
# (x, weight, padding, stride): the generator's, several tiles across and down; one result of four
# pixels; a kernel of even sides; more channels than a block; stride 3, and none.
CASES = [
    ((2, 3, 6, 9), (3, 4, 3, 3), 1, 2),
    ((1, 2, 1, 1), (2, 3, 3, 3), 1, 2),
    ((1, 17, 3, 2), (17, 18, 4, 4), 1, 2),
    ((1, 2, 3, 4), (2, 3, 4, 4), 1, 3),
    ((1, 2, 4, 3), (2, 3, 3, 3), 1, 1),
]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    implicit_in_small_tiles(monkeypatch)


def layer(case, dtype=torch.float32, layout=torch.channels_last, **others) -> Layer:
    shape, weight_shape, padding, stride = case
    more = stride + 2 * padding - weight_shape[2]

    def linear(x, weight):
        return F.conv_transpose2d(x, weight, None, stride, padding, more)

    sizes = (shape, weight_shape, padding, stride)
    return Layer(triton_transposed, linear, *sizes, dtype, layout, **others)


@pytest.mark.parametrize(
    ("case", "layout"),
    [(case, FORMATS[1]) for case in CASES] + [(CASES[0], FORMATS[0])],
    ids=str,
)
def test_in_float32(case, layout):
    tested = layer(case, layout=layout)
    tested.check_forward(bias=True, moments=True)
    tested.check_gradient_of_input(norm={"act": 1})
    tested.check_gradient_of_weight()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_in_16_bits_and_alone(dtype):
    tested = layer(((1, 3, 3, 5), (3, 4, 3, 3), 1, 2), dtype, weight_layout=FORMATS[0], alone=True)
    tested.check_forward(moments=True)
    tested.check_gradient_of_input(norm={"act": 2, "affine": True, "skip": True})
    tested.check_gradient_of_weight()
    tested.check_gradient_of_weight(dtype=torch.float32)


def test_sums_of_a_padded_input():
    tested = layer(((2, 17, 7, 8), (17, 2, 3, 3), 1, 2))
    tested.check_gradient_of_input(norm={"pad": 2, "skip": True})


@pytest.mark.parametrize("needs", [(True, False), (False, True)], ids=str)
def test_one_gradient_alone(needs):
    layer(CASES[3]).check_gradient_of_weight(needs=needs)


def test_moments_far_from_zero():
    tested = layer(((1, 3, 4, 5), (3, 2, 3, 3), 1, 2))
    (call, _) = tested.check_forward(bias=True, moments=True, shift=1000.0)
    assert call.y.min() > 900


def test_chunks_are_few_and_serve_every_dtype(monkeypatch):
    monkeypatch.undo()
    for height, width in [(64, 64), (128, 128), (3, 5), (1, 1), (513, 100), (16, 1000)]:
        x, weight = torch.Size((1, 8, height, width)), torch.Size((8, 4, 3, 3))
        chunks, each, pitch = triton_transposed.moments_cover(x, weight, 1, 2)
        assert pitch == 2 * width and chunks <= 64 and each % (2 * pitch) == 0
        assert (chunks - 1) * each < 4 * height * width <= chunks * each
        assert 1 <= triton_transposed.sums_chunks(x, weight, 1, 2) <= 64


def test_what_is_refused():
    x, weight, y = (torch.empty(shape) for shape in ((1, 2, 3, 3), (2, 2, 3, 3), (1, 2, 6, 6)))
    assert triton_transposed.why_not(x, weight, 1, 2) is None
    assert triton_transposed.why_not(x, weight, 0, 2) == "its result is not 2 times as large as x"
    assert triton_transposed.why_not(x, weight, 2, 2) == "its result is not 2 times as large as x"
    assert "float64" in triton_transposed.why_not(x.double(), weight, 1, 2)
    with pytest.raises(ValueError, match="no tanh"):
        triton_transposed.forward([Forward(x, weight, None, y)], 1, 2, True)
    with pytest.raises(ValueError, match="no tanh"):
        triton_transposed.gradient_of_input([OfInput(y, y, weight, x)], 1, 2)
