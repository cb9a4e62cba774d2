# SPDX-License-Identifier: MIT
"""reflect_conv2d: custom ops, fakes and autograd over the library and over Triton's kernels.

Each direction of a call is served by the implementation that the table names for it, by the policy
under which the call was made forward.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.errors import DoubleBackwardError
from cyclegan_fast.ops.reflect_conv2d import library
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight
from cyclegan_fast.ops.reflect_conv2d.layers import Layer
from cyclegan_fast.ops.reflect_conv2d.table import BACKEND_OF, STEM, choose, implementation

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
    policy: str,
) -> Tensor:
    """Return the convolution of x, padded by reflection, and activated."""
    y = _output(x, weight, padding, stride, channels_last)
    name = choose("forward", policy, Layer(x, weight, padding, stride))
    tanh = act == "tanh"
    if x.numel() and name == "library":
        y = _laid_out(library.convolved(x, weight, bias, padding, stride, tanh), y)
    elif x.numel():
        implementation(name).forward([Forward(x, weight, bias, y)], padding, stride, tanh)
    backend.count(STEM, BACKEND_OF[name])
    return y


@forward.register_fake
def _(x, weight, bias, padding, stride, act, channels_last, policy):
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
    policy: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias, empty where they are not asked for."""
    needs = (needs_x, needs_weight, needs_bias)
    made = _gradients(x, weight, needs)
    layer = Layer(x, weight, padding, stride)
    of_x, of_weight = (choose(f"gradient_of_{what}", policy, layer) for what in ("input", "weight"))
    by_library = [of_x == "library", *[of_weight == "library"] * 2]
    if x.numel():
        made = _by_library(grad_y, y, layer, made, needs, by_library)
        if needs_x and not by_library[0]:
            call = OfInput(grad_y, y, weight, made[0])
            implementation(of_x).gradient_of_input([call], padding, stride)
        if (needs_weight or needs_bias) and not by_library[1]:
            kernels = implementation(of_weight)
            size = kernels.workspace(grad_y.shape, weight.shape)
            wanted = (made[1] if needs_weight else None, made[2] if needs_bias else None)
            workspace = x.new_empty((size,), dtype=torch.float32)
            weight_call = OfWeight(grad_y, y, x, *wanted, workspace)
            kernels.gradient_of_weight([weight_call], padding, stride)
    else:
        for gradient in made:
            gradient.zero_()
    served = [of_x] * needs_x + [of_weight] * (needs_weight or needs_bias)
    for name in dict.fromkeys(BACKEND_OF[name] for name in served):
        backend.count(f"{STEM}_backward", name)
    return made


def _by_library(
    grad_y: Tensor,
    y: Tensor | None,
    layer: Layer,
    made: tuple[Tensor, Tensor, Tensor],
    needs: tuple[bool, bool, bool],
    by_library: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients with those that the library makes among them."""
    x, weight, padding, stride, _ = layer
    needs_x, needs_weight, needs_bias = (
        need and library_makes for need, library_makes in zip(needs, by_library, strict=True)
    )
    if not (needs_x or needs_weight or needs_bias):
        return made
    asked = (needs_x, needs_weight, needs_bias)
    found = library.gradients(grad_y, y, x, weight, padding, stride, asked)
    of_x, of_weight, of_bias = (
        like if gradient is None else _laid_out(gradient, like)
        for gradient, like in zip(found, made, strict=True)
    )
    return of_x, of_weight, of_bias


@backward.register_fake
def _(grad_y, y, x, weight, padding, stride, needs_x, needs_weight, needs_bias, policy):
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
    x, weight, _bias, ctx.padding, ctx.stride, act, ctx.channels_last, ctx.policy = inputs
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
        ctx.policy,
    )
    wanted = (gradient if need else None for gradient, need in zip(gradients, needs, strict=True))
    return *wanted, None, None, None, None, None


forward.register_autograd(_autograd, setup_context=_setup_context)


def _no_second_derivative(ctx, *_grads):
    raise DoubleBackwardError(STEM)


backward.register_autograd(_no_second_derivative, setup_context=lambda ctx, inputs, output: None)
