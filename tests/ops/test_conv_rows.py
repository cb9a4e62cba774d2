# SPDX-License-Identifier: MIT
"""reflect_conv2d over rows, in tiles so small that a few pixels need many programs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conv_raw import Layer, layer_of

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_rows as rows
from cyclegan_fast.ops.reflect_conv2d import triton_rows_tiles as cut
from cyclegan_fast.ops.reflect_conv2d.calls import Forward

pytestmark = pytest.mark.skipif(
    not _triton.INTERPRETED, reason="on a GPU the real sizes are cut into real tiles"
)
LAST = torch.channels_last
F32, BF16, F16 = DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# x and weight: odd sizes, channels off the block; a tile without a pixel; one pixel; one tap.
SHAPES = [
    ((2, 32, 6, 7), (48, 32, 3, 2)),
    ((1, 16, 3, 23), (16, 16, 1, 20)),
    ((1, 16, 4, 3), (32, 16, 4, 3)),
    ((3, 48, 3, 5), (16, 48, 1, 1)),
]
CASES = [(*SHAPES[0], dtype) for dtype in DTYPES]
CASES += [(*shapes, BF16) for shapes in SHAPES[1:]]
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


def layer(shape, weight_shape, dtype, **others) -> Layer:
    return Layer(rows, F.conv2d, shape, weight_shape, 0, 1, dtype, LAST, **others)


@pytest.mark.parametrize(("shape", "weight_shape", "dtype"), CASES, ids=str)
def test_forward(shape, weight_shape, dtype, form):
    tested = layer(shape, weight_shape, dtype)
    tested.check_forward(moments=True)
    tested.check_forward(bias=True, tanh=True, moments=True)


def test_moments_far_from_zero():
    layer((1, 16, 8, 9), (16, 16, 3, 3), F32).check_forward(bias=True, moments=True, shift=1000.0)


def test_two_calls_are_each_alone(form):
    tested = layer(*TWO, BF16, alone=True)
    tested.check_forward()
    tested.check_forward(bias=True, moments=True)
    tested.check_gradient_of_weight()
    tested.check_gradient_of_weight(tanh=True)


@pytest.mark.parametrize(("shape", "weight_shape", "dtype"), CASES, ids=str)
def test_gradient_of_weight(shape, weight_shape, dtype, form):
    tested = layer(shape, weight_shape, dtype)
    tested.check_gradient_of_weight(needs=(True, False), dtype=F32)
    tested.check_gradient_of_weight(tanh=True)


def test_gradient_of_bias_alone():
    layer(*TWO, F32).check_gradient_of_weight(needs=(False, True))


@pytest.mark.parametrize("inner", [16, 64])
def test_blocks_of_pixels(inner, form, monkeypatch):
    small = cut.Tiles(16, 32, inner, 4, 1, 1)
    monkeypatch.setattr(cut, "TILES", dict.fromkeys(cut.TILES, small))
    heights = []
    for shape in [(3, 16, 5, 18), (5, 16, 9, 6)]:
        weight_shape = (16, 16, 3, 3)
        calls = layer(shape, weight_shape, F32).check_gradient_of_weight()
        split = cut.split(calls[0].grad_y.shape, weight_shape, small)
        assert split.splits > 1
        heights.append(split.height)
    assert heights == ([1, 4] if inner == 16 else [4, 8])


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize(("groups", "tanh"), [(1, False), (2, True), (3, False)])
def test_groups_are_each_alone(groups, tanh, splits, form, monkeypatch):
    """In one launch where there is one split; the second split has fewer blocks than the first."""
    shape, weight_shape = (3 * groups, 48, 5, 6), (16, 48, 2, 1)
    parts = 2 * 3  # of the weight of a layer, each a program
    monkeypatch.setattr(cut, "PROGRAMS", splits * parts * groups)
    launched, add_splits = [], rows.add_splits
    monkeypatch.setattr(rows, "add_splits", lambda *a: (launched.append(a), add_splits(*a)))
    dtype = BF16 if tanh else F32
    calls = layer(shape, weight_shape, BF16).check_gradient_of_weight(
        tanh=tanh, groups=groups, dtype=dtype
    )
    assert len(launched) == (splits > 1)
    out_shape = calls[0].grad_y.shape
    assert rows.weight_launches(out_shape, weight_shape, groups) == splits
    elements = 16 * (48 * 2 + 1) * groups * splits * (splits > 1)
    assert rows.workspace(out_shape, weight_shape, groups) == elements
    monkeypatch.setattr(cut, "PROGRAMS", splits * parts)
    for call in calls:
        for one in (layer_of(call, k) for k in range(groups)):
            work = torch.empty(rows.workspace(one.grad_y.shape, weight_shape))
            alone = one._replace(
                grad_weight=torch.empty_like(one.grad_weight),
                grad_bias=torch.empty_like(one.grad_bias),
                workspace=work,
            )
            rows.gradient_of_weight([alone], 0, 1)
            assert torch.equal(alone.grad_weight, one.grad_weight)
            assert torch.equal(alone.grad_bias, one.grad_bias)


@pytest.mark.parametrize("needs", [(True, False), (False, True)], ids=["weight", "bias"])
def test_groups_of_either_gradient(needs):
    """Without splits and, of the bias alone, with them; of one pixel; 1000 away from zero."""
    for n, *sides in [(3, 2, 3), (9, 6, 5)]:
        for dtype, centre in [(F32, 1000.0), (F16, 0.3)]:
            tested = layer((n, 32, *sides), (16, 32, 2, 3), dtype, centre=centre)
            tested.check_gradient_of_weight(needs=needs, groups=3)


def test_groups_have_as_many_images_each():
    (call, _) = layer(*TWO, F32).check_gradient_of_weight()
    with pytest.raises(ValueError, match="2 images for 3 groups"):
        rows.gradient_of_weight([call._replace(groups=3)], 0, 1)


@pytest.mark.parametrize(("shape", "weight_shape", "dtype"), CASES, ids=str)
def test_gradient_of_input(shape, weight_shape, dtype):
    tested = layer(shape, weight_shape, dtype, alone=shape == SHAPES[0][0])
    tested.check_gradient_of_input()
    tested.check_gradient_of_input(tanh=True)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize(("act", "pad", "full"), [(1, 1, False), (2, 2, True), (0, 0, True)])
def test_sums(act, pad, full, dtype):
    tested = layer((2, 32, 8, 7), (16, 32, 3, 2), dtype, alone=dtype == BF16)
    norm = {"act": act, "pad": pad, "affine": full, "skip": full}
    tested.check_gradient_of_input(norm=norm)


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
    tested = layer(*TWO, F32)
    x, weight = tested.operands(0)
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
    far = torch.empty(1, 16, 2**15, 2**15, device="meta", memory_format=LAST)
    assert "1073741824 pixels" in rows.why_not(far, weight, 0, 1)
    call = Forward(x, weight, None, tested.result(x, weight), torch.empty(2, 1, 3, 16))
    with pytest.raises(ValueError, match="moments must have 2 chunks, got 1"):
        rows.forward([call], 0, 1, False)


def test_what_no_descriptor_can_describe_is_read_by_pointers(monkeypatch):
    monkeypatch.setattr(cut, "architecture", lambda: 90)
    memory = torch.zeros(17)
    assert cut.described(memory[:16]) and not cut.described(memory[:16], memory[1:])
