# SPDX-License-Identifier: MIT
"""The implicit GEMM: two calls at once, zeros beside reflection, and what the norm beside wants."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conv_raw import Layer, implicit_in_small_tiles

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_implicit as conv
from cyclegan_fast.ops.reflect_conv2d import triton_implicit_tiles as cut
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput

pytestmark = pytest.mark.skipif(
    not _triton.INTERPRETED, reason="on a GPU the real sizes are cut into real tiles"
)
FORMATS = [torch.contiguous_format, torch.channels_last]
# (x, weight, padding, stride, zeros): channels over a block and off it, kernels that are not
# square, strides that leave phases without a tap, more zeros than image, one result.
CASES = [
    ((1, 17, 4, 6), (3, 17, 2, 3), 1, 1, False),
    ((1, 3, 7, 6), (17, 3, 3, 3), 1, 2, False),
    ((2, 2, 6, 5), (3, 2, 4, 4), 1, 2, True),
    ((1, 2, 4, 5), (3, 2, 4, 4), 1, 1, True),
    ((1, 3, 4, 7), (2, 3, 1, 2), 1, 3, False),
    ((1, 2, 3, 2), (3, 2, 2, 2), 3, 1, True),
    ((1, 4, 3, 3), (2, 4, 3, 3), 0, 1, False),
]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    implicit_in_small_tiles(monkeypatch)


def layer(case, dtype=torch.float32, layout=torch.channels_last, **others) -> Layer:
    shape, weight_shape, padding, stride, zeros = case

    def linear(x, weight):
        if not zeros and padding:
            x = F.pad(x, (padding,) * 4, mode="reflect")
        return F.conv2d(x, weight, stride=stride, padding=padding if zeros else 0)

    sizes = (shape, weight_shape, padding, stride)
    return Layer(conv, linear, *sizes, dtype, layout, {"zeros": zeros}, **others)


@pytest.mark.parametrize(
    ("case", "layout"),
    [(case, FORMATS[1]) for case in CASES] + [(case, FORMATS[0]) for case in CASES[:2]],
    ids=str,
)
def test_in_float32(case, layout):
    tested = layer(case, layout=layout)
    tested.check_forward(bias=True, moments=True)
    tested.check_gradient_of_input()
    tested.check_gradient_of_weight()


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        (((1, 3, 6, 4), (2, 3, 3, 3), 1, 2, False), torch.bfloat16),
        (((2, 2, 5, 4), (3, 2, 4, 4), 1, 1, True), torch.float16),
    ],
    ids=str,
)
def test_in_16_bits_and_alone(case, dtype):
    tested = layer(case, dtype, weight_layout=FORMATS[0], alone=True)
    tested.check_forward(bias=True, moments=True)
    tested.check_gradient_of_input(tanh=True)
    tested.check_gradient_of_weight(tanh=True)
    tested.check_gradient_of_weight(dtype=torch.float32)


def test_tanh_in_float32():
    tested = layer(((1, 3, 5, 6), (17, 3, 2, 2), 1, 2, False))
    tested.check_forward(tanh=True)
    tested.check_gradient_of_input(tanh=True)
    tested.check_gradient_of_weight(tanh=True)


@pytest.mark.parametrize("needs", [(True, False), (False, True)], ids=str)
def test_one_gradient_alone(needs):
    layer(((2, 1, 6, 5), (3, 1, 3, 3), 1, 1, False)).check_gradient_of_weight(needs=needs)


@pytest.mark.parametrize(
    ("norm", "layout"),
    [
        ({"pad": 1, "act": 1, "skip": True}, FORMATS[1]),
        ({"pad": 2, "act": 2, "affine": True}, FORMATS[0]),
        ({"pad": 0, "act": 0, "affine": True, "skip": True}, FORMATS[1]),
    ],
    ids=str,
)
def test_sums_of_the_norm_that_has_made_the_input(norm, layout):
    tested = layer(((2, 18, 8, 9), (3, 18, 2, 2), 0, 1, False), layout=layout)
    tested.check_gradient_of_input(norm=norm)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sums_in_16_bits_and_by_phases(dtype):
    strided = layer(((1, 3, 9, 8), (4, 3, 3, 3), 0, 2, False), dtype, alone=True)
    strided.check_gradient_of_input(norm={"pad": 1, "affine": True, "skip": True})
    strided = layer(((1, 3, 7, 8), (4, 3, 4, 4), 1, 2, True), dtype)
    strided.check_gradient_of_input(norm={"act": 2})


def test_moments_far_from_zero():
    """What is left of a thousand is the spread of the results, to float32's last digits."""
    tested = layer(((1, 2, 12, 11), (2, 2, 1, 1), 0, 1, False))  # chunks of three tiles
    (call, _) = tested.check_forward(bias=True, moments=True, shift=1000.0)
    assert call.y.min() > 900


def test_chunks_are_few_and_serve_every_dtype(monkeypatch):
    monkeypatch.undo()
    sizes = [(66, 66), (256, 256), (7, 5), (1, 1), (262, 262), (129, 1023)]
    for (height, width), stride in [(size, stride) for size in sizes for stride in (1, 2)]:
        pixels = height * width
        chunks, each = cut.chunks_of_positions(pixels)
        assert chunks <= 64 and (chunks - 1) * each < pixels <= chunks * each
        shape = torch.Size((1, 8, height, width))
        sums = conv.sums_chunks(shape, shape, 0, stride)
        assert 1 <= sums <= 64
        for tiles in cut.TILES.values():
            assert each % min(tiles.pixels, cut.side_of(pixels)) == 0


def test_what_is_refused():
    x = torch.empty(1, 2, 5, 5)
    assert conv.why_not(x, x, 1, 1) is None
    assert conv.why_not(x.double(), x, 1, 1) == "its products are not made in torch.float64"
    weight, y = torch.empty(2, 2, 3, 3), torch.empty(1, 2, 3, 3)
    moments = torch.empty(1, 2, 3, 2)
    with pytest.raises(ValueError, match="partial must have 1 chunks, got 2"):
        conv.forward([Forward(x, weight, None, y, moments)], 0, 1, False)
    far = torch.empty(1, 1, 2**15, 2**15, device="meta")
    with pytest.raises(ValueError, match="must have fewer than 1073741824 pixels"):
        conv.gradient_of_input([OfInput(y, None, weight, far)], 0, 1)
