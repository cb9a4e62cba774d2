# SPDX-License-Identifier: MIT
"""reflect_pad2d: checks, custom op, fake, autograd; the kernels live behind the back ends."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.errors import DoubleBackwardError
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.reflect_pad2d.reference import reflect_pad2d_reference

STEM = "reflect_pad2d"

backend.register(STEM, _common.PROBES, _common.PREFERENCE)


def reflect_pad2d(x: Tensor, pad: int) -> Tensor:
    """Reflection padding by the same number of pixels on all four sides.

        y[n, c, i, j] = x[n, c, r(i - pad, H), r(j - pad, W)],
        r(k, n) = -k for k < 0, 2 (n - 1) - k for k >= n, k between

    Args:
        x: [N, C, H, W] float16, bfloat16, float32 or float64; contiguous or channels_last
            (any other layout is copied once).
        pad: pixels mirrored on each side, 0 <= pad < min(H, W).

    Returns:
        [N, C, H + 2 pad, W + 2 pad], dtype and layout of x; x itself for pad = 0.

    Raises:
        TypeError: a dtype that is not floating-point.
        ValueError: wrong rank or pad out of range.
        BackendUnavailableError: a back end chosen by name cannot serve.
        DoubleBackwardError: a second derivative was asked of a fused back end.

    Gradients: first order in x; gathered, so deterministic on every device.
    """
    _common.check_image(STEM, "x", x)
    _common.check_pad(STEM, pad, x.shape[2], x.shape[3])
    if pad == 0:
        return x
    chosen = backend.resolve(STEM, x.device.type, x.dtype)
    if chosen == "reference":
        if not torch.compiler.is_compiling():
            backend.count(STEM, chosen)
        return reflect_pad2d_reference(x, pad)
    return _forward(x.contiguous(memory_format=_common.memory_format(x)), pad, chosen)


@torch.library.custom_op("cyclegan_fast::reflect_pad2d", mutates_args=())
def _forward(x: Tensor, pad: int, backend_name: str) -> Tensor:
    y = _resized(x, 2 * pad)
    if x.numel():
        _common.kernels(STEM, backend_name).reflect_pad2d_fwd(x, pad, y)
    backend.count(STEM, backend_name)
    return y


@_forward.register_fake
def _(x, pad, backend_name):
    return _resized(x, 2 * pad)


@torch.library.custom_op("cyclegan_fast::reflect_pad2d_backward", mutates_args=())
def _backward(grad_y: Tensor, pad: int, backend_name: str) -> Tensor:
    grad_x = _resized(grad_y, -2 * pad)
    if grad_x.numel():
        _common.kernels(STEM, backend_name).reflect_pad2d_bwd(grad_y, pad, grad_x)
    backend.count(f"{STEM}_backward", backend_name)
    return grad_x


@_backward.register_fake
def _(grad_y, pad, backend_name):
    return _resized(grad_y, -2 * pad)


def _resized(x: Tensor, by: int) -> Tensor:
    n, c, h, w = x.shape
    return torch.empty(
        (n, c, h + by, w + by),
        dtype=x.dtype,
        device=x.device,
        memory_format=_common.memory_format(x),
    )


def _setup_context(ctx, inputs, output) -> None:
    x, ctx.pad, ctx.backend_name = inputs
    ctx.memory_format = _common.memory_format(x)


def _autograd(ctx, grad_y):
    grad_y = grad_y.contiguous(memory_format=ctx.memory_format)
    return _backward(grad_y, ctx.pad, ctx.backend_name), None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)


def _no_second_derivative(ctx, *_grads):
    raise DoubleBackwardError(STEM)


_backward.register_autograd(_no_second_derivative, setup_context=lambda ctx, inputs, output: None)
