# SPDX-License-Identifier: MIT
"""What an iteration runs on a GPU, by PyTorch's profiler: kernels, copies and fills."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def profiled(iteration: Callable[[], object], calls: int) -> dict[str, tuple[float, float]]:
    """Return name -> (launches, microseconds) of one call, those inside a graph included."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(calls):
            iteration()
        torch.cuda.synchronize()
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in profiler.key_averages():
        if event.self_device_time_total:
            found[event.key][0] += event.count / calls
            found[event.key][1] += event.self_device_time_total / calls
    return {name: (count, time) for name, (count, time) in found.items()}


def launches(iteration: Callable[[], object]) -> int | None:
    """Return how many launches one call is; None where the profiler sees none."""
    return round(sum(count for count, _ in profiled(iteration, 1).values())) or None
