# SPDX-License-Identifier: MIT
"""The weight's gradient of reflect_conv2d for Hopper, executed on the CPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from test_emulated_hopper import (  # noqa: F401
    drawn,
    empty,
    pytestmark,
    schedule,
)

# By way of test_emulated_hopper, which has put their folders on the path.
from conv_raw import Layer, layer_of  # isort: skip
from fenced import Fences  # isort: skip

from cyclegan_fast.ops.reflect_conv2d import cuda_hopper as hopper
from cyclegan_fast.ops.reflect_conv2d.beside_norm import Normalised
from cyclegan_fast.ops.reflect_conv2d.calls import OfWeight

F32, BF16 = torch.float32, torch.bfloat16
# x and weight: one window, three groups of 64 channels; five images of one row, a warpgroup without
# filters; rows of two steps, the first of which is full.
ONE = ((1, 192, 3, 3), (64, 192, 3, 3))
ODD = ((5, 128, 3, 7), (192, 128, 3, 3))
WIDE = ((1, 64, 4, 70), (128, 64, 3, 3))
FEW = ((1, 64, 4, 20), (128, 64, 3, 3))
# Three layers of two images each.
LAYERS = ((6, 64, 4, 7), (128, 64, 3, 3))


@pytest.fixture(params=["direct", "splits"], autouse=True)
def splits(request, monkeypatch):
    """The last split of a sum may be shorter than the others."""
    several = request.param == "splits"
    monkeypatch.setattr(hopper, "WEIGHT_PROGRAMS", 24 if several else 1)
    monkeypatch.setattr(hopper, "LEAST_STEPS", 1)
    return several


def layer(shape, weight_shape, dtype=BF16, **others):
    """Two calls at once, each within the budget."""
    layout = torch.channels_last
    return Layer(hopper, F.conv2d, shape, weight_shape, 0, 1, dtype, layout, **others)


@pytest.mark.parametrize(
    ("shapes", "dtype"),
    [(ONE, BF16), (ODD, BF16), (WIDE, BF16), (FEW, torch.float16)],
    ids=str,
)
def test_gradient_of_weight(shapes, dtype, splits):
    for call in layer(*shapes, dtype).check_gradient_of_weight(dtype=F32):
        assert (call.workspace.numel() > 0) == (splits and shapes is not ONE)


def test_a_split_that_is_shorter_by_two_steps(splits, monkeypatch):
    """Those have no pixel, and release what the step before them has read."""
    if not splits:
        pytest.skip("once is enough")
    monkeypatch.setattr(hopper, "WEIGHT_PROGRAMS", 12)
    shapes = ((1, 64, 12, 5), (128, 64, 3, 3))
    assert hopper._split((1, 128, 10, 3), 64, 1) == (64, 3, 4)
    layer(*shapes).check_gradient_of_weight(dtype=F32)


def test_two_calls_are_each_alone():
    layer(*FEW, alone=True).check_gradient_of_weight()


def test_groups(splits):
    calls = layer(*LAYERS).check_gradient_of_weight(groups=3, dtype=F32)
    if splits:
        return
    for one in (layer_of(calls[1], k) for k in range(3)):  # the same sums in the same order
        written = (torch.empty_like(g) for g in (one.grad_weight, one.grad_bias))
        alone = OfWeight(*one[:3], *written, torch.empty(0))
        hopper.gradient_of_weight([alone], 0, 1)
        assert torch.equal(alone.grad_weight, one.grad_weight)
        assert torch.equal(alone.grad_bias, one.grad_bias)


@pytest.mark.parametrize("needs", [(True, False), (False, True)], ids=str)
def test_what_is_wanted_in_the_dtype_of_x_behind_tanh(needs):
    layer(*ODD, torch.float16).check_gradient_of_weight(tanh=True, needs=needs)


def test_an_image_far_from_zero():
    layer(*FEW, centre=1000.0).check_gradient_of_weight(dtype=F32)


def single_call(shapes=ODD, dtype=BF16):
    """One call whose gradients are not written yet."""
    shape, weight_shape = shapes
    out_shape = (shape[0], weight_shape[0], shape[2] - 2, shape[3] - 2)
    size = hopper.workspace(out_shape, weight_shape)
    return OfWeight(
        drawn(out_shape, dtype, 0),
        None,
        drawn(shape, dtype, 1),
        empty(weight_shape, F32).fill_(torch.nan),
        torch.full((weight_shape[0],), torch.nan),
        torch.full((size,), torch.nan),
    )


def test_splits_are_added_in_their_order(splits):
    call = single_call()
    hopper.gradient_of_weight([call], 0, 1)
    if not splits:
        assert call.workspace.numel() == 0
        return
    parts = call.workspace.view(-1, call.grad_weight.numel() + call.grad_bias.numel())
    assert len(parts) == 3  # of two steps, and one
    total = torch.zeros_like(parts[0])
    for part in parts:
        total += part
    weight = call.grad_weight.permute(0, 2, 3, 1).flatten()
    assert torch.equal(torch.cat([weight, call.grad_bias]), total)


def test_a_nan_reaches_the_taps_that_read_it():
    # A result of 16 columns fills a product: there are no zeros that a nan could meet.
    call = single_call(((1, 64, 5, 18), (64, 64, 3, 3)))
    call.x[0, 7, 0, 17] = torch.nan
    call.grad_y[0, 9, 2, 3] = torch.nan
    hopper.gradient_of_weight([call], 0, 1)
    expected = torch.zeros(64, 64, 3, 3, dtype=torch.bool)
    expected[9] = True
    expected[:, 7, 0, 2] = True
    assert torch.equal(call.grad_weight.isnan(), expected)
    assert torch.equal(call.grad_bias.isnan(), torch.arange(64) == 9)


@pytest.mark.parametrize("at_end", [False, True])
def test_no_byte_beyond_an_operand_is_touched(at_end):
    fences = Fences(at_end)

    def fenced(x):
        made = fences.tensor(tuple(x.shape), x.dtype, channels_last=x.dim() == 4)
        return made.copy_(x)

    plain = single_call()
    given = (None if t is None or t.numel() == 0 else fenced(t) for t in plain[:6])
    call = OfWeight(*given)
    if call.workspace is None:
        call = call._replace(workspace=plain.workspace)
    for each in (plain, call):
        hopper.gradient_of_weight([each], 0, 1)
    assert torch.equal(call.grad_weight, plain.grad_weight)
    assert torch.equal(call.grad_bias, plain.grad_bias)
    fences.remove()


def test_wrong_arguments_are_named(splits):
    call = single_call()
    odd = torch.zeros(call.x.numel() + 1, dtype=BF16)[1:].view(5, 3, 7, 128).permute(0, 3, 1, 2)
    norm = Normalised(torch.zeros(5, 128), torch.ones(5, 128), None, None, 0, 0.2)
    wrong = [
        ({"grad_y": call.grad_y.half()}, "x must be of dtype float16, got bfloat16"),
        ({"grad_y": call.grad_y.float()}, "grad_y must be float16 or bfloat16, got float32"),
        ({"grad_y": call.grad_y[:, :, :, 1:]}, r"grad_y must be of shape \[5, 192, 1, 5\]"),
        ({"y": call.grad_y.contiguous()}, "y must be channels_last"),
        ({"x": odd}, "x must be aligned to 16 bytes"),
        ({"grad_weight": call.grad_weight[:64]}, "grad_weight must be of shape"),
        ({"grad_weight": call.grad_weight.half()}, "of dtype float32 or bfloat16, got float16"),
        ({"grad_bias": call.grad_bias.double()}, "of dtype float32 or bfloat16, got float64"),
        ({"groups": 3}, "as many images each, got 5 images for 3 groups"),
        ({"norm": norm}, "applies no norm to what a weight's gradient loads"),
    ]
    if splits:
        wrong.append(({"workspace": call.workspace[1:]}, "workspace must be contiguous with at"))
    for other, message in wrong:
        with pytest.raises((RuntimeError, ValueError), match=message):
            hopper.gradient_of_weight([call._replace(**other)], 0, 1)
    with pytest.raises(RuntimeError, match="grad_y must be of one or two calls, got 3"):
        hopper.gradient_of_weight([call] * 3, 0, 1)
    for cut, message in [
        ((3, 128, 1), "groups must be that divide 5 images, got 3"),
        ((1, 96, 1), "columns must be 64 or 128, and divide 128 channels, got 96"),
        ((1, 128, 6), "each must be 1 to 5, the steps of a sum, got 6"),
    ]:
        written = ([call.grad_weight], [call.grad_bias], [call.workspace])
        with pytest.raises(RuntimeError, match=message):
            hopper.ops.reflect_conv2d_hopper_bwd_weight(
                [call.grad_y], [None], [call.x], *cut, *written
            )
