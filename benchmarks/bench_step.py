# SPDX-License-Identifier: MIT
"""The whole training iteration, ours against every set-up a user could run instead.

    python benchmarks/bench_step.py [--batch 1] [--size 256] [--peers eager|all] [--upstream DIR]

One interleaved run on one machine: upstream's semantics as shipped, without TF32, in bf16
autocast with channels_last, in a manual CUDA graph, under torch.compile in its modes, and ours.
Images are on the device, pools and optimisers included, losses not read. Before anything is timed,
our losses must equal the plain ones from the same weights. Writes the device's file in
benchmarks/results.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import harness
import torch
import upstream
from ours import OursIteration
from plain import PlainIteration, Setup

from cyclegan_fast import backend

# Multiply and add count as two; torch's flop counter on the plain iteration at 256 x 256, batch 1.
FLOP_AT_256 = 1.879217e12

COMPILED = {"precision": "bf16", "channels_last": True}
PLAIN = {
    "cpu": {
        "plain fp32": Setup(),
        "plain fp32 channels_last": Setup(channels_last=True),
        "plain bf16": Setup(precision="bf16"),
        "plain bf16 channels_last": Setup(precision="bf16", channels_last=True),
    },
    "cuda": {
        "plain fp32, TF32 off": Setup(precision="fp32 no tf32"),
        "plain as shipped (TF32)": Setup(),
        "plain bf16 channels_last": Setup(precision="bf16", channels_last=True),
        "plain bf16 channels_last, CUDA graph": Setup("bf16", channels_last=True, graph=True),
    },
}
COMPILE_PEERS = {
    "torch.compile": Setup(**COMPILED, compile_mode="default"),
    "torch.compile reduce-overhead": Setup(**COMPILED, compile_mode="reduce-overhead"),
    "torch.compile max-autotune": Setup(**COMPILED, compile_mode="max-autotune"),
    # The strongest set-up we could assemble: Inductor's layout pass forced to channels_last, and
    # the whole iteration in one graph.
    "torch.compile forced NHWC, CUDA graph": Setup(**COMPILED, compile_mode="default", graph=True),
}
OURS = {
    "cpu": {"ours fp32": ("fp32", False), "ours bf16": ("bf16", False)},
    "cuda": {"ours bf16, eager": ("bf16", False), "ours bf16, CUDA graph": ("bf16", True)},
}
# Relative difference of the first losses to the plain fp32 ones that arithmetic explains.
TOLERANCE = {"fp32": 2e-3, "bf16": 3e-2}


def main() -> None:
    """Measure, print a table, and write the record."""
    options = _options()
    device = options.device
    torch.backends.cudnn.benchmark = True  # as upstream sets it; every contender has it
    shape = (options.batch, 3, options.size, options.size)
    torch.manual_seed(1)
    images = tuple((torch.rand(2, *shape) * 2 - 1).to(device))

    memory: dict[str, float] = {}
    served: dict[str, dict[str, dict[str, int]]] = {}
    contenders: dict[str, Callable[[], object]] = {}
    for name, build in _builders(options, images).items():
        if options.only and not any(part in name for part in options.only):
            continue
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        try:
            with backend.record() as counts:
                contender = build()
                for _ in range(options.warmup):
                    contender()
        except Exception as error:  # noqa: BLE001 - a peer that fails is reported, and the rest go on
            if name.startswith("ours"):
                raise
            print(f"{name}: does not run here: {str(error).splitlines()[0][:200]}", flush=True)
            continue
        if device == "cuda":
            torch.cuda.synchronize()
            memory[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
        contenders[name] = contender
        served[name] = backend.by_op(counts)
        print(f"ready: {name}", flush=True)

    calls = options.calls or (10 if device == "cuda" else 1)
    times = harness.interleaved(contenders, device, rounds=options.rounds, calls=calls, warmup=0)
    flop = FLOP_AT_256 * options.batch * (options.size / 256) ** 2
    rows = [
        {
            "contender": name,
            "milliseconds": {key: round(value * 1e3, 3) for key, value in t.items()},
            "images_per_s": round(options.batch / t["median"], 2),
            "tflop_per_s": round(flop / t["median"] / 1e12, 2),
            "peak_memory_mib": round(memory[name]) if name in memory else None,
            "served": served[name],
        }
        for name, t in times.items()
    ]
    section = f"step {options.size} batch {options.batch}"
    path = harness.write(section, device, rows)
    for row in sorted(rows, key=lambda row: row["milliseconds"]["median"]):
        print(
            f"{row['milliseconds']['median']:10.2f} ms  {row['tflop_per_s']:7.2f} TFLOP/s  "
            f"{row['peak_memory_mib'] or '-':>7} MiB  {row['contender']}"
        )
    print(f"written to {path}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, help="iterations per turn (default 10 on a GPU)")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--peers", choices=["eager", "all"], default="eager")
    parser.add_argument("--only", nargs="*", help="contenders whose name holds one of these")
    parser.add_argument("--upstream", type=Path, help="checkout of upstream to time unmodified")
    return parser.parse_args()


def _builders(options, images) -> dict[str, Callable[[], Callable[[], object]]]:
    """Name -> a function that builds the contender, in the order of the table."""
    builders: dict[str, Callable] = {}
    if options.upstream:
        builders["upstream, unmodified"] = lambda: upstream.UpstreamIteration(
            options.upstream, *images
        )
    for name, setup in PLAIN[options.device].items():
        builders[name] = lambda setup=setup: PlainIteration(setup, *images)
    if options.peers == "all":
        for name, setup in COMPILE_PEERS.items():
            builders[name] = lambda setup=setup, name=name: _compiled(setup, name, images)
    for name, (precision, graph) in OURS[options.device].items():
        builders[name] = lambda precision=precision, graph=graph: _ours(precision, graph, images)
    return builders


def _compiled(setup: Setup, name: str, images) -> PlainIteration:
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    inductor.force_layout_optimization = "forced NHWC" in name
    return PlainIteration(setup, *images)


def _ours(precision: str, graph: bool, images) -> OursIteration:
    """Build ours, after its first losses were found equal to the plain ones."""
    ours = OursIteration(precision, graph=False, images=images)
    plain = PlainIteration(Setup(), *images)
    ours.copy_weights(plain)
    plain()
    ours()
    for name, value in ours.losses().items():
        other = plain.losses()[name]
        if not abs(value - other) <= TOLERANCE[precision] * abs(other):
            raise ValueError(f"loss {name} of ours is {value:.6f}, plain {other:.6f}; not timed")
    return OursIteration(precision, graph=graph, images=images)


if __name__ == "__main__":
    main()
