# SPDX-License-Identifier: MIT
"""The implicit GEMM with the norms beside it applied while it loads, against float64."""

from __future__ import annotations

import pytest
import torch
from on_load_case import layer

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_implicit_tiles as cut
from cyclegan_fast.ops.reflect_conv2d import triton_splits

pytestmark = pytest.mark.skipif(
    not _triton.INTERPRETED, reason="on a GPU the real sizes are cut into real tiles"
)
LAST, FIRST = torch.channels_last, torch.contiguous_format
F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
# (kind, x, weight, padding, stride): the trunk's, over a block of channels and several images; the
# discriminator's and the generator's by 2 and by 1; one result of one pixel; the generator's end.
TRUNK = ("reflect", (2, 17, 5, 7), (18, 17, 3, 3), 1, 1)
DOWN = ("zeros", (2, 3, 7, 9), (17, 3, 3, 3), 1, 2)
FLAT = ("zeros", (1, 18, 5, 4), (3, 18, 4, 4), 1, 1)
UP = ("transposed", (2, 18, 3, 5), (18, 4, 3, 3), 1, 2)
END = ("reflect", (1, 5, 6, 9), (3, 5, 7, 7), 3, 1)
PIXEL = ("zeros", (3, 4, 2, 2), (5, 4, 4, 4), 1, 2)
PIXEL_UP = ("transposed", (1, 4, 1, 1), (4, 3, 3, 3), 1, 2)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    for name, value in [
        ("TILES", dict.fromkeys(cut.TILES, cut.Tiles(16, 16, 16, 4, 1))),
        ("TILE_WIDTH", 4),
        ("PROGRAMS", 24),
        ("MOST_CHUNKS", 3),
    ]:
        monkeypatch.setattr(cut, name, value)
    monkeypatch.setattr(triton_splits, "BLOCK", 64)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize(
    ("case", "dtype", "layout", "options"),
    [
        (TRUNK, F32, LAST, {"act": 1, "affine": True, "moments": True}),
        (TRUNK, BF16, FIRST, {"act": 2}),
        (DOWN, F16, LAST, {"act": 2, "affine": True, "moments": True}),
        (FLAT, F32, LAST, {"act": 0, "affine": True, "bias": True}),
        (END, BF16, LAST, {"act": 1, "bias": True, "tanh": True}),
        (PIXEL, F32, FIRST, {"act": 1, "affine": True}),
        (UP, F32, LAST, {"act": 1, "moments": True}),
        (UP, BF16, LAST, {"act": 2, "affine": True, "bias": True}),
        (PIXEL_UP, F16, LAST, {"act": 0, "affine": True}),
    ],
    ids=str,
)
def test_forward(case, dtype, layout, options):
    layer(case, dtype, layout, alone=dtype is not F32).check_forward(**options)


def test_forward_far_from_zero():
    layer(TRUNK, centre=1000.0).check_forward(affine=True)
    layer(DOWN, F16, centre=1000.0).check_forward(act=0)
