# SPDX-License-Identifier: MIT
"""Timing in turns, and what the machine reaches at its best now: a copy, a matrix product."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def seconds(function: Callable[[], object], calls: int, device: str) -> float:
    """Return wall or device seconds of one call, averaged over `calls` in a row."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / calls
    begin = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - begin) / calls


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    device: str,
    *,
    rounds: int = 9,
    calls: int = 1,
    warmup: int = 2,
) -> dict[str, dict[str, float]]:
    """Time contenders in turns, so that a slow moment of the machine hits all of them.

    Args:
        contenders: name -> a call to time.
        device: "cpu" or "cuda".
        rounds: how often each contender has its turn.
        calls: calls per turn.
        warmup: untimed calls of each contender before the first round.

    Returns:
        name -> {"median", "min", "max"} in seconds per call.
    """
    for function in contenders.values():
        for _ in range(warmup):
            function()
    if device == "cuda":
        torch.cuda.synchronize()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, function in contenders.items():
            times[name].append(seconds(function, calls, device))
    return {
        name: {"median": statistics.median(t), "min": min(t), "max": max(t)}
        for name, t in times.items()
    }


def copy_gb_per_s(device: str) -> float:
    """Return what a copy of memory, far larger than any cache, reaches now: read and written."""
    size = 2**28 if device == "cuda" else 2**26
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    times = interleaved({"copy": lambda: target.copy_(source)}, device, rounds=5, calls=4)
    return round(2 * size / times["copy"]["median"] / 1e9, 1)


def product_tflop_per_s(device: str, precision: str) -> float:
    """Return what a large matrix product reaches now; multiply and add count as two.

    Args:
        device: "cpu" or "cuda".
        precision: "bf16", "fp32" (TF32 where the GPU has it, as for convolutions), "fp32 no tf32".
    """
    n = 8192 if device == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "fp32"
    try:
        product = {"product": lambda: torch.mm(a, b, out=out)}
        times = interleaved(product, device, rounds=5, calls=4)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * n**3 / times["product"]["median"] / 1e12
