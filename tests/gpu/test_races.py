# SPDX-License-Identifier: MIT
"""Every raw CUDA op 250 times on two streams at once: a race shows as a bit that changes."""

from __future__ import annotations

import pytest
import raw_ops
import torch
from raw_ops import NormCase, accumulator, poisoned

pytestmark = pytest.mark.gpu

REPEATS = 250
LAYOUTS = ["channels_last", "contiguous"]
OUTPUTS = ("y", "mean", "rstd", "grad_x", "grad_residual", "sums")
# Split into chunks whose sums are joined; resident in one block; a size that fills neither.
SHAPES = [(1, 256, 64, 64), (4, 64, 16, 16), (1, 72, 31, 29)]


def repeated(work, outputs) -> None:
    """Let two streams do the same 250 times, each into its own outputs, and compare every time.

    Args:
        work: called with "first" or "second", launches.
        outputs: called with the same, returns the tensors that it writes.
    """
    streams = {"first": torch.cuda.Stream(), "second": torch.cuda.Stream()}
    work("first")
    torch.cuda.synchronize()
    expected = [t.clone() for t in outputs("first")]
    different = torch.zeros((), dtype=torch.int64, device="cuda")
    torch.cuda.synchronize()
    for _ in range(REPEATS):
        for side, stream in streams.items():
            with torch.cuda.stream(stream):
                for t in outputs(side):
                    t.fill_(float("nan") if t.is_floating_point() else 127)
                work(side)
        for side, stream in streams.items():
            torch.cuda.current_stream().wait_stream(stream)
            for t, wanted in zip(outputs(side), expected, strict=True):
                different += (t != wanted).sum()
        for stream in streams.values():
            stream.wait_stream(torch.cuda.current_stream())
    assert different.item() == 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_norm(dtype, layout, shape):
    options = {"residual": True, "grad_skip": True, "grad_residual": True}
    case = NormCase(shape, dtype, layout, pad=1, **options)
    sides = {side: case.allocate() for side in ("first", "second")}

    def work(side):
        case.forward(sides[side])
        case.backward(sides[side])

    repeated(work, lambda side: [sides[side][name] for name in OUTPUTS])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_losses(dtype):
    ops, numel = raw_ops.ops, 3_000_001
    a, b = (torch.randn(numel, device="cuda").to(dtype) for _ in range(2))
    wide = accumulator(dtype)
    one = torch.ones((), dtype=wide, device="cuda")

    def side():
        signs = torch.zeros(numel, dtype=torch.int8, device="cuda")
        losses = [poisoned((), wide) for _ in range(2)]
        grads = [poisoned((numel,), dtype) for _ in range(4)]
        return signs, losses, grads, poisoned((ops.loss_workspace(numel),), wide)

    sides = {name: side() for name in ("first", "second")}

    def work(name):
        signs, losses, grads, workspace = sides[name]
        ops.l1_loss_fwd(a, b, losses[0], signs, workspace)
        ops.l1_loss_bwd(one, signs, *grads[:2])
        ops.lsgan_loss_fwd(a, b, 0.0, losses[1], workspace)
        ops.lsgan_loss_bwd(one, a, b, 0.0, *grads[2:])

    repeated(work, lambda name: [sides[name][0], *sides[name][1], *sides[name][2]])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reflect_pad2d(layout):
    x = raw_ops.laid_out(torch.randn(2, 64, 65, 67, device="cuda"), layout)

    def side():
        y = raw_ops.laid_out(poisoned((2, 64, 71, 73), x.dtype), layout)
        return y, torch.full_like(x, float("nan"))

    sides = {name: side() for name in ("first", "second")}

    def work(name):
        y, grad = sides[name]
        raw_ops.ops.reflect_pad2d_fwd(x, 3, y)
        raw_ops.ops.reflect_pad2d_bwd(y, 3, grad)

    repeated(work, lambda name: sides[name])
