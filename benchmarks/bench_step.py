# SPDX-License-Identifier: MIT
"""The whole training iteration, ours against every set-up a user could run instead.

    python benchmarks/bench_step.py [--batch 1] [--size 256] [--peers eager|all] [--upstream DIR]
    python benchmarks/bench_step.py --contender "ours bf16, CUDA graph"       that one alone

Upstream's semantics as shipped, without TF32, in bf16 autocast with channels_last, in a manual CUDA
graph, under torch.compile in its modes, and ours, interleaved where several run in one process: a
row holds beside how many others it was timed, and does not replace one that was beside more.
Images are on the device, pools and optimisers included, losses not read. Before a contender is
timed, its losses must equal the plain ones from the same weights. Rows are put into the device's
file in benchmarks/results, beside those of the same commit; each holds the copy bandwidth that its
process saw, by which rows of several processes can be compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import harness
import torch

from cyclegan_fast.benchmark.contenders import PEERS, Case, contenders
from cyclegan_fast.benchmark.measure import measure


def main() -> int:
    """Measure, print a table, and write the record; 1 if a contender did not run."""
    options = _options()
    device = options.device
    case = Case(
        device,
        options.size,
        options.batch,
        options.rounds,
        options.calls or (10 if device == "cuda" else 1),
        options.warmup,
        options.upstream,
    )
    # To compile for a CPU takes minutes; `cyclegan-fast benchmark --against compile` does it.
    everything = options.peers == "all" and device == "cuda"
    found = contenders(case, tuple(PEERS) if everything else ("eager",))
    if options.list:
        print(json.dumps(list(found)))
        return 0
    wanted = options.contender or list(found)
    if unknown := set(wanted) - set(found):
        raise ValueError(f"--contender must be one of {list(found)}, got {sorted(unknown)}")
    rows, failed = measure({name: found[name] for name in wanted}, case)
    for row in rows:
        row["beside"] = len(rows) - 1
    if rows:
        section = f"step {options.size} batch {options.batch}"
        path = harness.merge(section, device, rows, key="contender", rank="beside")
        print(f"written to {path}")
    for row in sorted(rows, key=lambda row: row["milliseconds"]["median"]):
        print(
            f"{row['milliseconds']['median']:10.2f} ms  {row['tflop_per_s']:7.2f} TFLOP/s  "
            f"{row['share_of_floor']:6.1%} of the floor  {row['launches'] or '-':>5} launches  "
            f"{row['peak_memory_mib'] or '-':>7} MiB  {row['contender']}"
        )
    return int(bool(failed))


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


if __name__ == "__main__":
    sys.exit(main())
