# SPDX-License-Identifier: MIT
"""Convolutions over rows, and factored, of images beyond 2^31 elements of a batch.

Of the files that hold such a batch only a few pages exist. Of each launch the last program is run
alone: it makes what belongs to the last image, which is compared with an image by itself.
"""

from __future__ import annotations

import pytest
import torch
from test_far_strides import far_apart, sparse
from triton.runtime import interpreter

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_factored as factored
from cyclegan_fast.ops.reflect_conv2d import triton_factored_plan as plan
from cyclegan_fast.ops.reflect_conv2d import triton_rows as rows
from cyclegan_fast.ops.reflect_conv2d import triton_rows_tiles as cut
from cyclegan_fast.ops.reflect_conv2d.beside_norm import NormOfInput
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight

pytestmark = pytest.mark.skipif(
    not _triton.INTERPRETED, reason="a GPU runs every program, and a file is memory of the CPU's"
)
HALF = torch.float16


@pytest.fixture
def batch(tmp_path):
    """Memory for N images like one, of which the last is it: [N, ...], all zeros but for that."""
    count = 0

    def made(one: torch.Tensor, n: int) -> torch.Tensor:
        nonlocal count
        count += 1
        flat = sparse(tmp_path / str(count), n * one.numel(), one.dtype)
        images = flat.as_strided((n, *one.shape[1:]), (one.numel(), *one.stride()[1:]))
        images[-1:] = one
        return images

    return made


@pytest.fixture
def last_program(monkeypatch):
    """Let a launch run its last program alone, once this is called."""
    call, builder = interpreter.GridExecutor.__call__, interpreter.interpreter_builder
    dimensions, index = builder.set_grid_dim, builder.set_grid_idx

    def run(self, *arguments, **options):
        grid = (*self.grid, 1, 1)[:3]
        self.grid = (1, 1, 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builder, "set_grid_dim", lambda *_: dimensions(*grid))
            patch.setattr(builder, "set_grid_idx", lambda *_: index(*(n - 1 for n in grid)))
            call(self, *arguments, **options)

    return lambda: monkeypatch.setattr(interpreter.GridExecutor, "__call__", run)


@pytest.fixture(params=["pointers", "descriptors"])
def form(request, monkeypatch):
    if request.param == "descriptors":
        monkeypatch.setattr(cut, "architecture", lambda: 90)


def drawn(*shape, seed=0, dtype=HALF):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


def batch_of(call, n, batch, written, shared=("weight", "bias")):
    """The call of n images, the last of which is the call's; and what it is to write, unwritten."""

    def far(name, part):
        if isinstance(part, tuple):  # a norm
            return type(part)(*(far(field, t) for field, t in part._asdict().items()))
        if not isinstance(part, torch.Tensor) or name in shared:
            return part
        return batch(torch.zeros_like(part) if name in written else part, n)

    return type(call)(*(far(name, part) for name, part in call._asdict().items()))


def norm_of(x, chunks):
    n, channels = x.shape[:2]
    mean, rstd = torch.rand(2, n, channels) + 0.5
    skip = drawn(*x.shape, seed=8)
    partial = torch.full((n, chunks, 2, channels), torch.nan)
    return NormOfInput(x, mean, rstd, None, None, 1, 0.0, 0, skip, partial)


def check(module, calls, n, arguments, batch, last_program):
    """Forward, and the gradient of the input."""
    forward, of_input = calls
    padding, stride = arguments
    module.forward([forward], padding, stride, False)
    module.gradient_of_input([of_input], padding, stride)
    last_program()
    far = batch_of(forward, n, batch, ("y", "moments"))
    assert max(far.x.numel(), far.y.numel()) > 2**31
    module.forward([far], padding, stride, False)
    assert torch.equal(far.y[-1:], forward.y) and not far.y[0].any()
    if far.moments is not None:
        assert torch.equal(far.moments[-1:], forward.moments)
    far = batch_of(of_input, n, batch, ("grad_x", "partial"))
    module.gradient_of_input([far], padding, stride)
    assert torch.equal(far.grad_x[-1:], of_input.grad_x) and not far.grad_x[0].any()
    if far.norm is not None:
        assert torch.equal(far.norm.partial[-1:], of_input.norm.partial)


