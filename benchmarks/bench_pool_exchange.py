# SPDX-License-Identifier: MIT
"""pool_exchange, pool of 50. Bytes: one picture read and written to show it, one to keep it."""

from __future__ import annotations

import pytest
import shapes
import torch
from op_bench import measure

from cyclegan_fast.ops import pool_exchange, pool_exchange_reference

SIZE = 50


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def bench_pool_exchange(
    benchmark, rows, bench_device, bench_size, bench_batch, with_compile, dtype
):
    shape = shapes.HEAD.shape(bench_batch, bench_size)

    def images(n: int) -> torch.Tensor:
        made = torch.randn(n, *shape[1:], device=bench_device).to(dtype)
        return made.contiguous(memory_format=torch.channels_last)

    # One pool for all sets, as large as it is. A row shown is not one replaced, so that a call
    # after a call finds what the first one found.
    pool = images(SIZE + 1)
    numbers = torch.arange(bench_batch, device=bench_device)
    measure(
        benchmark,
        rows,
        name=f"pictures {list(shape)} {str(dtype).removeprefix('torch.')}",
        ours=lambda pictures: pool_exchange(pool, pictures, numbers, SIZE - 1 - numbers),
        eager=lambda pictures: pool_exchange_reference(pool, pictures, numbers, SIZE - 1 - numbers),
        operands=lambda: (images(bench_batch),),
        moved_bytes=(4 * torch.Size(shape).numel() * dtype.itemsize,),
        device=bench_device,
        with_compile=with_compile,
        tolerance=0.0,
    )
