# SPDX-License-Identifier: MIT
"""What every op needs: accepted dtypes, memory format, the compiled library's probe."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from cyclegan_fast import _extension

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# auto's order per device; benchmarks/results says which is fastest.
PREFERENCE = {"cpu": ("native", "reference"), "cuda": ("native", "triton", "reference")}


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of statistics and sums: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def memory_format(x: Tensor) -> torch.memory_format:
    """Return the dense layout in which an op works on x: channels_last only if x already is."""
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def native_probe(device_type: str, dtype: torch.dtype) -> str | None:
    """Probe of the compiled kernels: None when they can serve, else the reason."""
    if dtype not in FLOATS:
        return f"{dtype} is not a floating-point dtype that it takes"
    if device_type == "cpu":
        return None if _extension.available() else _extension.why_not()
    if device_type == "cuda":
        return None if _extension.cuda_available() else _extension.why_not_cuda()
    return f"no compiled kernel for device type {device_type!r}"


def triton_probe(device_type: str, dtype: torch.dtype) -> str | None:
    """Probe of the Triton kernels: None when they can serve, else the reason."""
    if dtype not in FLOATS:
        return f"{dtype} is not a floating-point dtype that it takes"
    return _why_no_triton(device_type)


@torch.compiler.assume_constant_result  # Dynamo cannot look into Triton's settings
def _why_no_triton(device_type: str) -> str | None:
    try:
        import triton
    except ImportError as error:
        return f"Triton cannot be imported: {error}"
    interpreted = triton.knobs.runtime.interpret
    if device_type == "cuda":
        return "TRITON_INTERPRET is set: its interpreter is for the CPU" if interpreted else None
    if device_type == "cpu":
        # Without the variable there is no Triton on a CPU; with it, kernels are run for tests.
        return None if interpreted else "Triton compiles for GPUs"
    return f"no Triton kernel for device type {device_type!r}"


PROBES = {"native": native_probe, "triton": triton_probe}


@cache
def kernels(stem: str, backend_name: str) -> Any:
    """Return what holds a back end's raw functions <stem>_fwd, <stem>_bwd and their workspaces.

    Their arguments are the same in every back end (csrc/registration.cpp): they write into
    outputs that they are given, allocate nothing and know no autograd.
    """
    if backend_name == "triton":
        return import_module(f"cyclegan_fast.ops.{stem}.triton_kernels")
    return torch.ops.cyclegan_fast_C


def check_image(op: str, name: str, x: Tensor) -> None:
    """Raise unless x is a 4-D floating-point tensor [N, C, H, W]."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor [N, C, H, W], got {type(x).__name__}")
    if x.dim() != 4:
        raise ValueError(f"{op}: {name} must have shape [N, C, H, W], got {tuple(x.shape)}")
    check_float(op, name, x)


def check_float(op: str, name: str, x: Tensor) -> None:
    """Raise unless x has one of the dtypes that the ops take."""
    if x.dtype not in FLOATS:
        raise TypeError(
            f"{op}: {name} must be float16, bfloat16, float32 or float64, got {x.dtype}; "
            f"convert it with {name}.float()"
        )


def check_pad(op: str, pad: int, height: int, width: int, name: str = "pad") -> None:
    """Raise unless a reflection by pad pixels exists for an image of height x width."""
    if not isinstance(pad, int) or isinstance(pad, bool):
        raise TypeError(f"{op}: {name} must be an int, got {type(pad).__name__}")
    if pad < 0 or (pad > 0 and pad >= min(height, width)):
        raise ValueError(
            f"{op}: {name} must satisfy 0 <= {name} < min(H, W) = {min(height, width)}, got {pad}"
        )


def check_elements(op: str, name: str, x: Tensor) -> None:
    """Raise unless x is a floating-point tensor with at least one element."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(x).__name__}")
    check_float(op, name, x)
    if x.numel() == 0:
        raise ValueError(f"{op}: {name} must have at least one element, got shape {tuple(x.shape)}")


def check_pair(op: str, first: str, a: Tensor, second: str, b: Tensor) -> None:
    """Raise unless a and b are floating-point tensors of one shape on one device."""
    check_elements(op, first, a)
    check_elements(op, second, b)
    if a.shape != b.shape:
        raise ValueError(
            f"{op}: {second} must have {first}'s shape {tuple(a.shape)}, got {tuple(b.shape)}"
        )
    if a.device != b.device:
        raise ValueError(f"{op}: {second} must be on {first}'s device {a.device}, got {b.device}")


def dense(x: Tensor) -> Tensor:
    """Return x, copied only if its elements do not fill one stretch of memory."""
    if x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        return x
    return x.contiguous()


def same_order(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return a and b dense and with equal strides, so that memory order agrees."""
    a = dense(a)
    if a.dim() != 4:
        return a, b.contiguous()
    return a, b.contiguous(memory_format=memory_format(a))


def loss_workspace(stem: str, backend_name: str, x: Tensor) -> Tensor:
    """Allocate the partial sums that a loss over x needs."""
    size = kernels(stem, backend_name).loss_workspace(x.numel())
    return x.new_empty((size,), dtype=accumulator(x.dtype))
