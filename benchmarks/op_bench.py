# SPDX-License-Identifier: MIT
"""What the op benchmarks share: equality first, then eager, torch.compile, ours and a copy.

On a GPU ours takes part twice, by the back end that `auto` takes and in Triton: the record is what
the order of back ends is decided by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import harness
import torch
from torch import Tensor

from cyclegan_fast import backend

# Operands of one measurement together exceed this: twice the L2 of an H100, and any CPU's L2.
ROTATED_BYTES = 100 * 2**20


def measure(
    benchmark,
    rows: list[dict],
    *,
    name: str,
    ours: Callable[..., Tensor],
    eager: Callable[..., Tensor],
    operands: Callable[[], Sequence[Tensor]],
    moved_bytes: tuple[int, int],
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
        operands: makes one set of operands; the first requires a gradient.
        moved_bytes: least bytes that (forward, forward + backward) must read and write: each
            input once, each output once. The copy contender moves just as many.
        device: "cpu" or "cuda".
        with_compile: let torch.compile take part.
        tolerance: largest difference of ours to eager, relative to the largest value.
    """
    first = operands()
    functions = {"ours": ours}
    if device == "cuda":
        functions["ours in Triton"] = _served_by("triton", ours)
    with backend.record() as served:
        for function in functions.values():
            _assert_equal(function, eager, first, tolerance, name)
    functions["eager"] = eager
    if with_compile:
        torch._dynamo.reset()  # one cache per case: Inductor gives up on a function's ninth shape
        functions["torch.compile"] = torch.compile(eager, fullgraph=True)
    each = sum(t.numel() * t.element_size() for t in first)
    sets = [first] + [operands() for _ in range(min(63, ROTATED_BYTES // max(each, 1)))]
    for direction, moved in zip(("forward", "forward + backward"), moved_bytes, strict=True):
        contenders, calls = {}, len(sets)
        for label, function in functions.items():
            call = function if direction == "forward" else _with_backward(function)
            contenders[label], calls = harness.rotating(call, sets, device)
        contenders["copy of the same bytes"] = _copies(moved, calls, device)
        times = harness.interleaved(contenders, device)
        per_call = {label: t["median"] / calls for label, t in times.items()}
        rows.append(
            {
                "case": name,
                "direction": direction,
                "bytes": moved,
                "microseconds": {k: round(v * 1e6, 2) for k, v in per_call.items()},
                "gb_per_s": round(moved / per_call["ours"] / 1e9, 1),
                "x_copy": round(per_call["ours"] / per_call["copy of the same bytes"], 2),
                "served": backend.by_op(served),
                "x_faster_than_eager": round(per_call["eager"] / per_call["ours"], 2),
            }
        )
    benchmark.extra_info.update(rows[-1])
    benchmark.pedantic(contenders["ours"], rounds=3, iterations=1)


def _served_by(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(*operands: Tensor) -> Tensor:
        with backend.use_backend(name):
            return function(*operands)

    return call


def _with_backward(function: Callable[..., Tensor]) -> Callable[..., object]:
    def call(*operands: Tensor) -> object:
        y = function(*operands)
        # A dense upstream gradient in y's layout, as a convolution's backward gives it.
        grad_y = y.detach() if y.dim() else torch.ones_like(y)
        return torch.autograd.grad(y, [t for t in operands if t.requires_grad], grad_y)

    return call


def _copies(moved: int, calls: int, device: str) -> Callable[[], object]:
    half = max(moved // 2, 1)
    pairs = [
        (
            torch.empty(half, dtype=torch.uint8, device=device),
            torch.zeros(half, dtype=torch.uint8, device=device),
        )
        for _ in range(calls)
    ]
    return harness.rotating(lambda target, source: target.copy_(source), pairs, device)[0]


def _assert_equal(ours, eager, operands, tolerance: float, name: str) -> None:
    results = [(f(*operands), _with_backward(f)(*operands)) for f in (ours, eager)]
    (y, gradients), (expected, expected_gradients) = results
    for value, truth in zip((y, *gradients), (expected, *expected_gradients), strict=True):
        # A rounding at a kink may flip single derivatives, so gradients are compared in the mean.
        difference = (value.double() - truth.double()).abs().mean()
        if not difference <= tolerance * truth.double().abs().max().clamp(min=1e-12):
            raise ValueError(f"{name}: ours differs from eager by {difference:.3g}; not timed")
