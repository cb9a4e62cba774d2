# SPDX-License-Identifier: MIT
"""The whole training iteration, ours against every set-up a user could run instead.

    python benchmarks/bench_step.py [--batch 1] [--size 256] [--peers eager|all] [--upstream DIR]
    python benchmarks/bench_step.py --contender "ours bf16, CUDA graph"       that one alone

Upstream's semantics as shipped, without TF32, in bf16 autocast with channels_last, in a manual CUDA
graph, under torch.compile in its modes, and ours, interleaved where several run in one process.
Images are on the device, pools and optimisers included, losses not read. Before a contender is
timed, its losses must equal the plain ones from the same weights. Rows are put into the device's
file in benchmarks/results, beside those of the same commit; each holds the copy bandwidth that its
process saw, by which rows of several processes can be compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import harness
import torch
import upstream
from ours import OursIteration
from plain import PlainIteration, Setup
from torch import Tensor

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
# Relative difference of the first losses to the plain ones as shipped that arithmetic explains.
TOLERANCE = {"fp32": 2e-3, "fp32 no tf32": 2e-3, "bf16": 3e-2}


@dataclass(frozen=True)
class Contender:
    """One way to run the iteration.

    Attributes:
        build: makes what is timed.
        twin: makes the same from a plain iteration's weights, its graph not captured, to be judged
            by its first losses.
        precision: a key of TOLERANCE.
    """

    build: Callable[[], Callable[[], object]]
    twin: Callable[[PlainIteration], Callable[[], object]]
    precision: str


def main() -> int:
    """Measure, print a table, and write the record; 1 if a contender did not run."""
    options = _options()
    device = options.device
    contenders = _contenders(options)
    if options.list:
        print(json.dumps(list(contenders)))
        return 0
    torch.backends.cudnn.benchmark = True  # as upstream sets it; every contender has it
    memory: dict[str, float] = {}
    served: dict[str, dict[str, dict[str, int]]] = {}
    ready: dict[str, Callable[[], object]] = {}
    failed = False
    for name, contender in contenders.items():
        try:
            check_first_losses(name, contender, options)
            ready[name], memory[name], served[name] = _set_up(contender, options)
        except Exception as error:  # noqa: BLE001 - a peer that fails is reported, the rest go on
            if name.startswith("ours"):
                raise
            failed = True
            print(f"{name}: does not run here: {harness.first_line(error)}", file=sys.stderr)
            continue
        print(f"ready: {name}", flush=True)

    calls = options.calls or (10 if device == "cuda" else 1)
    times = harness.interleaved(ready, device, rounds=options.rounds, calls=calls, warmup=0)
    flop = FLOP_AT_256 * options.batch * (options.size / 256) ** 2
    copy = harness.copy_gb_per_s(device)
    rows = [
        {
            "contender": name,
            "milliseconds": {key: round(value * 1e3, 3) for key, value in t.items()},
            "images_per_s": round(options.batch / t["median"], 2),
            "tflop_per_s": round(flop / t["median"] / 1e12, 2),
            "peak_memory_mib": round(memory[name]) if device == "cuda" else None,
            "copy_gb_per_s": copy,
            "served": served[name],
        }
        for name, t in times.items()
    ]
    if rows:
        section = f"step {options.size} batch {options.batch}"
        path = harness.merge(section, device, rows, key="contender")
        print(f"written to {path}")
    for row in sorted(rows, key=lambda row: row["milliseconds"]["median"]):
        print(
            f"{row['milliseconds']['median']:10.2f} ms  {row['tflop_per_s']:7.2f} TFLOP/s  "
            f"{row['peak_memory_mib'] or '-':>7} MiB  {row['contender']}"
        )
    return int(failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, help="iterations per turn (default 10 on a GPU)")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--peers", choices=["eager", "all"], default="eager")
    parser.add_argument("--contender", action="append", help="one name of --list; may be repeated")
    parser.add_argument("--list", action="store_true", help="print the contenders' names as JSON")
    parser.add_argument("--upstream", type=Path, help="checkout of upstream to time unmodified")
    return parser.parse_args()


def _images(options) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (2, options.batch, 3, options.size, options.size)
    real_a, real_b = (torch.rand(shape, generator=generator) * 2 - 1).to(options.device)
    return real_a, real_b


def _contenders(options) -> dict[str, Contender]:
    """Name -> contender, in the order of the table.

    Raises:
        ValueError: --contender names none of them.
    """
    found: dict[str, Contender] = {}
    if options.upstream:
        found["upstream, unmodified"] = _upstream(options)
    setups = dict(PLAIN[options.device])
    if options.peers == "all" and options.device == "cuda":
        setups |= COMPILE_PEERS
    found |= {name: _plain(name, setup, options) for name, setup in setups.items()}
    found |= {name: _ours(*how, options) for name, how in OURS[options.device].items()}
    wanted = options.contender or list(found)
    if unknown := set(wanted) - set(found):
        raise ValueError(f"--contender must be one of {list(found)}, got {sorted(unknown)}")
    return {name: found[name] for name in wanted}


def _upstream(options) -> Contender:
    def build(plain: PlainIteration | None = None) -> upstream.UpstreamIteration:
        theirs = upstream.UpstreamIteration(options.upstream, *_images(options))
        if plain is not None:
            for name in ("G_A", "G_B", "D_A", "D_B"):
                weights = getattr(plain, name.lower()).state_dict()
                getattr(theirs.model, f"net{name}").load_state_dict(weights)
        return theirs

    return Contender(build, build, "fp32")


def _plain(name: str, setup: Setup, options) -> Contender:
    def build(setup: Setup = setup) -> PlainIteration:
        if setup.compile_mode is not None:
            import torch._inductor.config as inductor

            torch._dynamo.reset()
            inductor.force_layout_optimization = "forced NHWC" in name
        return PlainIteration(setup, *_images(options))  # its seed gives every one the same weights

    return Contender(build, lambda _plain: build(replace(setup, graph=False)), setup.precision)


def _ours(precision: str, graph: bool, options) -> Contender:
    def twin(plain: PlainIteration) -> OursIteration:
        ours = OursIteration(precision, graph=False, images=_images(options))
        ours.copy_weights(plain)
        return ours

    def build() -> OursIteration:
        return OursIteration(precision, graph=graph, images=_images(options))

    return Contender(build, twin, precision)


def check_first_losses(name: str, contender: Contender, options) -> None:
    """Raise ValueError unless the contender's first losses are the plain iteration's."""
    plain = PlainIteration(Setup(), *_images(options))
    twin = contender.twin(plain)
    plain()
    twin()
    losses = twin.losses()
    # Of smaller pictures fewer logits are averaged, and their roundings cancel less.
    tolerance = TOLERANCE[contender.precision] * max(1.0, 256 / options.size)
    for loss, other in plain.losses().items():
        if not abs(losses[loss] - other) <= tolerance * abs(other):
            raise ValueError(
                f"loss {loss} of {name} is {losses[loss]:.6f}, plain {other:.6f}; not timed"
            )


def _set_up(contender: Contender, options):
    """Build and warm up; return it, its peak of memory in MiB, and who served its ops."""
    cuda = options.device == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else 0
    with backend.record() as counts:
        iteration = contender.build()
        for _ in range(options.warmup):
            iteration()
    if cuda:
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before if cuda else 0
    return iteration, peak / 2**20, backend.by_op(counts)


if __name__ == "__main__":
    sys.exit(main())
