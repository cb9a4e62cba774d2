# SPDX-License-Identifier: MIT
"""The raw CUDA op augment against its reference: every bit, in every dtype and layout."""

from __future__ import annotations

import numpy as np
import pytest
import raw_ops
import torch
from raw_ops import poisoned

from cyclegan_fast.ops import PackedPictures, augment_reference

pytestmark = pytest.mark.gpu

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
# (height, width) in the file and when scaled: enlarged, shrunk, left alone, one axis only.
SIZES = [((9, 7), (11, 11)), ((23, 31), (11, 12)), ((13, 13), (13, 13)), ((11, 30), (11, 13))]
# The last two lie outside of everything.
PICKS = [
    [0, 0, 1, 0],
    [1, 2, 0, 1],
    [2, 3, 3, 1],
    [3, 1, 2, 0],
    [-9, -1, 99, 1],
    [2**40, 99, -1, 0],
]


def packed(channels: int) -> PackedPictures:
    rng = np.random.default_rng(channels)
    # Black and white: where Pillow's filter overshoots, and clips between its two passes.
    pictures = [255 * rng.integers(0, 2, (h, w, channels), np.uint8) for (h, w), _ in SIZES]
    return PackedPictures.pack(pictures, [scaled for _, scaled in SIZES]).to(raw_ops.device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(11, 11), (1, 1), (5, 8)])
def test_augment(dtype, layout, channels, size):
    pictures, picks = packed(channels), torch.tensor(PICKS, device=raw_ops.device)
    out = poisoned((len(picks), channels, *size), dtype, layout)
    raw_ops.ops.augment_fwd(pictures.levels, pictures.table, pictures.taps, picks, out)
    assert torch.equal(out, augment_reference(pictures, picks, size, dtype))


def test_augment_in_a_captured_graph():
    if raw_ops.device != "cuda":
        pytest.skip("graphs are a GPU's")
    pictures, picks = packed(3), torch.zeros(1, 4, dtype=torch.int64, device="cuda")
    out = poisoned((1, 3, 8, 8), torch.bfloat16, "channels_last")
    raw_ops.ops.augment_fwd(pictures.levels, pictures.table, pictures.taps, picks, out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        raw_ops.ops.augment_fwd(pictures.levels, pictures.table, pictures.taps, picks, out)
    for pick in PICKS:
        picks.copy_(torch.tensor([pick]))
        graph.replay()
        assert torch.equal(out, augment_reference(pictures, picks, (8, 8), torch.bfloat16))
