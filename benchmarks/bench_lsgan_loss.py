# SPDX-License-Identifier: MIT
"""lsgan_loss of PatchGAN logits. Bytes: forward reads them; backward writes their gradient."""

from __future__ import annotations

import math

import pytest
import shapes
import torch
import torch.nn.functional as F
from op_bench import measure

from cyclegan_fast.ops import lsgan_loss


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def bench_lsgan_loss(benchmark, rows, bench_device, bench_size, bench_batch, with_compile, dtype):
    shape = shapes.LOGITS.shape(bench_batch, bench_size)
    label = torch.ones((), device=bench_device)

    def operands():
        return (torch.randn(shape, device=bench_device).to(dtype).requires_grad_(),)

    logits = math.prod(shape) * dtype.itemsize
    measure(
        benchmark,
        rows,
        name=f"logits {list(shape)} {str(dtype).removeprefix('torch.')}",
        ours=lambda pred: lsgan_loss(pred, True),
        # As upstream's GANLoss does: a label expanded to the prediction's shape.
        eager=lambda pred: F.mse_loss(pred.float(), label.expand(pred.shape)),
        operands=operands,
        moved_bytes=(logits, 2 * logits),
        device=bench_device,
        with_compile=with_compile,
        tolerance=1e-2 if dtype == torch.bfloat16 else 1e-5,
    )
