# SPDX-License-Identifier: MIT
"""What the op benchmarks share: equality first, then eager, torch.compile, ours and a copy.

On a GPU ours takes part twice, by the back end that `auto` takes and in Triton: the record is what
the order of back ends is decided by. Operands rotate through more memory than the L2 cache holds
where that takes at most 64 sets; a row says whether it did ("cache"). The copies, by memcpy and by
a kernel, move as many bytes in sets as many: what they reach is what the cache allows, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import harness
import torch
from torch import Tensor

from cyclegan_fast import backend

MOST_SETS = 64
LEAST_ROTATED = 100 * 2**20  # bytes; exceeds any CPU's L2
COPY, COPY_KERNEL = "copy of the same bytes", "copy kernel, the same bytes"


def measure(
    benchmark,
    rows: list[dict],
    *,
    name: str,
    ours: Callable[..., Tensor],
    eager: Callable[..., Tensor],
    operands: Callable[[], Sequence[Tensor]],
    moved_bytes: tuple[int] | tuple[int, int],
    device: str,
    with_compile: bool,
    tolerance: float,
) -> None:
    """Check equality, then time forward and forward + backward of each contender.

    Args:
        benchmark: pytest-benchmark's fixture; it times ours once more for its own table.
        rows: where the results go.
        name: shape and dtype, for the table.
        ours: the fused op; called with the operands.
        eager: plain PyTorch with the same meaning; torch.compile gets this one.
        operands: makes one set of operands; some require a gradient, where the op has one.
        moved_bytes: least bytes that (forward, forward + backward), or (forward,) of an op without
            gradient, must read and write: each input once, each output once. The copy contenders
            move just as many.
        device: "cpu" or "cuda".
        with_compile: let torch.compile take part.
        tolerance: largest difference of ours to eager, relative to the largest value.

    Raises:
        ValueError: ours does not equal eager; nothing is timed.
    """
    first = operands()
    functions = {"ours": ours}
    if device == "cuda":
        functions["ours in Triton"] = _served_by("triton", ours)
    with backend.record() as served:
        for function in functions.values():
            _assert_equal(function, eager, first, tolerance, name)
    functions["eager"] = eager
    notes: dict[str, str] = {}
    if with_compile:
        torch._dynamo.reset()  # one cache per case: Inductor gives up on a function's ninth shape
        functions["torch.compile"] = torch.compile(eager, fullgraph=True)
        try:
            _assert_equal(functions["torch.compile"], eager, first, tolerance, name)
        except Exception as error:  # noqa: BLE001 - a peer that fails is noted, ours is still timed
            notes["torch.compile"] = harness.first_line(error)
            del functions["torch.compile"]
    each = sum(t.numel() * t.element_size() for t in first)
    target = _rotated_bytes(device)
    sets = [first] + [operands() for _ in range(min(MOST_SETS - 1, target // max(each, 1)))]
    for direction, moved in zip(("forward", "forward + backward"), moved_bytes, strict=False):
        contenders, calls = {}, len(sets)
        for label, function in functions.items():
            call = function if direction == "forward" else _with_backward(function)
            contenders[label], calls = harness.rotating(call, sets, device)
        row = timed(contenders, calls, moved, device, cold=len(sets) * each > target)
        row |= {"case": name, "direction": direction, "served": backend.by_op(served)}
        rows.append(row)
        if notes:
            rows[-1]["does_not_run"] = notes
    benchmark.extra_info.update(rows[-1])
    benchmark.pedantic(contenders["ours"], rounds=3, iterations=1)


def timed(
    contenders: dict[str, Callable[[], object]], calls: int, moved: int, device: str, *, cold: bool
) -> dict:
    """Time contenders, "ours" and "eager" among them, and copies of as many bytes; return the row.

    Args:
        contenders: name -> a call that does the work `calls` times.
        calls: as above.
        moved: bytes that the work must move once.
        device: "cpu" or "cuda".
        cold: what is read is in no cache.
    """
    times = harness.interleaved(contenders | _copies(moved, calls, device), device)
    per_call = {label: t["median"] / calls for label, t in times.items()}
    copy = min(per_call[label] for label in (COPY, COPY_KERNEL) if label in per_call)
    return {
        "bytes": moved,
        "cache": "cold" if cold else "warm",
        "microseconds": {k: round(v * 1e6, 2) for k, v in per_call.items()},
        "gb_per_s": round(moved / per_call["ours"] / 1e9, 1),
        "copy_gb_per_s": round(moved / copy / 1e9, 1),
        "share_of_copy": round(copy / per_call["ours"], 3),
        "x_copy": round(per_call["ours"] / copy, 2),
        "x_faster_than_eager": round(per_call["eager"] / per_call["ours"], 2),
    }


def _rotated_bytes(device: str) -> int:
    """What operands together must exceed: twice the GPU's L2, and the least of all devices."""
    if device == "cpu":
        return LEAST_ROTATED
    return max(LEAST_ROTATED, 2 * torch.cuda.get_device_properties(0).L2_cache_size)


def _served_by(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(*operands: Tensor) -> Tensor:
        with backend.use_backend(name):
            return function(*operands)

    return call


def _with_backward(function: Callable[..., Tensor]) -> Callable[..., object]:
    def call(*operands: Tensor) -> object:
        y = function(*operands)
        leaves = [t for t in operands if t.requires_grad]
        if not leaves:
            return ()
        # A dense upstream gradient in y's layout, as a convolution's backward gives it.
        grad_y = y.detach() if y.dim() else torch.ones_like(y)
        return torch.autograd.grad(y, leaves, grad_y)

    return call


def _copies(moved: int, calls: int, device: str) -> dict[str, Callable[[], object]]:
    """Contenders that read half of the bytes and write as many, through `calls` pairs in turn."""
    words = max(moved // 2 // 4, 1)
    pairs = [
        tuple(torch.zeros(words, dtype=torch.int32, device=device) for _ in range(2))
        for _ in range(calls)
    ]
    copies = {COPY: harness.rotating(lambda out, x: out.copy_(x), pairs, device)[0]}
    if device == "cuda":  # where copy_ is a memcpy, which small sizes may not favour
        kernel = harness.rotating(lambda out, x: torch.neg(x, out=out), pairs, device)[0]
        copies[COPY_KERNEL] = kernel
    return copies


def _assert_equal(ours, eager, operands, tolerance: float, name: str) -> None:
    results = [(f(*operands), _with_backward(f)(*operands)) for f in (ours, eager)]
    (y, gradients), (expected, expected_gradients) = results
    for value, truth in zip((y, *gradients), (expected, *expected_gradients), strict=True):
        # A rounding at a kink may flip single derivatives, so gradients are compared in the mean.
        difference = (value.double() - truth.double()).abs().mean().item()
        if not difference <= tolerance * max(truth.double().abs().max().item(), 1e-12):
            raise ValueError(f"{name}: ours differs from eager by {difference:.3g}; not timed")