def test_images_over_rows(form, batch, last_program):
    x, weight, y = drawn(1, 16, 4, 4), drawn(16, 16, 2, 2, seed=1), drawn(1, 16, 3, 3, seed=2)
    moments = torch.full((1, 1, 3, 16), torch.nan)
    forward = Forward(x, weight, None, torch.empty_like(y), moments)
    of_input = OfInput(y, None, weight, torch.empty_like(x), norm_of(x, 1))
    check(rows, (forward, of_input), 2**31 // y.numel() + 2, (0, 1), batch, last_program)


@pytest.mark.parametrize("groups", [False, True], ids=["splits", "groups"])
def test_gradient_of_weight_over_rows(groups, form, batch, last_program, monkeypatch, tmp_path):
    """A split of the sum for each image, or a layer for each."""
    x, grad_y = drawn(1, 16, 1, 9), drawn(1, 16, 1, 9, seed=1)
    weight = torch.empty(16, 16, 1, 1).contiguous(memory_format=torch.channels_last)
    near = OfWeight(grad_y, None, x, weight, torch.empty(16), torch.empty(0))
    rows.gradient_of_weight([near], 0, 1)
    n = 2**31 // x.numel() + 2
    last_program()
    monkeypatch.setattr(rows, "add_splits", lambda *_: None)
    images = [batch(grad_y, n), None, batch(x, n)]
    if groups:
        of_weight = batch(torch.zeros(1, *weight.shape), n)
        of_bias = batch(torch.zeros(1, 16), n)
        call = OfWeight(*images, of_weight, of_bias, torch.empty(0), groups=n)
        rows.gradient_of_weight([call], 0, 1)
        assert torch.equal(of_weight[-1], near.grad_weight) and not of_weight[0].any()
        assert torch.equal(of_bias[-1], near.grad_bias)
        return
    monkeypatch.setattr(cut, "PROGRAMS", n)
    work = sparse(tmp_path / "work", n * 16 * 17, torch.float32)
    assert rows.workspace(grad_y.expand(n, -1, -1, -1).shape, weight.shape) == work.numel()
    rows.gradient_of_weight([OfWeight(*images, weight, torch.empty(16), work)], 0, 1)
    last = work[-16 * 17 :]
    assert torch.equal(last[: 16 * 16].view(16, 16), near.grad_weight[:, :, 0, 0])
    assert torch.equal(last[16 * 16 :], near.grad_bias)


@pytest.fixture
def few_programs(monkeypatch):
    """One chunk, and one program of a kernel's rows: the last program has all of an image."""
    for name, value in [("MOST_CHUNKS", 1), ("LEAST_SUM_ROWS", 5), ("MOST_SUM_ROWS", 5)]:
        monkeypatch.setattr(plan, name, value)
    tiles = {size: each._replace(weight_rows=8) for size, each in plan.TILES.items()}
    monkeypatch.setattr(plan, "TILES", tiles)


@pytest.mark.parametrize(("channels", "out_channels"), [(3, 16), (16, 3)])
def test_factored_images(channels, out_channels, few_programs, batch, last_program):
    x, y = drawn(1, channels, 5, 5), drawn(1, out_channels, 5, 5, seed=2)
    weight = drawn(out_channels, channels, 5, 5, seed=1)
    moments = torch.full((1, 1, 3, 16), torch.nan) if channels == 3 else None
    forward = Forward(x, weight, None, torch.empty_like(y), moments)
    norm = None if channels == 3 else norm_of(x, 1)
    of_input = OfInput(y, None, weight, torch.empty_like(x), norm)
    check(factored, (forward, of_input), 2**31 // 75 + 2, (2, 1), batch, last_program)


@pytest.mark.parametrize(("channels", "out_channels"), [(3, 16), (16, 3)])
def test_factored_gradient_of_weight(
    channels, out_channels, few_programs, batch, last_program, monkeypatch, tmp_path
):
    monkeypatch.setattr(factored, "add_splits", lambda *_: None)
    x, grad_y = drawn(1, channels, 5, 5), drawn(1, out_channels, 5, 5, seed=1)
    weight = drawn(out_channels, channels, 5, 5)
    monkeypatch.setattr(plan, "SPLITS", 1)
    size = weight.numel() + out_channels
    assert factored.workspace(grad_y.shape, weight.shape) == size
    near = OfWeight(
        grad_y, None, x, weight, torch.empty(out_channels, dtype=HALF), torch.empty(size)
    )
    factored.gradient_of_weight([near], 2, 1)
    last_program()
    n = 2**31 // 75 + 2
    monkeypatch.setattr(plan, "SPLITS", 2**21)
    images = [batch(grad_y, n), None, batch(x, n)]
    needed = factored.workspace(images[0].shape, weight.shape)
    assert needed > 2**31
    work = sparse(tmp_path / "work", needed, torch.float32)
    factored.gradient_of_weight(
        [near._replace(grad_y=images[0], x=images[2], workspace=work)], 2, 1
    )
    assert torch.equal(work[-size:], near.workspace)


@pytest.mark.parametrize("dimension", range(4))
def test_gradient_of_a_skip_over_rows(dimension, tmp_path):
    x, weight, y = drawn(3, 16, 4, 4), drawn(16, 16, 2, 2, seed=1), drawn(3, 16, 3, 3, seed=2)
    norm = norm_of(x, 1)
    far = norm._replace(
        skip=far_apart(tmp_path / "skip", norm.skip, dimension),
        partial=torch.empty_like(norm.partial),
    )
    for each in (norm, far):
        rows.gradient_of_input([OfInput(y, None, weight, torch.empty_like(x), each)], 0, 1)
    assert torch.equal(far.partial, norm.partial)
