# SPDX-License-Identifier: MIT
"""Norms on load, forward and back, and the folded border in the convolution for Hopper."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from test_emulated_hopper import (  # noqa: F401
    DTYPES,
    drawn,
    empty,
    positions,
    pytestmark,
    schedule,
)

# By way of test_emulated_hopper, which has put their folders on the path.
from fenced import Fences  # isort: skip
from on_load_case import OnLoad  # isort: skip

from cyclegan_fast.ops.reflect_conv2d import cuda_hopper as hopper
from cyclegan_fast.ops.reflect_conv2d.beside_norm import Normalised, NormGradient
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput

BF16 = torch.bfloat16
# x and weight: the fewest rows and columns, which all are mirrored; rows that end within tiles, two
# images and two groups of columns; a tile to each row, of which the last is the first one's mirror;
# three steps of channels, and mirrored columns on both sides of where a tile would have ended.
LEAST = ((1, 64, 2, 10), (64, 64, 3, 3))
ODD = ((2, 128, 7, 12), (64, 128, 3, 3))
LONG = ((1, 64, 3, 125), (64, 64, 3, 3))
DEEP = ((1, 64, 8, 29), (192, 64, 3, 3))
SHAPES = [LEAST, ODD, LONG, DEEP]
NORMS = [
    {"act": 0},
    {"act": 1, "skip": True},
    {"act": 2, "affine": True, "skip": True},
]


@pytest.fixture(autouse=True)
def chunks(monkeypatch):
    """Chunks of several tiles."""
    monkeypatch.setattr(hopper, "MOST_CHUNKS", 2)


def mirrored(x, weight):
    return F.conv2d(F.pad(x, (1,) * 4, mode="reflect"), weight)


def layer(shape, weight_shape, dtype=BF16, **others) -> OnLoad:
    """Two calls at once, each within the budget."""
    layout = torch.channels_last
    return OnLoad(hopper, mirrored, shape, weight_shape, 1, 1, dtype, layout, **others)


@pytest.mark.parametrize("shapes", [LEAST, ODD, DEEP], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("affine", [False, True])
def test_the_norm_before(shapes, dtype, affine):
    layer(*shapes, dtype).check_forward(affine=affine, bias=True, moments=True)


@pytest.mark.parametrize("act", [0, 2])
def test_the_norm_before_alone_in_either_tile(act, positions):  # noqa: F811
    layer(*ODD, alone=True).check_forward(act, affine=True, moments=True)


def test_the_norm_before_far_from_zero():
    layer(*ODD, torch.float16, centre=1000.0).check_forward(affine=True, bias=True, moments=True)


def test_a_nan_of_the_norm_before_reaches_the_windows_that_read_it():
    """The pixel itself and its mirror images, and no other; relu keeps a nan as eager does."""
    x, weight = drawn((1, 64, 6, 11), BF16, 0), drawn((64, 64, 3, 3), BF16, 1)
    norm = Normalised(torch.zeros(1, 64), torch.ones(1, 64), None, None, 1, 0.0)
    x[0, 7, 1, 9] = torch.nan
    y = empty(x.shape, BF16)
    hopper.forward([Forward(x, weight, None, y, None, norm)], 1, 1, False)
    expected = torch.zeros(6, 11, dtype=torch.bool)
    expected[:3, 8:] = True
    assert torch.equal(y[0].isnan(), expected.expand(64, -1, -1))


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_border_is_folded(shapes, dtype):
    layer(*shapes, dtype).check_gradient_of_input(on_load=False)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("affine", [False, True])
def test_the_backward_of_the_norm_behind(shapes, affine):
    layer(*shapes).check_gradient_of_input(affine=affine)


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("shapes", [ODD, DEEP], ids=str)
def test_dz_of_the_norm_before(shapes, norm):
    layer(*shapes).check_gradient_of_input(affine=True, norm=norm)


def test_sums_of_a_gradient_that_is_not_dz():
    """What the norm before would read itself."""
    super(OnLoad, layer(*ODD)).check_gradient_of_input(norm=NORMS[2])


def test_far_from_zero():
    layer(*ODD, torch.float16, centre=1000.0).check_gradient_of_input(
        affine=True, norm={"act": 1, "affine": True}
    )


def test_behind_tanh():
    super(OnLoad, layer(*ODD)).check_gradient_of_input(tanh=True)


def test_two_calls_are_each_alone():
    layer(*ODD, alone=True).check_gradient_of_input(affine=True, norm=NORMS[2])


def test_a_nan_reaches_the_pixels_that_are_made_of_it():
    grad_y, weight = drawn((1, 64, 6, 11), BF16, 0), drawn((64, 64, 3, 3), BF16, 1)
    grad_y[0, 7, 0, 9] = torch.nan
    grad_x = empty(grad_y.shape, BF16)
    hopper.gradient_of_input([OfInput(grad_y, None, weight, grad_x)], 1, 1)
    expected = torch.zeros(6, 11, dtype=torch.bool)
    expected[:2, 8:] = True
    assert torch.equal(grad_x[0].isnan(), expected.expand(64, -1, -1))


@pytest.mark.parametrize("at_end", [False, True])
def test_no_byte_beyond_an_operand_is_touched(at_end):
    fences = Fences(at_end)

    def fenced(x):
        if not isinstance(x, torch.Tensor):
            return x
        return fences.tensor(tuple(x.shape), x.dtype, channels_last=x.dim() == 4).copy_(x)

    tested = layer((1, 64, 3, 10), (64, 64, 3, 3))
    (call, _) = tested.check_gradient_of_input(affine=True, norm=NORMS[2])
    norm, of_norm = (type(each)(*map(fenced, each)) for each in (call.norm, call.of_norm))
    skip = fenced(norm.skip.contiguous(memory_format=torch.channels_last))
    other = OfInput(*map(fenced, call[:4]), norm._replace(skip=skip), of_norm)
    hopper.gradient_of_input([other], 1, 1)
    assert torch.equal(other.grad_x, call.grad_x)
    assert torch.equal(other.norm.partial, call.norm.partial)
    (call, _) = tested.check_forward(affine=True, bias=True, moments=True)
    forward = Forward(*map(fenced, call[:5]), Normalised(*map(fenced, call.norm)))
    hopper.forward([forward], 1, 1, False)
    assert torch.equal(forward.y, call.y) and torch.equal(forward.moments, call.moments)
    fences.remove()


def test_the_widest(schedule, monkeypatch):  # noqa: F811
    if schedule != "random":
        pytest.skip("once is enough")
    layer((1, 128, 2, hopper.WIDEST[128] - 2), (128, 128, 3, 3)).check_gradient_of_input(
        affine=True, norm={"act": 1}
    )


def test_wrong_arguments_are_named():
    x, weight = drawn((1, 64, 4, 10), BF16, 0), drawn((64, 64, 3, 3), BF16, 1)
    mean = torch.zeros(1, 64)
    behind = NormGradient(x, mean, mean + 1, None, torch.zeros(1, 2, 64))
    call = OfInput(x, None, weight, empty(x.shape, BF16), None, behind)
    norm = layer(*LEAST)._norm(0)
    for padding, other, message in [
        (0, {}, "with a norm's backward on load .* got padding 0 and pad 0"),
        (2, {}, "padding must be 0 or 1"),
        (1, {"norm": norm._replace(pad=1)}, "the norm's pad 0, got padding 1 and pad 1"),
        (0, {"of_norm": None, "norm": norm._replace(masked=True)}, "or a masked gradient"),
        (1, {"y": x}, "y must be none where a norm is behind, got a tensor"),
        (1, {"grad_x": empty((1, 64, 6, 12), BF16)}, r"grad_x must be of shape \[1, 64, 4, 10\]"),
        (1, {"of_norm": behind._replace(x=x.half())}, "behind_x must be of dtype bfloat16"),
        (1, {"of_norm": behind._replace(sums=mean)}, r"behind_sums must be .*\[1, 2, 64\]"),
        (1, {"grad_y": x[:, :, :, :9].contiguous()}, "grad_y must be large enough"),
    ]:
        with pytest.raises((RuntimeError, ValueError), match=message):
            hopper.gradient_of_input([call._replace(**other)], padding, 1)
    with pytest.raises(RuntimeError, match="given with behind_x, for each call"):
        hopper.gradient_of_input([call, call._replace(of_norm=None)], 1, 1)
