# SPDX-License-Identifier: MIT
"""The norm's raw CUDA ops on what a convolution has left, against float64."""

from __future__ import annotations

import beside_convolution
import pytest
import torch
from beside_convolution import CASES, check
from raw_ops import NormCase

pytestmark = pytest.mark.gpu

OPTIONS = {"residual": True, "grad_skip": True, "grad_residual": True, "affine": True}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("shape", "pad", "act", "each", "pitch"), CASES)
def test_norm_from_what_a_convolution_left(shape, pad, act, each, pitch, full, dtype):
    check(shape, pad, act, each, pitch, dtype, **(OPTIONS if full else {}))


def test_norm_far_from_zero_from_what_a_convolution_left():
    check((1, 40, 24, 24), 1, "relu", 96, 26, torch.float32, offset=1000.0)


def test_norms_in_pairs_from_what_convolutions_left():
    shape, pad, act, each, pitch = CASES[0]
    pair = [
        NormCase(shape, torch.bfloat16, "channels_last", act, pad, offset=offset, **options)
        for offset, options in ((3.0, {}), (-1.0, OPTIONS))
    ]
    written = [case.allocate() for case in pair]
    beside_convolution.run_pair(pair, written, each, pitch)
    for case, t in zip(pair, written, strict=True):
        alone = beside_convolution.run(case, each, pitch)
        for name in ("y", "mean", "rstd", "grad_x", "grad_residual", "sums"):
            assert t[name] is None or torch.equal(t[name], alone[name]), name
