# SPDX-License-Identifier: MIT
"""The norm's Triton kernels on what a convolution has left, against float64, interpreted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "gpu"))
import raw_ops  # noqa: E402
from beside_convolution import CASES, check  # noqa: E402
from test_cuda_beside_convolution import OPTIONS  # noqa: E402

from cyclegan_fast.ops import _triton  # noqa: E402
from cyclegan_fast.ops.instance_norm_act import triton_kernels as norm  # noqa: E402

pytestmark = pytest.mark.skipif(not _triton.INTERPRETED, reason="on a GPU it is compiled")


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(raw_ops, "ops", norm)
    monkeypatch.setattr(raw_ops, "device", "cpu")
    for module, name, value in [(_triton, "MOST_CHANNELS", 8), (norm, "ELEMENTS", 64)]:
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("resident", [0, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("shape", "pad", "act", "each", "pitch"), [CASES[0], *CASES[2:]])
def test_norm_from_what_a_convolution_left(
    shape, pad, act, each, pitch, full, dtype, resident, monkeypatch
):
    monkeypatch.setattr(norm, "RESIDENT", resident)
    monkeypatch.setattr(norm, "PROGRAMS", 4 if resident else 12)
    check(shape, pad, act, each, pitch, dtype, **(OPTIONS if full else {}))


def test_norm_far_from_zero_from_what_a_convolution_left(monkeypatch):
    monkeypatch.setattr(norm, "ELEMENTS", 1024)
    check((1, 8, 24, 24), 1, "relu", 96, 26, torch.float32, offset=1000.0)
