# SPDX-License-Identifier: MIT
"""augment: a batch from 8-bit pictures. Bytes: each level under the crop read, each value written.

Eager gets its pictures scaled already, one size for all, so that gathering, mirroring and
normalising are all that is left to it.
"""

from __future__ import annotations

import numpy as np
import pytest
import shapes
import torch
from op_bench import measure

from cyclegan_fast.data import Preprocess
from cyclegan_fast.ops import PackedPictures, augment

PICTURES = 64
# Upstream's: pictures are scaled to 286 of 256, and 256 cut out.
LOAD, CROP = 286, 256


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kept", ["to be scaled", "scaled before"])
def bench_augment(
    benchmark, rows, bench_device, bench_size, bench_batch, with_compile, kept, dtype
):
    shape = shapes.HEAD.shape(bench_batch, bench_size)
    channels, side = shape[1], shape[2]
    load = side * LOAD // CROP
    rng = np.random.default_rng(5)
    files = rng.integers(0, 256, (PICTURES, side, side, channels), dtype=np.uint8)
    scaled = np.stack([Preprocess(load, side).resize(file) for file in files])
    pictures = files if kept == "to be scaled" else scaled
    packed = PackedPictures.pack(list(pictures), [(load, load)] * PICTURES).to(bench_device)
    stack = torch.from_numpy(scaled).to(bench_device)
    along = torch.arange(side, device=bench_device)

    def eager(picks: torch.Tensor) -> torch.Tensor:
        number, top, left, mirrored = picks.unbind(1)
        column = torch.where((mirrored != 0)[:, None], side - 1 - along, along)
        cut = stack[
            number[:, None, None], (top[:, None] + along)[:, :, None],
            (left[:, None] + column)[:, None, :],
        ]  # fmt: skip
        return ((cut.float() / 255 - 0.5) / 0.5).permute(0, 3, 1, 2).to(dtype)

    def operands():
        ends = (PICTURES, load - side + 1, load - side + 1, 2)
        return (torch.tensor(rng.integers(0, ends, (bench_batch, 4)), device=bench_device),)

    under = round(side * pictures.shape[1] / load) ** 2
    read = bench_batch * channels * under
    measure(
        benchmark,
        rows,
        name=f"pictures {kept} {list(shape)} {str(dtype).removeprefix('torch.')}",
        ours=lambda picks: augment(packed, picks, (side, side), dtype, torch.channels_last),
        eager=eager,
        operands=operands,
        moved_bytes=(read + torch.Size(shape).numel() * dtype.itemsize,),
        device=bench_device,
        with_compile=with_compile,
        tolerance=0.0,
    )
