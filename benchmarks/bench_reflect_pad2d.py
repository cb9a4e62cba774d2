# SPDX-License-Identifier: MIT
"""reflect_pad2d of the networks' pads, channels_last. Bytes: read one side, write the other."""

from __future__ import annotations

import pytest
import shapes
import torch
from op_bench import measure

from cyclegan_fast.ops import reflect_pad2d, reflect_pad2d_reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layer", shapes.PADS, ids=lambda layer: layer.name)
def bench_reflect_pad2d(
    benchmark, rows, bench_device, bench_size, bench_batch, with_compile, layer, dtype
):
    shape = n, c, h, w = layer.shape(bench_batch, bench_size)
    pad = layer.pad

    def operands():
        x = torch.randn(shape, device=bench_device).to(dtype)
        return (x.contiguous(memory_format=torch.channels_last).requires_grad_(),)

    moved = n * c * (h * w + (h + 2 * pad) * (w + 2 * pad)) * dtype.itemsize
    measure(
        benchmark,
        rows,
        name=f"{layer.name} {list(shape)} {str(dtype).removeprefix('torch.')}",
        ours=lambda x: reflect_pad2d(x, pad),
        eager=lambda x: reflect_pad2d_reference(x, pad),
        operands=operands,
        moved_bytes=(moved, 2 * moved),
        device=bench_device,
        with_compile=with_compile,
        tolerance=1e-2 if dtype == torch.bfloat16 else 1e-6,
    )
