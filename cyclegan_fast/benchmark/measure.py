# SPDX-License-Identifier: MIT
"""Times contenders whose losses were found equal, interleaved, and says what each reaches."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from cyclegan_fast import backend
from cyclegan_fast.benchmark import kernels, timing
from cyclegan_fast.benchmark.contenders import Case, Contender, Iteration
from cyclegan_fast.benchmark.pages import first_line
from cyclegan_fast.benchmark.plain import PlainIteration, Setup

# Multiply and add count as two; torch's flop counter on the plain iteration at 256 x 256, batch 1.
FLOP_AT_256 = 1.879217e12
# Relative difference of the first losses to the plain ones as shipped that arithmetic explains.
TOLERANCE = {"fp32": 2e-3, "fp32 no tf32": 2e-3, "bf16": 3e-2}


def measure(
    found: Mapping[str, Contender], case: Case
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Time contenders in turns.

    Images are on the device, pools and optimisers included, losses not read. All contenders are in
    memory together. The share of the floor is that of the iteration's arithmetic at the rate that a
    large matrix product of the same precision reaches in the same process; what convolutions save
    by other algorithms than products may bring it above one.

    Args:
        found: name -> contender. Those named "ours" must run; of others a reason is kept.
        case: what is timed.

    Returns:
        Rows, and name -> reason of those that do not run here.

    Raises:
        ValueError: the first losses of ours differ from the plain ones.
    """
    torch.backends.cudnn.benchmark = True  # as upstream sets it; every contender has it
    ready: dict[str, Iteration] = {}
    told: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for name, contender in found.items():
        _collect(case.device)  # what the one before was judged by, or did not fit
        try:
            judged = _judge(name, contender, case)
            ready[name], told[name] = _set_up(contender, case)
            told[name]["judged_batch"] = judged
        except Exception as error:  # noqa: BLE001 - a peer that fails is reported, the rest go on
            if name.startswith("ours"):
                raise
            failed[name] = first_line(error)
            print(f"{name}: does not run here: {failed[name]}", file=sys.stderr)
            continue
        print(f"ready: {name}", flush=True)

    times = timing.interleaved(ready, case.device, rounds=case.rounds, calls=case.calls, warmup=0)
    copy = timing.copy_gb_per_s(case.device)
    precisions = {found[name].precision for name in ready}
    rates = {p: timing.product_tflop_per_s(case.device, p) for p in sorted(precisions)}
    flop = FLOP_AT_256 * case.batch * (case.size / 256) ** 2
    rows = []
    for name, t in times.items():
        reached, rate = flop / t["median"] / 1e12, rates[found[name].precision]
        rows.append(
            {
                "contender": name,
                "milliseconds": {key: round(value * 1e3, 3) for key, value in t.items()},
                "images_per_s": round(case.batch / t["median"], 2),
                "tflop_per_s": round(reached, 2),
                "product_tflop_per_s": round(rate, 2),
                "share_of_floor": round(reached / rate, 3),
                "copy_gb_per_s": copy,
                # Last: after a profile, launches may take longer.
                "launches": kernels.launches(ready[name]) if case.device == "cuda" else None,
                **told[name],
            }
        )
    ready.clear()
    _give_memory_back(case.device)
    return rows, failed


def _judge(name: str, contender: Contender, case: Case) -> int:
    """Check the first losses, of one picture if the plain iteration of all does not fit."""
    try:
        check_first_losses(name, contender, case)
        return case.batch
    except torch.OutOfMemoryError:
        if case.batch == 1:
            raise
    _collect(case.device)
    check_first_losses(name, contender, replace(case, batch=1))
    return 1


def check_first_losses(name: str, contender: Contender, case: Case) -> None:
    """Raise ValueError unless the contender's first losses are the plain iteration's."""
    plain = PlainIteration(Setup(), *case.images())
    twin = contender.twin(plain)
    plain()
    twin()
    losses = twin.losses()
    # Of smaller pictures fewer logits are averaged, and their roundings cancel less.
    tolerance = TOLERANCE[contender.precision] * max(1.0, 256 / case.size)
    for loss, other in plain.losses().items():
        if not abs(losses[loss] - other) <= tolerance * abs(other):
            raise ValueError(
                f"loss {loss} of {name} is {losses[loss]:.6f}, plain {other:.6f}; not timed"
            )


def _set_up(contender: Contender, case: Case) -> tuple[Iteration, dict[str, Any]]:
    """Build and warm up; return it, its peak of memory, and who served its ops."""
    cuda = case.device == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else 0
    with backend.record() as counts:
        iteration = contender.build()
        for _ in range(case.warmup):
            iteration()
    if cuda:
        torch.cuda.synchronize()
    peak = round((torch.cuda.max_memory_allocated() - before) / 2**20) if cuda else None
    return iteration, {"peak_memory_mib": peak, "served": backend.by_op(counts)}


def _give_memory_back(device: str) -> None:
    torch._dynamo.reset()
    _collect(device)


def _collect(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
