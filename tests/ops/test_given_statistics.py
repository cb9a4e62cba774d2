# SPDX-License-Identifier: MIT
"""instance_norm_act with mean and rstd from whoever made x: same values, same gradients."""

from __future__ import annotations

import pytest
import torch
from norm_case import laid_out
from numerics import assert_within_budget
from torch import Tensor

from cyclegan_fast.ops import instance_norm_act, instance_norm_act_reference
from cyclegan_fast.ops.instance_norm_act import instance_norm_act_and_interior


def statistics(x: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    wide = x.detach().double()
    rstd = (wide.var((2, 3), correction=0) + eps).rsqrt()
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return wide.mean((2, 3)).to(dtype), rstd.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("shape", "act", "pad", "full"),
    [((2, 3, 5, 7), "relu", 2, True), ((1, 70, 12, 9), "leaky_relu", 0, False),
     ((3, 64, 16, 16), "none", 1, True)],
)  # fmt: skip
def test_values_and_gradients(each_backend, device, dtype, layout, shape, act, pad, full):
    generator = torch.Generator().manual_seed(5)

    def random(*size, offset=0.0):
        values = torch.randn(size, generator=generator, dtype=torch.float64) + offset
        return values.to(device).to(dtype)

    n, c, h, w = shape
    x = laid_out(random(*shape, offset=3.0), layout)
    weight, bias = (random(c, offset=1.0), random(c)) if full else (None, None)
    residual = random(n, c, h + 2, w + 2)[:, :, 1:-1, 1:-1] if full else None
    options = {"act": act, "pad": pad, "residual": residual}
    given = statistics(x)
    grad = random(n, c, h + 2 * pad, w + 2 * pad)

    def run(function, to=None, **more):
        cast = {k: v.to(to) if isinstance(v, Tensor) else v for k, v in options.items()}
        leaf = x.detach().to(to or dtype).requires_grad_()
        affine = [None if t is None else t.to(to or dtype) for t in (weight, bias)]
        y = function(leaf, *affine, **(cast if to else options), **more)
        return y, torch.autograd.grad(y, leaf, grad.to(y))[0]

    y, grad_x = run(instance_norm_act, statistics=given)
    truth, _ = run(instance_norm_act_reference, torch.float64)
    eager, _ = run(instance_norm_act_reference)
    assert_within_budget(y, eager, truth, "y")
    # Taken inside or outside, the backward pass is one; statistics are within an ulp or two.
    own, own_grad = run(instance_norm_act)
    far = (own.double() - y.double()).abs().max()
    # PyTorch's own norm of float64 values, which the reference takes, is no more exact than that.
    eps = torch.finfo(dtype).eps * (512 if dtype == torch.float64 else 1)
    assert far <= 4 * eps * truth.abs().max()
    kinks = (grad_x.double() - own_grad.double()).abs() > 8 * eps * (1 + own_grad.abs().max())
    assert kinks.float().mean() <= (0.0 if act == "none" else 0.01)


def test_they_are_read_and_not_taken_again(each_backend, device):
    x = torch.randn(2, 3, 4, 4, device=device)
    mean, rstd = statistics(x)
    y = instance_norm_act(x, act="none", statistics=(mean + 1, rstd * 2))
    expected = (x - (mean + 1)[:, :, None, None]) * (rstd * 2)[:, :, None, None]
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    kept = mean + 1, rstd * 2
    before = [t.clone() for t in kept]
    instance_norm_act(x, statistics=kept)
    assert all(torch.equal(a, b) for a, b in zip(kept, before, strict=True))


def test_with_interior_and_compiled_whole(fused_backend, device):
    x = torch.randn(1, 3, 6, 5, device=device).contiguous(memory_format=torch.channels_last)

    def block(x):
        y, interior = instance_norm_act_and_interior(x, pad=1, statistics=statistics(x))
        return y.sum() + interior.square().sum()

    torch._dynamo.reset()
    results = []
    for function in (block, torch.compile(block, fullgraph=True, backend="aot_eager")):
        leaf = x.clone().requires_grad_()
        results.append(torch.autograd.grad(function(leaf), leaf)[0])
    torch.testing.assert_close(*results)


def test_opcheck(fused_backend, device):
    x = torch.randn(2, 3, 6, 6, device=device, requires_grad=True)
    torch.library.opcheck(
        torch.ops.cyclegan_fast.instance_norm_act.default,
        (x, None, None, None, *statistics(x), "relu", 0.2, 1, 1e-5, False, fused_backend),
    )


@pytest.mark.parametrize(
    "wrong",
    [lambda m: m[:1], lambda m: m.double(), lambda m: m.half(), lambda m: m.t().contiguous().t()],
)
def test_what_does_not_fit_is_refused(wrong):
    x = torch.randn(2, 3, 4, 4)
    mean, rstd = statistics(x)
    with pytest.raises(ValueError, match="statistics' mean must be contiguous torch.float32"):
        instance_norm_act(x, statistics=(wrong(mean), rstd))
    with pytest.raises(ValueError, match="statistics' rstd must be contiguous torch.float32"):
        instance_norm_act(x, statistics=(mean, wrong(rstd)))
    with pytest.raises(ValueError, match="statistics must be mean and rstd, got 1"):
        instance_norm_act(x, statistics=(mean,))
