# SPDX-License-Identifier: MIT
"""Exact zero gradients for the convolution biases that an instance norm takes away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cyclegan_fast.fusion.walk import parameter

DEAD_BIAS_GRADS = ("none", "zero")


def with_zero_gradients(
    result: Any, modules: Mapping[str, nn.Module], paths: tuple[str, ...]
) -> Any:
    """Return a network's result such that its backward gives zeros to the biases at the paths."""
    biases = [parameter(modules, path) for path in paths]
    biases = [bias for bias in biases if bias is not None and bias.requires_grad]
    if not biases or not torch.is_grad_enabled():
        return result
    if isinstance(result, Tensor):
        return _Keep.apply(result, *biases) if result.requires_grad else result
    if isinstance(result, tuple | list):
        for i, item in enumerate(result):
            if isinstance(item, Tensor) and item.requires_grad:
                kept = _Keep.apply(item, *biases)
                return type(result)([*result[:i], kept, *result[i + 1 :]])
    return result


class _Keep(torch.autograd.Function):
    @staticmethod
    def forward(result: Tensor, *biases: Tensor) -> Tensor:
        return result.view_as(result)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.like = [(bias.shape, bias.dtype, bias.device) for bias in inputs[1:]]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        zeros = [grad.new_zeros(s, dtype=dtype, device=device) for s, dtype, device in ctx.like]
        return grad, *zeros
