# SPDX-License-Identifier: MIT
"""Shows that our plain baseline is upstream's iteration: same losses, same speed.

    python benchmarks/check_baseline.py CHECKOUT [--size 256] [--rounds 5]

CHECKOUT is an unmodified checkout of pytorch-CycleGAN-and-pix2pix. Both start from the same
weights, so their first losses must agree; then both are timed, interleaved. The result, with the
checkout's commit, goes to the device's file in benchmarks/results; the exit code is 1 if losses
differ or the speeds are more than 5 % apart.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import harness
import torch

from cyclegan_fast.benchmark import upstream
from cyclegan_fast.benchmark.plain import PlainIteration, Setup
from cyclegan_fast.benchmark.ratios import ALLOWED_DIFFERENCE


def main() -> int:
    """Run the check and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True  # as upstream sets it
    calls = 10 if options.device == "cuda" else 1

    shape = (options.batch, 3, options.size, options.size)
    torch.manual_seed(1)
    real_a, real_b = (torch.rand(2, *shape) * 2 - 1).to(options.device)
    theirs = upstream.UpstreamIteration(options.checkout, real_a, real_b)
    ours = PlainIteration(Setup(), real_a, real_b)
    for name in ("G_A", "G_B", "D_A", "D_B"):
        weights = getattr(theirs.model, f"net{name}").state_dict()
        getattr(ours, name.lower()).load_state_dict(weights)
    theirs()
    ours()
    for name, value in ours.losses().items():
        other = theirs.losses()[name]
        if abs(value - other) > 2e-3 * abs(other):
            print(f"loss {name} differs: upstream {other:.6f}, plain baseline {value:.6f}")
            return 1

    times = harness.interleaved(
        {"upstream": theirs, "plain": ours}, options.device, rounds=options.rounds, calls=calls
    )
    ratio = times["plain"]["median"] / times["upstream"]["median"]
    within = abs(ratio - 1) <= ALLOWED_DIFFERENCE
    rows = {
        "upstream_commit": upstream.commit(options.checkout),
        "size": options.size,
        "batch": options.batch,
        "seconds": times,
        "plain_over_upstream": round(ratio, 4),
        "within_5_percent": within,
    }
    path = harness.write("baseline", options.device, rows)
    print(
        f"upstream {times['upstream']['median']:.4f} s, plain {times['plain']['median']:.4f} s "
        f"per iteration: ratio {ratio:.3f} ({'within' if within else 'NOT within'} 5 %); {path}"
    )
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
