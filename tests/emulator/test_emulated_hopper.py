# SPDX-License-Identifier: MIT
"""reflect_conv2d for Hopper, executed on the CPU: products, barriers and copies are emulated."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "ops"), str(HERE.parent / "csrc")]
import emulator  # noqa: E402
from conv_raw import Layer  # noqa: E402
from fenced import Fences  # noqa: E402

from cyclegan_fast.ops.reflect_conv2d import cuda_hopper as hopper  # noqa: E402
from cyclegan_fast.ops.reflect_conv2d.beside_norm import Normalised  # noqa: E402
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput  # noqa: E402

pytestmark = pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))
DTYPES = [torch.bfloat16, torch.float16]
# x and weight: one window, and three groups of 64 columns; odd sides, two images, two steps of
# channels forward, and back; several tiles, which end within rows.
SHAPES = [
    ((1, 64, 3, 3), (192, 64, 3, 3)),
    ((2, 128, 7, 11), (64, 128, 3, 3)),
    ((2, 64, 13, 14), (128, 64, 3, 3)),
    ((1, 128, 21, 20), (64, 128, 3, 3)),
]
NORMS = [
    {"act": 0},
    {"act": 1, "pad": 1, "skip": True},
    {"act": 2, "pad": 2, "affine": True, "skip": True},
]


@pytest.fixture(params=emulator.SCHEDULES, autouse=True)
def schedule(request, monkeypatch):
    """A kernel that is right in one order of its threads and wrong in another has a race."""
    ops, set_schedule = emulator.load(emulator.SANITIZED in os.environ, "hopper")
    monkeypatch.setattr(hopper, "ops", ops)
    monkeypatch.setattr(hopper, "_why_not_on", lambda _device: None)
    set_schedule(request.param, seed=7)
    return request.param


@pytest.fixture(params=[128, 256])
def positions(request, monkeypatch):
    """A tile's, and chunks of three tiles at the most."""
    monkeypatch.setattr(hopper, "PROGRAMS", 0 if request.param == 256 else 10**6)
    monkeypatch.setattr(hopper, "MOST_CHUNKS", 2)
    return request.param


def drawn(shape, dtype, seed, scale=1.0, centre=0.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * scale + centre
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def empty(shape, dtype):
    return torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)


def layer(shape, weight_shape, dtype=torch.bfloat16, alone=False):
    """Two calls at once, each within the budget; and the same bits alone."""
    layout = torch.channels_last
    return Layer(hopper, F.conv2d, shape, weight_shape, 0, 1, dtype, layout, alone=alone)


def test_a_nan_reaches_the_windows_that_read_it():
    x, weight = drawn((1, 64, 12, 13), torch.bfloat16, 0), drawn((64, 64, 3, 3), torch.bfloat16, 1)
    x[0, 5, 4, 6] = torch.nan
    y = empty((1, 64, 10, 11), x.dtype)
    hopper.forward([Forward(x, weight, None, y)], 0, 1, False)
    expected = torch.zeros(10, 11, dtype=torch.bool)
    expected[2:5, 4:7] = True
    assert torch.equal(y[0].isnan(), expected.expand(64, -1, -1))
    grad_y = torch.ones_like(y)
    grad_y[0, 3, 9, 10] = torch.nan
    grad_x = empty(x.shape, x.dtype)
    hopper.gradient_of_input([OfInput(grad_y, None, weight, grad_x)], 0, 1)
    expected = torch.zeros(12, 13, dtype=torch.bool)
    expected[9:12, 10:13] = True
    assert torch.equal(grad_x[0].isnan(), expected.expand(64, -1, -1))


@pytest.mark.parametrize("at_end", [False, True])
def test_no_byte_beyond_an_operand_is_touched(at_end, schedule):
    """Neither before the first pixel nor behind the last one, where nobody may."""
    fences = Fences(at_end)

    def fenced(x: Tensor) -> Tensor:
        last = x.dim() == 4
        return fences.tensor(tuple(x.shape), x.dtype, channels_last=last).copy_(x)

    x, weight = drawn((2, 64, 5, 7), torch.bfloat16, 0), drawn((64, 64, 3, 3), torch.bfloat16, 1)
    plain = Forward(
        x, weight, drawn((64, 1, 1, 1), x.dtype, 2).flatten(), empty((2, 64, 3, 5), x.dtype)
    )
    chunks = hopper.moments_cover(x.shape, weight.shape, 0, 1)[0]
    plain = plain._replace(moments=torch.empty(2, chunks, 3, 64))
    call = Forward(*map(fenced, plain[:5]))
    hopper.forward([plain], 0, 1, False)
    hopper.forward([call], 0, 1, False)
    assert torch.equal(call.y, plain.y) and torch.equal(call.moments, plain.moments)
    back = OfInput(plain.y, None, weight, empty(x.shape, x.dtype))
    hopper.gradient_of_input([back], 0, 1)
    grad_x = fenced(x)
    hopper.gradient_of_input([OfInput(call.y, None, call.weight, grad_x)], 0, 1)
    assert torch.equal(grad_x, back.grad_x)
    fences.remove()


