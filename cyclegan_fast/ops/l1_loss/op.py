# SPDX-License-Identifier: MIT
"""l1_loss: checks, custom op, fake, autograd; the kernels live behind the back ends."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.errors import DoubleBackwardError
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.l1_loss.reference import l1_loss_reference

STEM = "l1_loss"

backend.register(STEM, _common.PROBES, _common.PREFERENCE)


def l1_loss(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of two tensors, the cycle-consistency and identity loss.

        loss = sum |a - b| / numel,  d loss / d a = sign(a - b) / numel = -d loss / d b

    Args:
        a: any shape, at least one element; float16, bfloat16, float32 or float64.
        b: the same shape and device; another floating dtype is promoted with a's.

    Returns:
        0-d float32 (float64 for float64), summed in two deterministic stages.

    Raises:
        TypeError: a dtype that is not floating-point.
        ValueError: different shapes or devices, or no elements.
        BackendUnavailableError: a back end chosen by name cannot serve.
        DoubleBackwardError: a second derivative was asked of a fused back end.

    Gradients: first order in a and b; sign(0) = sign(NaN) = 0, as PyTorch's. The pass that sums
    notes the signs, a byte each, and backward reads these alone.

    Source: Zhu et al. 2017, arXiv:1703.10593, equation 2 and section 5.2.
    """
    _common.check_pair(STEM, "a", a, "b", b)
    dtype = torch.promote_types(a.dtype, b.dtype)
    chosen = backend.resolve(STEM, a.device.type, dtype)
    if chosen == "reference":
        if not torch.compiler.is_compiling():
            backend.count(STEM, chosen)
        return l1_loss_reference(a, b)
    a, b = _common.same_order(a.to(dtype), b.to(dtype))
    wants_gradient = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
    return _forward(a, b, wants_gradient, chosen)[0]


@torch.library.custom_op("cyclegan_fast::l1_loss", mutates_args=())
def _forward(
    a: Tensor, b: Tensor, wants_gradient: bool, backend_name: str
) -> tuple[Tensor, Tensor]:
    loss, sign = _outputs(a, wants_gradient)
    _common.kernels(STEM, backend_name).l1_loss_fwd(
        a, b, loss, sign if wants_gradient else None, _common.loss_workspace(STEM, backend_name, a)
    )
    backend.count(STEM, backend_name)
    return loss, sign


@_forward.register_fake
def _(a, b, wants_gradient, backend_name):
    return _outputs(a, wants_gradient)


def _outputs(a: Tensor, wants_gradient: bool) -> tuple[Tensor, Tensor]:
    loss = a.new_empty((), dtype=_common.accumulator(a.dtype))
    # A custom op cannot return an optional tensor: an empty one stands for "not asked for".
    sign = a if wants_gradient else a.new_empty((0,))
    return loss, torch.empty_like(sign, dtype=torch.int8)


@torch.library.custom_op("cyclegan_fast::l1_loss_backward", mutates_args=())
def _backward(
    grad_loss: Tensor,
    sign: Tensor,
    a: Tensor,
    b: Tensor,
    with_a: bool,
    with_b: bool,
    backend_name: str,
) -> tuple[Tensor, Tensor]:
    # Of a and b nothing is read; they lead a second derivative to the error that it must meet.
    grad_a, grad_b = _gradients(a, with_a, with_b)
    _common.kernels(STEM, backend_name).l1_loss_bwd(
        grad_loss, sign, grad_a if with_a else None, grad_b if with_b else None
    )
    backend.count(f"{STEM}_backward", backend_name)
    return grad_a, grad_b


@_backward.register_fake
def _(grad_loss, sign, a, b, with_a, with_b, backend_name):
    return _gradients(a, with_a, with_b)


def _gradients(a: Tensor, with_a: bool, with_b: bool) -> tuple[Tensor, Tensor]:
    def gradient(wanted: bool) -> Tensor:
        return torch.empty_like(a) if wanted else a.new_empty((0,))

    return gradient(with_a), gradient(with_b)


def _setup_context(ctx, inputs, output) -> None:
    a, b, _wants_gradient, ctx.backend_name = inputs
    _loss, sign = output
    ctx.mark_non_differentiable(sign)
    ctx.save_for_backward(sign, a, b)


def _autograd(ctx, grad_loss, _grad_sign):
    needs_a, needs_b = ctx.needs_input_grad[:2]
    grad_a, grad_b = _backward(grad_loss, *ctx.saved_tensors, needs_a, needs_b, ctx.backend_name)
    return grad_a if needs_a else None, grad_b if needs_b else None, None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)


def _no_second_derivative(ctx, *_grads):
    raise DoubleBackwardError(STEM)


_backward.register_autograd(_no_second_derivative, setup_context=lambda ctx, inputs, output: None)
