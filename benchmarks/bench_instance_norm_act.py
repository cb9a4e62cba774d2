# SPDX-License-Identifier: MIT
"""instance_norm_act at the shapes of a real iteration, channels_last.

Bytes: forward reads x (and the residual) and writes the padded y; backward reads the padded
gradient and x and writes the gradients of x (and of the residual). A second read of x for the
statistics is not counted: it is what a kernel may save.
"""

from __future__ import annotations

import pytest
import shapes
import torch
from op_bench import measure

from cyclegan_fast.ops import instance_norm_act, instance_norm_act_reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("norm", shapes.NORMS, ids=lambda norm: norm.name)
def bench_instance_norm_act(
    benchmark, rows, bench_device, bench_size, bench_batch, with_compile, norm, dtype
):
    shape = norm.shape(bench_batch, bench_size)

    def operands():
        def image():
            x = torch.randn(shape, device=bench_device).add_(3).to(dtype)
            return x.contiguous(memory_format=torch.channels_last).requires_grad_()

        return (image(), image()) if norm.residual else (image(),)

    def call(function):
        return lambda x, residual=None: function(x, act=norm.act, residual=residual, pad=norm.pad)

    x_bytes = operands()[0].numel() * dtype.itemsize
    n, c, h, w = shape
    y_bytes = n * c * (h + 2 * norm.pad) * (w + 2 * norm.pad) * dtype.itemsize
    images = 2 if norm.residual else 1
    forward = images * x_bytes + y_bytes
    measure(
        benchmark,
        rows,
        name=f"{norm.name} {list(shape)} {str(dtype).removeprefix('torch.')}",
        ours=call(instance_norm_act),
        eager=call(instance_norm_act_reference),
        operands=operands,
        moved_bytes=(forward, forward + y_bytes + x_bytes + images * x_bytes),
        device=bench_device,
        with_compile=with_compile,
        tolerance=2e-2 if dtype == torch.bfloat16 else 1e-5,
    )
