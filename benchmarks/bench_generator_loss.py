# SPDX-License-Identifier: MIT
"""generator_loss of a step. Bytes: six pictures, two predictions read; six gradients written."""

from __future__ import annotations

import pytest
import shapes
import torch
from op_bench import measure

from cyclegan_fast.ops import generator_loss, generator_loss_reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def bench_generator_loss(
    benchmark, rows, bench_device, bench_size, bench_batch, with_compile, dtype
):
    picture = shapes.HEAD.shape(bench_batch, bench_size)
    prediction = shapes.LOGITS.shape(bench_batch, bench_size)
    weights = torch.tensor([10.0, 10.0, 5.0, 5.0], device=bench_device)
    real = torch.rand(2, *picture, device=bench_device) * 2 - 1

    def operands():
        made = [torch.randn(*prediction, device=bench_device).to(dtype) for _ in range(2)]
        made += [torch.randn(*picture, device=bench_device).to(dtype) for _ in range(4)]
        return [x.requires_grad_() for x in made]

    image = torch.Size(picture).numel()
    judged = 2 * torch.Size(prediction).numel() * dtype.itemsize
    read = 4 * image * dtype.itemsize + 2 * image * 4 + judged
    measure(
        benchmark,
        rows,
        name=f"pictures {list(picture)} {str(dtype).removeprefix('torch.')}",
        ours=lambda *made: generator_loss(*made, *real, weights, tanh=True)[0],
        eager=lambda *made: generator_loss_reference(*made, *real, weights, tanh=True)[0],
        operands=operands,
        moved_bytes=(read, read + 4 * image * dtype.itemsize + judged),
        device=bench_device,
        with_compile=with_compile,
        tolerance=1e-2 if dtype == torch.bfloat16 else 1e-5,
    )
