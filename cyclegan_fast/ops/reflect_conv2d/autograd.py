# SPDX-License-Identifier: MIT
"""reflect_conv2d: custom ops, fakes and autograd over the library and over Triton's kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.errors import DoubleBackwardError
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.reflect_conv2d import library
from cyclegan_fast.ops.reflect_conv2d.table import STEM

ACTIVATIONS = ("none", "tanh")


@torch.library.custom_op("cyclegan_fast::reflect_conv2d", mutates_args=())
def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: int,
    stride: int,
    act: str,
    channels_last: bool,
    backend_name: str,
) -> Tensor:
    """Return the convolution of x, padded by reflection, and activated."""
    y = _output(x, weight, padding, stride, channels_last)
    if x.numel() and backend_name == "native":
        y = _laid_out(library.convolved(x, weight, bias, padding, stride, act == "tanh"), y)
    elif x.numel():
        _common.kernels(STEM, backend_name).reflect_conv2d_fwd(
            x, weight, bias, padding, stride, act == "tanh", y
        )
    backend.count(STEM, backend_name)
    return y


@forward.register_fake
def _(x, weight, bias, padding, stride, act, channels_last, backend_name):
    return _output(x, weight, padding, stride, channels_last)


@torch.library.custom_op("cyclegan_fast::reflect_conv2d_backward", mutates_args=())
def backward(
    grad_y: Tensor,
    y: Tensor | None,
    x: Tensor,
    weight: Tensor,
    padding: int,
    stride: int,
    needs_x: bool,
    needs_weight: bool,
    needs_bias: bool,
    backend_name: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias, empty where they are not asked for."""
    needs = (needs_x, needs_weight, needs_bias)
    made = _gradients(x, weight, needs)
    if not x.numel():
        for gradient in made:
            gradient.zero_()
    elif backend_name == "native":
        found = library.gradients(grad_y, y, x, weight, padding, stride, needs)
        grad_x, grad_weight, grad_bias = (
            like if gradient is None else _laid_out(gradient, like)
            for gradient, like in zip(found, made, strict=True)
        )
        made = (grad_x, grad_weight, grad_bias)
    else:
        kernels = _common.kernels(STEM, backend_name)
        size = kernels.reflect_conv2d_workspace(grad_y.shape, weight.shape, x.device.type)
        kernels.reflect_conv2d_bwd(
            grad_y,
            y,
            x,
            weight,
            padding,
            stride,
            *(like if need else None for like, need in zip(made, needs, strict=True)),
            x.new_empty((size,), dtype=torch.float32),
        )
    backend.count(f"{STEM}_backward", backend_name)
    return made


@backward.register_fake
def _(grad_y, y, x, weight, padding, stride, needs_x, needs_weight, needs_bias, backend_name):
    return _gradients(x, weight, (needs_x, needs_weight, needs_bias))


def _output(x: Tensor, weight: Tensor, padding: int, stride: int, channels_last: bool) -> Tensor:
    (n, _, *sides), (channels, _, *kernel) = x.shape, weight.shape
    height, width = (
        (side + 2 * padding - k) // stride + 1 for side, k in zip(sides, kernel, strict=True)
    )
    return torch.empty(
        (n, channels, height, width),
        dtype=x.dtype,
        device=x.device,
        memory_format=memory_format(channels_last),
    )


def memory_format(channels_last: bool) -> torch.memory_format:
    """Return the layout that the flag stands for."""
    return torch.channels_last if channels_last else torch.contiguous_format


def _gradients(
    x: Tensor, weight: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    # A custom op cannot return an optional tensor: an empty one stands for "not asked for".
    return (
        torch.empty_like(x) if needs[0] else x.new_empty((0,)),
        torch.empty_like(weight) if needs[1] else x.new_empty((0,)),
        x.new_empty((weight.shape[0] if needs[2] else 0,)),
    )


def _laid_out(made: Tensor, like: Tensor) -> Tensor:
    """Return what a library has made, copied only if its elements lie otherwise than promised."""
    sides = zip(like.shape, made.stride(), like.stride(), strict=True)
    return made if all(n == 1 or a == b for n, a, b in sides) else like.copy_(made)


def _setup_context(ctx, inputs, output) -> None:
    x, weight, _bias, ctx.padding, ctx.stride, act, ctx.channels_last, ctx.backend_name = inputs
    # Where tanh's argument is not kept, its derivative 1 - y^2 needs its result.
    ctx.save_for_backward(x, weight, output if act == "tanh" else None)


def _autograd(ctx, grad_y):
    x, weight, y = ctx.saved_tensors
    needs = ctx.needs_input_grad[:3]
    gradients = backward(
        grad_y.contiguous(memory_format=memory_format(ctx.channels_last)),
        y,
        x,
        weight,
        ctx.padding,
        ctx.stride,
        *needs,
        ctx.backend_name,
    )
    wanted = (gradient if need else None for gradient, need in zip(gradients, needs, strict=True))
    return *wanted, None, None, None, None, None


forward.register_autograd(_autograd, setup_context=_setup_context)


def _no_second_derivative(ctx, *_grads):
    raise DoubleBackwardError(STEM)


backward.register_autograd(_no_second_derivative, setup_context=lambda ctx, inputs, output: None)
