# SPDX-License-Identifier: MIT
"""One call of reflect_conv2d, compared with float64."""

from __future__ import annotations

import torch
from numerics import assert_within_budget

from cyclegan_fast.ops import reflect_conv2d, reflect_conv2d_reference

NAMES = ("x", "weight", "bias")


def operands(shape, weight_shape, dtype, device, memory_format=torch.contiguous_format, seed=0):
    """x off centre, a weight and a bias that keep tanh away from its ends."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*sizes):
        return torch.randn(sizes, generator=generator, dtype=torch.float64)

    fan = weight_shape[1] * weight_shape[2] * weight_shape[3]
    x = drawn(*shape) + 0.5
    weight, bias = drawn(*weight_shape) * (0.5 / fan**0.5), drawn(weight_shape[0])
    x, weight = (t.contiguous(memory_format=memory_format) for t in (x, weight))
    return tuple(t.to(device, dtype).requires_grad_() for t in (x, weight, bias))


def check(leaves, padding, stride, act, seed=1):
    """Fail unless value and gradients are within the budget; return the value."""
    y = reflect_conv2d(*leaves, padding=padding, stride=stride, act=act)
    generator = torch.Generator().manual_seed(seed)
    grad = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y)
    ours = (y, *torch.autograd.grad(y, leaves, grad))
    # On the CPU: CUDA's own deterministic padding may read out of bounds (pytorch#193694).
    dtype = leaves[0].dtype
    eager, truth = (
        plain(leaves, grad, padding, stride, act, wide) for wide in (dtype, torch.float64)
    )
    for name, values in zip(("y", *NAMES), zip(ours, eager, truth, strict=True), strict=True):
        assert_within_budget(values[0].cpu(), *values[1:], name)
    return y


def plain(leaves, grad, padding, stride, act, dtype):
    others = [leaf.detach().cpu().to(dtype).requires_grad_() for leaf in leaves]
    y = reflect_conv2d_reference(*others, padding=padding, stride=stride, act=act)
    return (y, *torch.autograd.grad(y, others, grad.cpu().to(dtype)))
