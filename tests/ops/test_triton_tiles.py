# SPDX-License-Identifier: MIT
"""Triton's kernels cut into many small tiles and chunks, as large images are on a GPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conv_case import check, operands
from norm_case import LAYOUTS, Case

from cyclegan_fast import backend
from cyclegan_fast.ops import (
    _triton,
    _triton_loss,
    instance_norm_act,
    l1_loss,
    lsgan_loss,
    reflect_conv2d,
    reflect_pad2d,
)
from cyclegan_fast.ops.instance_norm_act import triton_kernels as norm
from cyclegan_fast.ops.reflect_conv2d import triton_implicit as conv
from cyclegan_fast.ops.reflect_conv2d import triton_implicit_tiles as cut
from cyclegan_fast.ops.reflect_conv2d import triton_splits
from cyclegan_fast.ops.reflect_conv2d.calls import Forward
from cyclegan_fast.ops.reflect_pad2d import triton_kernels as pad2d

pytestmark = pytest.mark.skipif(
    not _triton.INTERPRETED, reason="on a GPU the real sizes are cut into real tiles"
)
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    for module, name, value in [
        (_triton, "MOST_CHANNELS", 4),
        (norm, "ELEMENTS", 64),
        (pad2d, "ELEMENTS", 32),
        (cut, "TILES", dict.fromkeys(cut.TILES, cut.Tiles(16, 16, 16, 4, 1))),
        (cut, "TILE_WIDTH", 4),
        (triton_splits, "BLOCK", 64),
        (_triton_loss, "BLOCK", 16),
        (_triton_loss, "MOST_PARTIALS", 8),
    ]:
        monkeypatch.setattr(module, name, value)
    with backend.use_backend("triton"):
        yield


@pytest.mark.parametrize("plan", ["split", "resident"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_norm(layout, dtype, plan, monkeypatch):
    # Many programs wanted, and none may take a plane alone; or few, and each may.
    monkeypatch.setattr(norm, "RESIDENT", 0 if plan == "split" else 1 << 20)
    monkeypatch.setattr(norm, "PROGRAMS", 12 if plan == "split" else 4)
    for shape, act, pad, affine, residual, interior in [
        ((1, 5, 13, 11), "relu", 1, False, True, True),
        ((2, 3, 9, 17), "leaky_relu", 3, True, False, False),
        ((1, 8, 16, 16), "relu", 0, True, True, True),
        ((2, 6, 7, 23), "none", 2, False, True, False),
    ]:
        n, c, h, w = shape
        cover = norm.plan(n, c, h * w, layout == "channels_last")
        assert (cover.chunks > 1) == (plan == "split")
        options = {"act": act, "pad": pad, "affine": affine, "residual": residual}
        Case(shape, dtype, layout, "cpu", interior=interior, **options).check()


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_norm_far_from_zero(layout, monkeypatch):
    monkeypatch.setattr(norm, "RESIDENT", 0)
    options = {"act": "relu", "pad": 1, "affine": False, "residual": True}
    Case((2, 6, 16, 16), torch.float32, layout, "cpu", mean=1000.0, **options).check()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_pad(memory_format, dtype):
    x = torch.randn(2, 5, 9, 10).to(dtype).contiguous(memory_format=memory_format)
    y = reflect_pad2d(x.requires_grad_(), 8)
    assert torch.equal(y, F.pad(x, (8,) * 4, mode="reflect"))
    grad = torch.randint(-8, 8, y.shape).to(dtype)  # sums of a few small integers are exact
    (ours,) = torch.autograd.grad(y, x, grad)
    (plain,) = torch.autograd.grad(F.pad(x, (8,) * 4, mode="reflect"), x, grad)
    assert torch.equal(ours, plain)


@pytest.mark.parametrize("dtype", DTYPES[1:3], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    ("shape", "weight", "padding", "stride", "act"),
    [
        ((1, 17, 3, 5), (18, 17, 1, 2), 1, 1, "none"),
        ((1, 3, 9, 9), (2, 3, 2, 3), 1, 2, "tanh"),
        ((2, 2, 5, 6), (3, 2, 2, 2), 0, 1, "none"),
    ],
    ids=str,
)
def test_convolution(shape, weight, padding, stride, act, memory_format, dtype):
    leaves = operands(shape, weight, dtype, "cpu", memory_format)
    y = check(leaves, padding, stride, act)
    assert cut.splits_of(y.shape, leaves[1].shape, cut.tiles_of(y))[1] > 1


@pytest.mark.parametrize("wanted", [1, 5])
def test_splits_of_the_weights_gradient(wanted, monkeypatch):
    monkeypatch.setattr(cut, "PROGRAMS", wanted)
    leaves = operands((3, 2, 4, 5), (3, 2, 1, 1), torch.float32, "cpu")
    y = check(leaves, 0, 1, "none")
    assert cut.splits_of(y.shape, leaves[1].shape, cut.tiles_of(y))[1] == (1 if wanted == 1 else 4)


@pytest.mark.parametrize("scale", [1e-6, 0.1, 0.49, 0.51, 3.0, 20.0])
def test_tanh_is_right_everywhere(scale):
    x = torch.linspace(-scale, scale, 64).view(1, 1, 8, 8)
    y = reflect_conv2d(x, torch.ones(1, 1, 1, 1), padding=0, act="tanh")
    torch.testing.assert_close(y.double(), x.double().tanh(), rtol=3e-7, atol=0)


@pytest.mark.parametrize("loss", [l1_loss, lsgan_loss])
@pytest.mark.parametrize("numel", [15, 16, 17, 127, 128, 129, 1000])
def test_losses(loss, numel):
    a, b = torch.randn(2, numel, dtype=torch.float64)
    a.requires_grad_()
    value, plain = loss(a, b), (F.l1_loss if loss is l1_loss else F.mse_loss)(a, b)
    torch.testing.assert_close(value, plain, rtol=1e-14, atol=0)
    gradients = [torch.autograd.grad(v, a)[0] for v in (value, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-14, atol=0)


def test_norm_of_one_output_only():
    """The gradient of the interior alone, where nothing is folded."""
    from cyclegan_fast.ops.instance_norm_act import instance_norm_act_and_interior

    x = torch.randn(1, 5, 9, 9, dtype=torch.float64, requires_grad=True)
    _, interior = instance_norm_act_and_interior(x, pad=2)
    grad = torch.randn_like(interior)
    (ours,) = torch.autograd.grad(interior, x, grad)
    (plain,) = torch.autograd.grad(instance_norm_act(x), x, grad)
    torch.testing.assert_close(ours, plain, rtol=1e-13, atol=1e-13)


def test_a_plane_of_too_many_pixels_is_refused_before_a_launch():
    x, y = (torch.empty(1, 1, 2**15 - 2 + k, 2**15 - 2 + k, device="meta") for k in (0, 2))
    with pytest.raises(ValueError, match="reflect_pad2d: x must have fewer than 1073741824 pixels"):
        pad2d.reflect_pad2d_fwd(x, 1, y)
    weight = torch.empty(1, 1, 3, 3, device="meta")
    with pytest.raises(
        ValueError, match="reflect_conv2d: x must have fewer than 1073741824 pixels"
    ):
        conv.forward([Forward(x, weight, None, y)], 1, 1, False)
    mean = torch.empty(1, 1, device="meta")
    with pytest.raises(ValueError, match="instance_norm_act: x must have fewer than"):
        norm.instance_norm_act_fwd(x, None, None, None, 1, 0.2, 1, 1e-5, y, mean, mean, mean)
