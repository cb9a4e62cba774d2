# SPDX-License-Identifier: MIT
"""Where an iteration's GPU time goes, kernel by kernel.

    python benchmarks/profile_step.py [--batch 1] [--size 256] [--rows 40]

Replays our captured step under PyTorch's profiler, prints the kernels by share, and writes them to
the device's file in benchmarks/results.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import harness
import torch

from cyclegan_fast.benchmark.kernels import profiled
from cyclegan_fast.benchmark.ours import OursIteration

REPLAYS = 10

# First match wins; names are those of PyTorch's, cuDNN's and our kernels.
KINDS = [
    ("ours", ("cyclegan_fast",)),
    ("convolution, weight gradient", ("wgrad",)),
    ("convolution, input gradient", ("dgrad",)),
    ("convolution", ("fprop", "implicit", "conv", "cudnn", "cutlass", "xmma", "gemm", "nvjet")),
    ("Adam", ("adam",)),
    ("copies and fills", ("memcpy", "memset", "copy", "fill")),
]


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rows", type=int, default=40)
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    shape = (options.batch, 3, options.size, options.size)
    images = tuple((torch.rand(2, *shape) * 2 - 1).cuda())
    step = OursIteration("bf16", graph=True, images=images)
    for _ in range(6):
        step()
    kernels = profiled(step, REPLAYS)
    total = sum(time for _, time in kernels.values())
    kinds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, (count, time) in kernels.items():
        entry = kinds[kind_of(name)]
        entry[0] += count
        entry[1] += time
    print(f"{total / 1e3:.3f} ms of kernels per iteration")
    for kind, (count, time) in sorted(kinds.items(), key=lambda item: -item[1][1]):
        print(f"{time:10.1f} us  {count:6.0f} launches  {kind}")
    rows = sorted(kernels.items(), key=lambda item: -item[1][1])[: options.rows]
    for name, (count, time) in rows:
        print(f"{time:10.1f} us  {count:6.1f} x {time / max(count, 1e-9):8.2f}  {name[:150]}")
    harness.write(
        f"profile {options.size} batch {options.batch}",
        "cuda",
        {
            "microseconds": round(total, 1),
            "kinds": {
                k: {"launches": c, "microseconds": round(t, 1)} for k, (c, t) in kinds.items()
            },
            "kernels": [
                {"name": name, "launches": count, "microseconds": round(time, 1)}
                for name, (count, time) in rows
            ],
        },
    )


def kind_of(name: str) -> str:
    """The kind that a kernel's name tells."""
    lowered = name.lower()
    for kind, parts in KINDS:
        if any(part in lowered for part in parts):
            return kind
    return "element-wise and the rest"


if __name__ == "__main__":
    main()
