# SPDX-License-Identifier: MIT
"""Random calls of every op on every back end of ours: a right answer or a clear error, always.

make fuzz                        20,000 calls
CYCLEGAN_FAST_FUZZ_CALLS=500     so many, in chunks of 100
CYCLEGAN_FAST_FUZZ_SEED=7        others than CI's
"""

from __future__ import annotations

import os

import pytest
import torch
from calls import Call
from data_calls import DataCall
from numerics import EPS, assert_within_budget, largest, same_values
from torch import Tensor

from cyclegan_fast import ops

CHUNK = 100
ONE_OF = 6  # calls is one of an op without gradients
CALLS = int(os.environ.get("CYCLEGAN_FAST_FUZZ_CALLS", "2000"))
SEED = int(os.environ.get("CYCLEGAN_FAST_FUZZ_SEED", "0"))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, at inf and nan
@pytest.mark.parametrize("chunk", range(CALLS // CHUNK))
def test_random_calls(chunk, fused_backend):
    first = (SEED * 10**6 + chunk) * CHUNK
    failures = []
    for seed in range(first, first + CHUNK):
        call = DataCall(seed) if seed % ONE_OF == 0 else Call(seed)
        try:
            check(call)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            failures.append(f"{call}: {type(error).__name__}: {error}")
    assert not failures, "\n".join(failures)


def check(call: Call | DataCall) -> None:
    if isinstance(call, DataCall):
        call.check()
    elif call.wrong:
        check_refused(call)
    else:
        check_answer(call)


def check_refused(call: Call) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"^{call.op}: \w+ must"):
        getattr(ops, call.op)(**call.operands, **call.options)


def check_answer(call: Call) -> None:
    value, gradients = run(call, getattr(ops, call.op))
    reference = getattr(ops, f"{call.op}_reference")
    truth, true_gradients = run(call, reference, torch.float64)
    eager, eager_gradients = run(call, reference)
    if call.op == "reflect_pad2d":
        assert same_values(value, eager)
    compare(value, eager, truth, "value", terms=cancelling_terms(call, "value"))
    where = away_from_kinks(call)
    for name, gradient in gradients.items():
        assert gradient.dtype == call.operands[name].dtype
        chosen = where if where is not None and where.shape == gradient.shape else None
        if where is not None and chosen is None:  # weight and bias: sums over all planes
            chosen = where.all(2).all(2).all(0)
        terms = cancelling_terms(call, name)
        if name in ("weight", "bias"):  # sums of what x's dtype has rounded
            units = EPS[call.operands["x"].dtype] / EPS[gradient.dtype]
            terms = max(terms, units * largest(true_gradients[name]))
        truth = true_gradients[name]
        if call.op == "generator_loss":
            chosen, terms = written_by_forward(call, name, truth)
        compare(gradient, eager_gradients[name], truth, name, chosen, terms)


def run(call: Call, function, dtype: torch.dtype | None = None):
    leaves = {
        name: operand.detach().to(dtype or operand.dtype).requires_grad_()
        for name, operand in call.operands.items()
    }
    value = function(**leaves, **call.options)
    value = value[0] if isinstance(value, tuple) else value
    if not leaves:
        return value, {}
    narrow = next(iter(call.operands.values())).dtype
    grad = call.gradient(torch.empty(value.shape, dtype=narrow)).to(value.dtype)
    gradients = torch.autograd.grad(value, list(leaves.values()), grad)
    return value.detach(), dict(zip(leaves, gradients, strict=True))


def compare(
    ours: Tensor,
    eager: Tensor,
    truth: Tensor,
    name: str,
    where: Tensor | None = None,
    terms: float = 0.0,
) -> None:
    """Within the budget where the truth is finite; not finite where it is not."""
    finite = truth.isfinite()
    chosen = finite if where is None else finite & where
    # What eager has lost to infinity, in 16 bits say, or would in the last place, nobody can be
    # asked for.
    chosen = chosen & eager.isfinite() & (truth.abs() <= 0.99 * torch.finfo(ours.dtype).max)
    assert not bool(ours.isfinite()[~finite & eager.isnan()].any()), (
        f"{name}: finite, and truth not"
    )
    zero = torch.zeros(())
    assert_within_budget(
        torch.where(chosen, ours, zero.to(ours)),
        torch.where(chosen, eager, zero.to(eager)),
        torch.where(chosen, truth, zero.to(truth)),
        name,
        terms=terms,
    )


def written_by_forward(call: Call, name: str, truth: Tensor) -> tuple[Tensor, float]:
    """Elements that stay finite before total's gradient multiplies them; terms that cancel.

    The pass that sums writes the gradients, for a total whose own is 1; and 1 - tanh^2 is off by
    tanh's rounding, however small it is.
    """
    of_total = call.gradient(torch.empty((), dtype=call.operands[name].dtype)).double().abs()
    most = 0.99 * torch.finfo(call.operands[name].dtype).max
    finite = truth.abs() <= most * of_total
    if not call.options["tanh"] or name.startswith("pred"):
        return finite, 0.0
    derivative = 1 - call.operands[name].detach().double().tanh().square()
    return finite, largest(torch.where(derivative > 0, truth / derivative, 0.0))


def scales(call: Call) -> Tensor:
    """rstd * |weight| of each plane, in float64."""
    x = call.operands["x"].detach().double()
    scale = (x.var((2, 3), correction=0, keepdim=True) + call.options["eps"]).rsqrt()
    weight = call.operands.get("weight")
    return scale if weight is None else scale * weight.detach().double()[:, None, None].abs()


def away_from_kinks(call: Call) -> Tensor | None:
    """Elements whose plane has no activation so near its kink that rounding decides it."""
    if call.op == "l1_loss":
        a, b = (operand.detach().double() for operand in call.operands.values())
        return (a == b) | ((a - b).abs() > 0)
    if call.op != "instance_norm_act" or call.options["act"] == "none":
        return None
    x = call.operands["x"].detach().double()
    if not x.numel():
        return None
    parameters = (call.operands.get(name) for name in ("weight", "bias"))
    weight, bias = (None if p is None else p.detach().double() for p in parameters)
    z = ops.instance_norm_act_reference(x, weight, bias, act="none", eps=call.options["eps"])
    dtype = call.operands["x"].dtype
    # The truth's own mean is off by some of float64's units.
    units = 1024 if dtype == torch.float64 else 8
    band = units * EPS[dtype] * (1 + x.abs().amax((2, 3), keepdim=True) * scales(call))
    near = z.abs() <= band
    return ~near.any(3, keepdim=True).any(2, keepdim=True).expand(x.shape)


def cancelling_terms(call: Call, name: str) -> float:
    """The size of the terms that cancel in a result, whose rounding stays."""
    if call.op == "reflect_conv2d" and call.operands["x"].numel():
        return convolved_magnitudes(call)[name]
    if call.op != "instance_norm_act" or not call.operands["x"].numel():
        return 0.0
    x, scale = call.operands["x"].detach().double(), scales(call)
    mean = x.mean((2, 3), keepdim=True)
    if name == "value":  # x - mean
        size = mean.abs() * scale
    elif name == "x":
        size = 16 * scale
    elif name == "weight":
        rstd = (x.var((2, 3), correction=0, keepdim=True) + call.options["eps"]).rsqrt()
        size = 4 * rstd * ((x - mean).abs() + mean.abs()).sum((2, 3), keepdim=True)
    else:
        return 0.0
    return largest(size)


def convolved_magnitudes(call: Call) -> dict[str, float]:
    """The largest sums of the magnitudes of what a convolution and its gradients add up."""
    leaves = {
        name: torch.where(t.isfinite(), t, 0).double().abs().requires_grad_()
        for name, t in call.operands.items()
    }
    value = ops.reflect_conv2d_reference(**leaves, **(call.options | {"act": "none"}))
    narrow = call.operands["x"].dtype
    grad = call.gradient(torch.empty(value.shape, dtype=narrow)).double().abs()
    gradients = torch.autograd.grad(value, list(leaves.values()), grad)
    magnitudes = {name: largest(g) for name, g in zip(leaves, gradients, strict=True)}
    return magnitudes | {"value": largest(value)}
