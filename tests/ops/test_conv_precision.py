# SPDX-License-Identifier: MIT
"""TF32 is taken where PyTorch allows it and for float32 alone; GPUs before 8.0 have the library."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from cyclegan_fast import backend
from cyclegan_fast.errors import BackendUnavailableError
from cyclegan_fast.ops import _common, _triton
from cyclegan_fast.ops.reflect_conv2d import calls, table
from cyclegan_fast.ops.reflect_conv2d import triton_implicit as implicit
from cyclegan_fast.ops.reflect_conv2d import triton_operands as operands
from cyclegan_fast.ops.reflect_conv2d.layers import DIRECTIONS, Layer

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("cudnn", "allowed"),
    [
        (SimpleNamespace(allow_tf32=True), True),
        (SimpleNamespace(allow_tf32=False), False),
        # The newer switch alone is read, where there is one: the older may raise.
        (SimpleNamespace(conv=SimpleNamespace(fp32_precision="tf32")), True),
        (SimpleNamespace(conv=SimpleNamespace(fp32_precision="ieee")), False),
        (SimpleNamespace(conv=SimpleNamespace(fp32_precision="none")), False),
    ],
    ids=str,
)
def test_precision(cudnn, allowed, dtype, monkeypatch):
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    expected = "tf32" if allowed and dtype == torch.float32 else "ieee"
    assert operands.precision(torch.empty(1, dtype=dtype)) == expected
    options = operands.options(0, 1, torch.Size((1, 1, 3, 3)), False, torch.empty(1, dtype=dtype))
    assert options["PRECISION"] == expected


@pytest.mark.parametrize("allowed", [True, False])
def test_pytorch_s_own_switch(allowed, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    assert operands.precision(torch.empty(1)) == ("tf32" if allowed else "ieee")


@pytest.mark.skipif(not _triton.INTERPRETED, reason="nothing is launched: the kernel is replaced")
@pytest.mark.parametrize("allowed", [True, False])
def test_what_is_launched(allowed, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    launched = []

    class Kernel:
        def __getitem__(self, grid):
            return lambda *_, **options: launched.append(options["PRECISION"])

    for name in ("fwd", "bwd", "weight"):
        monkeypatch.setattr(implicit, f"reflect_conv2d_{name}_kernel", Kernel())
    x, weight, y = torch.ones(1, 2, 5, 5), torch.ones(2, 2, 3, 3), torch.ones(1, 2, 3, 3)
    implicit.forward([calls.Forward(x, weight, None, y)], 0, 1, False)
    implicit.gradient_of_input([calls.OfInput(y, None, weight, x)], 0, 1)
    implicit.gradient_of_weight([calls.OfWeight(y, None, x, weight, None, torch.ones(999))], 0, 1)
    assert launched == ["tf32" if allowed else "ieee"] * 3


@pytest.fixture
def before_tensor_cores(monkeypatch):
    """A layer on a GPU of compute capability 7.5, where Triton itself would run."""
    monkeypatch.setattr(table, "_capability", lambda _index: (7, 5))
    monkeypatch.setattr(_common, "triton_probe", lambda *_: None)
    image = SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.float16)
    weight = SimpleNamespace(shape=torch.Size((16, 16, 3, 3)))
    return Layer(image, weight, 0, 1)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_gpu_without_tensor_cores_has_the_library(direction, before_tensor_cores, monkeypatch):
    layer = before_tensor_cores
    monkeypatch.setattr(table.measured, "choice", lambda _device: table.measured.nothing)
    assert table.choose(direction, "auto", layer) == "library"
    monkeypatch.setattr(table.measured, "choice", lambda _device: lambda *_: "implicit")
    assert table.choose(direction, "auto", layer) == "library"  # a measurement that cannot be
    with pytest.raises(BackendUnavailableError, match="before compute capability 8.0"):
        table.choose(direction, "triton", layer)
    with backend.use_backend("triton"), pytest.raises(BackendUnavailableError, match="8.0"):
        backend.resolve(table.STEM, "cuda", torch.float16)