def test_two_calls_are_each_alone(positions):
    layer(*SHAPES[2], alone=True).check_forward(bias=True, moments=True)
    layer(*SHAPES[1], alone=True).check_gradient_of_input(norm=NORMS[1])


def test_forward_of_tanh_without_moments():
    layer(*SHAPES[1]).check_forward(tanh=True, bias=True)
    layer(*SHAPES[2]).check_forward()


def test_gradient_of_input_behind_tanh():
    layer(*SHAPES[1]).check_gradient_of_input(tanh=True)


def test_a_chunk_without_a_pixel_leaves_zeros():
    """The last chunk of each image is the two positions behind its last row."""
    calls = []
    for seed in (0, 5):
        x, weight = (
            drawn(shape, torch.bfloat16, seed + k, centre=3.0)
            for k, shape in enumerate([(2, 64, 12, 13), (64, 64, 3, 3)])
        )
        moments = torch.full((2, 2, 3, 64), torch.nan)
        calls.append(Forward(x, weight, None, empty((2, 64, 10, 11), x.dtype), moments))
    assert hopper.moments_cover(x.shape, weight.shape, 0, 1) == (2, 128, 13)
    hopper.forward(calls, 0, 1, False)
    for call in calls:
        assert call.moments[:, 0].isfinite().all() and (call.moments[:, 0, 2] > 0).all()
        assert not call.moments[:, 1].any()


def test_moments_far_from_zero():
    layer((1, 64, 9, 10), (64, 64, 3, 3), torch.float16).check_forward(
        bias=True, moments=True, shift=1000.0
    )


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_sums(norm, positions):
    for shapes in (SHAPES[1], SHAPES[3]):
        layer(*shapes).check_gradient_of_input(norm=norm)


@pytest.mark.parametrize(("shape", "weight_shape"), SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_forward(shape, weight_shape, dtype, positions):
    layer(shape, weight_shape, dtype).check_forward(bias=True, moments=True)


@pytest.mark.parametrize(("shape", "weight_shape"), SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradient_of_input(shape, weight_shape, dtype, positions):
    layer(shape, weight_shape, dtype).check_gradient_of_input()


def test_an_image_as_wide_as_is_served(schedule, monkeypatch):
    if schedule != "random":
        pytest.skip("once is enough")
    for size, programs in ((256, 0), (128, 10**6)):
        monkeypatch.setattr(hopper, "PROGRAMS", programs)
        shape = (1, 128, 4, hopper.WIDEST[size])
        tile = hopper._tile(1, shape[2] * shape[3], shape[3], 128, chunked=False)
        assert tile.positions == size
        layer(shape, (128, 128, 3, 3)).check_forward(moments=True)
        layer(shape, (128, 128, 3, 3)).check_gradient_of_input()
    with pytest.raises(RuntimeError, match="fit into shared memory, got 128 of images 600 wide"):
        layer((1, 64, 3, 600), (128, 64, 3, 3)).check_forward()


def test_wrong_arguments_are_named():
    x, weight = drawn((1, 64, 5, 6), torch.bfloat16, 0), drawn((64, 64, 3, 3), torch.bfloat16, 1)
    call = Forward(x, weight, None, empty((1, 64, 3, 4), x.dtype))
    odd = torch.zeros(x.numel() + 1, dtype=x.dtype)[1:].view(1, 5, 6, 64).permute(0, 3, 1, 2)
    norm = Normalised(torch.zeros(1, 64), torch.ones(1, 64), None, None, 0, 0.2)
    for other, message in [
        ({"x": x.float()}, "x must be float16 or bfloat16, got float32"),
        ({"x": odd}, "x must be aligned to 16 bytes"),
        ({"weight": weight[:, :32]}, "weight must be of multiples of 64 channels"),
        ({"weight": weight.half()}, "weight must be of dtype bfloat16, got float16"),
        ({"y": empty((1, 64, 5, 6), x.dtype)}, "y must be of shape"),
        ({"moments": torch.empty(1, 2, 3, 64)}, r"moments must be of shape \[1, 1, 3, 64\]"),
        ({"bias": torch.zeros(64)}, "bias must be of dtype bfloat16, got float32"),
        ({"norm": norm}, "padding must be 1 with a norm on load"),
    ]:
        with pytest.raises((RuntimeError, ValueError), match=message):
            hopper.forward([call._replace(**other)], 0, 1, False)
    with pytest.raises(RuntimeError, match="x must be of one or two calls, got 3"):
        hopper.forward([call] * 3, 0, 1, False)
    none = [[None]] * 5
    for tile, message in [
        ((128, 64, 192), "tile must be one that divides 64 channels and its chunk"),
        ((256, 128, 256), "tile must be one that divides 64 channels and its chunk"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            hopper.ops.reflect_conv2d_hopper_fwd(
                [x], [weight], *none, 0, 0.0, False, *tile, [call.y], [torch.empty(0)]
            )
