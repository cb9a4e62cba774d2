# SPDX-License-Identifier: MIT
"""l1_loss of two images. Bytes: forward reads both; backward writes one gradient."""

from __future__ import annotations

import math

import pytest
import shapes
import torch
import torch.nn.functional as F
from op_bench import measure

from cyclegan_fast.ops import l1_loss


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def bench_l1_loss(benchmark, rows, bench_device, bench_size, bench_batch, with_compile, dtype):
    shape = shapes.HEAD.shape(bench_batch, bench_size)

    def operands():
        a, b = torch.randn(2, *shape, device=bench_device).to(dtype)
        return a.requires_grad_(), b

    image = math.prod(shape) * dtype.itemsize
    measure(
        benchmark,
        rows,
        name=f"head {list(shape)} {str(dtype).removeprefix('torch.')}",
        ours=l1_loss,
        eager=lambda a, b: F.l1_loss(a.float(), b.float()),
        operands=operands,
        moved_bytes=(2 * image, 3 * image),
        device=bench_device,
        with_compile=with_compile,
        tolerance=1e-2 if dtype == torch.bfloat16 else 1e-5,
    )
