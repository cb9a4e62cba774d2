# SPDX-License-Identifier: MIT
"""reflect_pad2d of the input image, channels_last. Bytes: read one side, write the other."""

from __future__ import annotations

import pytest
import shapes
import torch
from op_bench import measure

from cyclegan_fast.ops import reflect_pad2d, reflect_pad2d_reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def bench_reflect_pad2d(benchmark, rows, bench_device, bench_batch, with_compile, dtype):
    channels, side = shapes.IMAGE
    shape = (bench_batch, channels, side, side)

    def operands():
        x = torch.randn(shape, device=bench_device).to(dtype)
        return (x.contiguous(memory_format=torch.channels_last).requires_grad_(),)

    moved = bench_batch * channels * (side**2 + (side + 6) ** 2) * dtype.itemsize
    measure(
        benchmark,
        rows,
        name=f"image {list(shape)} {str(dtype).removeprefix('torch.')}",
        ours=lambda x: reflect_pad2d(x, 3),
        eager=lambda x: reflect_pad2d_reference(x, 3),
        operands=operands,
        moved_bytes=(moved, 2 * moved),
        device=bench_device,
        with_compile=with_compile,
        tolerance=1e-2 if dtype == torch.bfloat16 else 1e-6,
    )
