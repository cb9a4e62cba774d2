# SPDX-License-Identifier: MIT
"""reflect_conv2d over rows, in tiles so small that a few pixels need many programs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from numerics import assert_within_budget
from rows_case import (
    check_input,
    check_moments,
    check_sums,
    check_weight,
    forward_call,
    input_call,
    layer_of,
    operands,
    weight_call,
)

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_rows as rows
from cyclegan_fast.ops.reflect_conv2d import triton_rows_tiles as cut

pytestmark = pytest.mark.skipif(
    not _triton.INTERPRETED, reason="on a GPU the real sizes are cut into real tiles"
)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# x and weight: odd sizes, channels off the block; a tile without a pixel; one pixel; one tap.
SHAPES = [
    ((2, 32, 6, 7), (48, 32, 3, 2)),
    ((1, 16, 3, 23), (16, 16, 1, 20)),
    ((1, 16, 4, 3), (32, 16, 4, 3)),
    ((3, 48, 3, 5), (16, 48, 1, 1)),
]
CASES = [(*SHAPES[0], dtype) for dtype in DTYPES]
CASES += [(*shapes, torch.bfloat16) for shapes in SHAPES[1:]]
TWO = ((2, 32, 5, 6), (16, 32, 2, 2))


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    small = cut.Tiles(16, 32, 32, 4, 1, 1)
    monkeypatch.setattr(cut, "TILES", dict.fromkeys(cut.TILES, small))
    monkeypatch.setattr(cut, "EACH", 16)
    monkeypatch.setattr(cut, "MOST_CHUNKS", 2)
    monkeypatch.setattr(cut, "PROGRAMS", 40)


@pytest.fixture(params=["pointers", "descriptors"])
def form(request, monkeypatch):
    """How a kernel reads its operands."""
    if request.param == "descriptors":
        monkeypatch.setattr(cut, "architecture", lambda: 90)
    return request.param


@pytest.mark.parametrize(("shape", "weight_shape", "dtype"), CASES, ids=str)
def test_forward(shape, weight_shape, dtype, form):
    for tanh, with_bias in [(False, False), (True, True)]:
        call = forward_call(shape, weight_shape, dtype, with_bias=with_bias)
        rows.forward([call], 0, 1, tanh)
        results = []
        for wide in (dtype, torch.float64):
            bias = None if call.bias is None else call.bias.to(wide)
            y = F.conv2d(call.x.to(wide), call.weight.to(wide), bias)
            results.append(y.tanh() if tanh else y)
        assert_within_budget(call.y, *results, "y")
        check_moments(call)


def test_moments_far_from_zero():
    call = forward_call((1, 16, 8, 9), (16, 16, 3, 3), torch.float32)
    call.bias.fill_(1000.0)
    rows.forward([call], 0, 1, False)
    check_moments(call)


def test_two_forward_calls_are_each_alone(form):
    dtype = torch.bfloat16
    for with_bias, with_moments in [(True, True), (False, False)]:
        options = {"with_bias": with_bias, "with_moments": with_moments}
        together = [forward_call(*TWO, dtype, seed, **options) for seed in (0, 5)]
        alone = [forward_call(*TWO, dtype, seed, **options) for seed in (0, 5)]
        rows.forward(together, 0, 1, False)
        for ours, one in zip(together, alone, strict=True):
            rows.forward([one], 0, 1, False)
            assert torch.equal(ours.y, one.y)
            if with_moments:
                assert torch.equal(ours.moments, one.moments)


@pytest.mark.parametrize(("shape", "weight_shape", "dtype"), CASES, ids=str)
def test_gradient_of_weight(shape, weight_shape, dtype, form):
    for asked, wide, tanh in [((True, False), True, False), ((True, True), False, True)]:
        call = weight_call(shape, weight_shape, dtype, asked=asked, wide=wide, tanh=tanh)
        rows.gradient_of_weight([call], 0, 1)
        check_weight(call, weight_shape)


def test_gradient_of_bias_alone():
    call = weight_call(*TWO, torch.float32, asked=(False, True))
    rows.gradient_of_weight([call], 0, 1)
    check_weight(call, TWO[1])


@pytest.mark.parametrize("inner", [16, 64])
def test_blocks_of_pixels(inner, form, monkeypatch):
    small = cut.Tiles(16, 32, inner, 4, 1, 1)
    monkeypatch.setattr(cut, "TILES", dict.fromkeys(cut.TILES, small))
    heights = []
    for shape in [(3, 16, 5, 18), (5, 16, 9, 6)]:
        weight_shape = (16, 16, 3, 3)
        call = weight_call(shape, weight_shape, torch.float32)
        split = cut.split(call.grad_y.shape, weight_shape, small)
        assert split.splits > 1
        heights.append(split.height)
        rows.gradient_of_weight([call], 0, 1)
        check_weight(call, weight_shape)
    assert heights == ([1, 4] if inner == 16 else [4, 8])


def test_two_weight_calls_are_each_alone(form):
    dtype = torch.bfloat16
    for tanh in (False, True):
        together = [weight_call(*TWO, dtype, seed, tanh=tanh) for seed in (0, 5)]
        alone = [weight_call(*TWO, dtype, seed, tanh=tanh) for seed in (0, 5)]
        rows.gradient_of_weight(together, 0, 1)
        for ours, one in zip(together, alone, strict=True):
            rows.gradient_of_weight([one], 0, 1)
            assert torch.equal(ours.grad_weight, one.grad_weight)
            assert torch.equal(ours.grad_bias, one.grad_bias)


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize(("groups", "tanh"), [(1, False), (2, True), (3, False)])
def test_groups_are_each_alone(groups, tanh, splits, form, monkeypatch):
    """In one launch where there is one split; the second split has fewer blocks than the first."""
    dtype, shape, weight_shape = torch.bfloat16, (3 * groups, 48, 5, 6), (16, 48, 2, 1)
    parts = 2 * 3  # of the weight of a layer, each a program
    monkeypatch.setattr(cut, "PROGRAMS", splits * parts * groups)
    options = {"tanh": tanh, "groups": groups, "wide": not tanh}
    calls = [weight_call(shape, weight_shape, dtype, seed, **options) for seed in (0, 5)]
    out_shape = calls[0].grad_y.shape
    assert rows.weight_launches(out_shape, weight_shape, groups) == splits
    elements = 16 * (48 * 2 + 1) * groups * splits * (splits > 1)
    assert rows.workspace(out_shape, weight_shape, groups) == elements
    launched = []
    add_splits = rows.add_splits
    monkeypatch.setattr(rows, "add_splits", lambda *a: (launched.append(a), add_splits(*a)))
    rows.gradient_of_weight(calls, 0, 1)
    assert len(launched) == (splits > 1)
    monkeypatch.setattr(cut, "PROGRAMS", splits * parts)
    for call in calls:
        for k in range(groups):
            one = layer_of(call, k)
            rows.gradient_of_weight([one], 0, 1)
            check_weight(one, weight_shape)
            assert torch.equal(call.grad_weight.view(groups, *weight_shape)[k], one.grad_weight)
            assert torch.equal(call.grad_bias.view(groups, -1)[k], one.grad_bias)


@pytest.mark.parametrize("asked", [(True, False), (False, True)], ids=["weight", "bias"])
@pytest.mark.parametrize(("dtype", "centre"), [(torch.float32, 1000.0), (torch.float16, 0.5)])
def test_groups_of_either_gradient(dtype, centre, asked):
    """Without splits and, of the bias alone, with them; of one pixel; of other splits each."""
    weight_shape = (16, 32, 2, 3)
    for shape in [(3, 32, 2, 3), (9, 32, 6, 5)]:
        call = weight_call(shape, weight_shape, dtype, centre=centre, groups=3)
        rows.gradient_of_weight([call], 0, 1)
        part = call._replace(
            grad_weight=torch.empty_like(call.grad_weight) if asked[0] else None,
            grad_bias=torch.empty_like(call.grad_bias) if asked[1] else None,
        )
        rows.gradient_of_weight([part], 0, 1)
        for k in range(3):
            one = layer_of(call, k)
            one.grad_weight.copy_(call.grad_weight[k])
            one.grad_bias.copy_(call.grad_bias[k])
            check_weight(one, weight_shape)
        for name in ("grad_weight", "grad_bias"):
            if getattr(part, name) is not None:
                assert torch.equal(getattr(part, name), getattr(call, name))


def test_groups_have_as_many_images_each():
    call = weight_call(*TWO, torch.float32)._replace(groups=3)
    with pytest.raises(ValueError, match="2 images for 3 groups"):
        rows.gradient_of_weight([call], 0, 1)


@pytest.mark.parametrize(("shape", "weight_shape", "dtype"), CASES, ids=str)
def test_gradient_of_input(shape, weight_shape, dtype):
    for tanh in (False, True):
        call = input_call(shape, weight_shape, dtype, tanh=tanh)
        rows.gradient_of_input([call], 0, 1)
        check_input(call)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("norm", [(1, 1, False), (2, 2, True), (0, 0, True)], ids=str)
def test_sums(norm, dtype):
    call = input_call((2, 32, 8, 7), (16, 32, 3, 2), dtype, norm=norm)
    rows.gradient_of_input([call], 0, 1)
    check_input(call)
    check_sums(call)


@pytest.mark.parametrize("norm", [None, (1, 1, True), (2, 1, False)], ids=str)
def test_two_input_calls_are_each_alone(norm):
    options = {"tanh": norm is None, "norm": norm}
    together = [input_call(*TWO, torch.bfloat16, seed, **options) for seed in (0, 9)]
    alone = [input_call(*TWO, torch.bfloat16, seed, **options) for seed in (0, 9)]
    rows.gradient_of_input(together, 0, 1)
    for ours, one in zip(together, alone, strict=True):
        rows.gradient_of_input([one], 0, 1)
        assert torch.equal(ours.grad_x, one.grad_x)
        if norm is not None:
            assert torch.equal(ours.norm.partial, one.norm.partial)


def test_real_tiles_and_chunks(monkeypatch):
    monkeypatch.undo()
    assert all(cut.EACH % tiles.positions == 0 for tiles in cut.TILES.values())
    weight_shape = (256, 256, 3, 3)
    # One image through each network is a program for each of 132 multiprocessors.
    assert rows.moments_cover((1, 256, 66, 66), weight_shape, 0, 1) == (33, 128, 66)
    assert rows.moments_cover((1, 256, 130, 130), weight_shape, 0, 1) == (44, 384, 130)
    assert rows.sums_chunks((1, 256, 66, 66), weight_shape, 0, 1) == 35
    assert cut.split((1, 256, 64, 64), weight_shape, cut.TILES[90]) == cut.Split(1, 64, 22, 3)
    assert cut.split((2, 256, 31, 31), weight_shape, cut.TILES[90]) == cut.Split(2, 32, 11, 3)
    # A generator's trunk fills them together.
    assert cut.split((18, 256, 64, 64), weight_shape, cut.TILES[90], 18) == cut.Split(1, 64, 64, 1)
    assert rows.workspace((18, 256, 64, 64), weight_shape, 18) == 0
    assert rows.weight_launches((18, 256, 64, 64), weight_shape, 18) == 1
    assert rows.weight_launches((1, 256, 64, 64), weight_shape) == 2


def test_what_is_refused():
    x, weight, _ = operands(*TWO, torch.float32)
    assert rows.why_not(x, weight, 0, 1) is None
    for arguments, reason in [
        ((x, weight, 1, 1), "padded already"),
        ((x, weight, 0, 2), "stride"),
        ((x.double(), weight, 0, 1), "float64"),
        ((x, weight[:, :31], 0, 1), "multiples of 16"),
        ((x, weight[:15], 0, 1), "multiples of 16"),
        ((x.contiguous(), weight, 0, 1), "channels_last"),
        ((x, weight.contiguous(), 0, 1), "channels_last"),
    ]:
        assert reason in rows.why_not(*arguments)
    far = torch.empty(1, 16, 2**15, 2**15, device="meta", memory_format=torch.channels_last)
    assert "1073741824 pixels" in rows.why_not(far, weight, 0, 1)
    call = forward_call(*TWO, torch.float32)
    call = call._replace(moments=call.moments[:, 1:])
    with pytest.raises(ValueError, match="moments must have 2 chunks, got 1"):
        rows.forward([call], 0, 1, False)


def test_what_no_descriptor_can_describe_is_read_by_pointers(monkeypatch):
    monkeypatch.setattr(cut, "architecture", lambda: 90)
    memory = torch.zeros(17)
    assert cut.described(memory[:16]) and not cut.described(memory[:16], memory[1:])
