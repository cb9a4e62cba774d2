# SPDX-License-Identifier: MIT
"""Which implementation of reflect_conv2d `auto` takes, by a table and never by a stopwatch.

    reference   PyTorch's padding, convolution and tanh, under autograd
    native      our padding kernel and the device's own convolution (cuDNN, oneDNN): library.py
    triton      one kernel that reflects while it loads: triton_kernels.py

A run takes the same implementation every time. A row changes when benchmarks/results shows it to.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.ops import _common

STEM = "reflect_conv2d"

# Triton emits tensor-core code from here on; before, a tile of tl.dot is spilled registers
# (sm_75, Triton 3.6 and 3.8: thousands of scalar multiplications, 4 KB of stack a thread).
FIRST_TENSOR_CORES = (8, 0)
THIN = 16  # channels: tl.dot's smallest side, of which a thinner layer leaves the rest idle


class Row(NamedTuple):
    """One row of the table: what it speaks of, the order in which `auto` tries, and why."""

    device_type: str
    order: tuple[str, ...]
    why: str
    dtypes: tuple[torch.dtype, ...] = _common.FLOATS
    below: tuple[int, int] | None = None  # compute capabilities below this one only
    shapes: tuple[str, ...] = ("wide", "strided", "thin")


# The first row that fits holds.
TABLE = (
    Row("cpu", ("native", "reference"), "oneDNN has the CPU's matrix instructions"),
    Row(
        "cuda",
        ("native", "reference"),
        "Triton emits no tensor-core code for this GPU",
        below=FIRST_TENSOR_CORES,
    ),
    Row(
        "cuda",
        ("native", "reference"),
        "float64 has no Triton kernel",
        dtypes=(torch.float64,),
    ),
    Row(
        "cuda",
        ("native", "reference"),
        f"with fewer than {THIN} channels on a side most of a Triton tile is idle",
        shapes=("thin",),
    ),
    Row(
        "cuda", ("native", "triton", "reference"), "no record shows Triton to be faster than cuDNN"
    ),
)


def shape_class(weight: Tensor, stride: int) -> str:
    """Return "thin" (few channels on a side), "strided" or "wide"."""
    if min(weight.shape[:2]) < THIN:
        return "thin"
    return "strided" if stride > 1 else "wide"


def row(
    device_type: str,
    capability: tuple[int, int] | None,
    dtype: torch.dtype,
    shape: str,
) -> Row:
    """Return the table's row for a call; capability is None off CUDA."""
    for each in TABLE:
        fits = each.device_type == device_type and dtype in each.dtypes and shape in each.shapes
        if fits and (each.below is None or (capability is not None and capability < each.below)):
            return each
    return Row(device_type, ("reference",), f"nothing of ours runs on {device_type!r}")


def choose(x: Tensor, weight: Tensor, stride: int) -> str:
    """Return the implementation that serves a call under the present policy.

    Raises:
        BackendUnavailableError: one was asked for by name and cannot serve.
    """
    if backend.policy() != "auto":
        return backend.resolve(STEM, x.device.type, x.dtype)
    for name in _row(x, weight, stride).order:
        if backend.why_not(STEM, name, x.device.type, x.dtype) is None:
            return name
    return "reference"


def explain(x: Tensor, weight: Tensor, stride: int = 1) -> str:
    """Say which implementation serves reflect_conv2d(x, weight, stride=stride), and why.

    Args:
        x: [N, C, H, W], as the call's.
        weight: [C_out, C, KH, KW], as the call's.
        stride: as the call's.

    Returns:
        "native: no record shows Triton to be faster than cuDNN", say.

    Raises:
        BackendUnavailableError: one was asked for by name and cannot serve.
    """
    chosen = choose(x, weight, stride)
    if backend.policy() != "auto":
        return f"{chosen}: it was asked for by name"
    found = _row(x, weight, stride)
    if chosen == found.order[0]:
        return f"{chosen}: {found.why}"
    reason = backend.why_not(STEM, found.order[0], x.device.type, x.dtype)
    return f"{chosen}: {found.order[0]} cannot serve: {reason}"


def _row(x: Tensor, weight: Tensor, stride: int) -> Row:
    capability = _capability(x.device.index) if x.device.type == "cuda" else None
    return row(x.device.type, capability, x.dtype, shape_class(weight, stride))


@torch.compiler.assume_constant_result
def _capability(index: int | None) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


def _native_probe(device_type: str, dtype: torch.dtype) -> str | None:
    if dtype not in _common.FLOATS:
        return f"{dtype} is not a floating-point dtype that it takes"
    if device_type in ("cpu", "cuda"):
        return None
    return f"no convolution library is known for device type {device_type!r}"


def _triton_probe(device_type: str, dtype: torch.dtype) -> str | None:
    if dtype == torch.float64:
        return "its products are of tensor cores, which float64 is not made for: use native"
    reason = _common.triton_probe(device_type, dtype)
    if reason is None and device_type == "cuda" and _capability(None) < FIRST_TENSOR_CORES:
        return "Triton emits no tensor-core code for a GPU before compute capability 8.0"
    return reason


backend.register(
    STEM,
    {"native": _native_probe, "triton": _triton_probe},
    {
        device_type: row(device_type, FIRST_TENSOR_CORES, torch.float32, "wide").order
        for device_type in ("cpu", "cuda")
    },
)
