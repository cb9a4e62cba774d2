# SPDX-License-Identifier: MIT
"""generator_loss: custom ops, fakes and autograd over the kernels of the back ends."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.errors import DoubleBackwardError
from cyclegan_fast.ops import _common

STEM = "generator_loss"
TERMS = 6  # G_A, G_B, cycle_A, cycle_B, idt_A, idt_B

Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("cyclegan_fast::generator_loss", mutates_args=())
def forward(
    pred_a: Tensor,
    pred_b: Tensor,
    rec_a: Tensor,
    rec_b: Tensor,
    idt_a: Tensor | None,
    idt_b: Tensor | None,
    real_a: Tensor,
    real_b: Tensor,
    weights: Tensor,
    scale: Tensor | None,
    tanh: bool,
    wants_gradients: bool,
    backend_name: str,
) -> Outputs:
    """Return total, losses, and the gradient of total in each of the six that were made."""
    made = (pred_a, pred_b, rec_a, rec_b, idt_a, idt_b)
    total, losses, *gradients = _outputs(made, wants_gradients)
    kernels = _common.kernels(STEM, backend_name)
    size = kernels.generator_loss_workspace(
        pred_a.numel(), pred_b.numel(), rec_a.numel(), rec_b.numel()
    )
    kernels.generator_loss_fwd(
        *made,
        real_a,
        real_b,
        weights,
        scale,
        tanh,
        losses,
        total,
        *(gradient if gradient.numel() else None for gradient in gradients),
        losses.new_empty((size,)),
    )
    backend.count(STEM, backend_name)
    return total, losses, *gradients  # type: ignore[return-value]


@forward.register_fake
def _(*arguments):
    return _outputs(arguments[:TERMS], arguments[11])


def _outputs(made: tuple[Tensor | None, ...], wants_gradients: bool) -> Outputs:
    first = made[0]
    if first is None:
        raise TypeError(f"{STEM}: pred_a must be a tensor, got None")
    total = first.new_empty((), dtype=_common.accumulator(first.dtype))
    # A custom op cannot return an optional tensor: an empty one stands for "not asked for".
    gradients = (
        torch.empty_like(x) if x is not None and wants_gradients else first.new_empty((0,))
        for x in made
    )
    return total, total.new_empty((TERMS,)), *gradients  # type: ignore[return-value]


@torch.library.custom_op("cyclegan_fast::generator_loss_backward", mutates_args=())
def _backward(
    grad_total: Tensor,
    grad_pred_a: Tensor,
    grad_pred_b: Tensor,
    grad_rec_a: Tensor,
    grad_rec_b: Tensor,
    grad_idt_a: Tensor,
    grad_idt_b: Tensor,
    wanted: list[bool],
    made: list[Tensor],
    backend_name: str,
) -> Gradients:
    # Of what was made nothing is read; it leads a second derivative to the error it must meet.
    gradients = (grad_pred_a, grad_pred_b, grad_rec_a, grad_rec_b, grad_idt_a, grad_idt_b)
    scaled = _scaled(gradients, wanted)
    given = [
        (gradient, out) if out.numel() else (None, None)
        for gradient, out in zip(gradients, scaled, strict=True)
    ]
    _common.kernels(STEM, backend_name).generator_loss_bwd(
        grad_total, *(gradient for gradient, _ in given), *(out for _, out in given)
    )
    backend.count(f"{STEM}_backward", backend_name)
    return scaled


@_backward.register_fake
def _(_grad_total, *arguments):
    return _scaled(arguments[:TERMS], arguments[TERMS])


def _scaled(gradients: tuple[Tensor, ...], wanted: list[bool]) -> Gradients:
    scaled = [
        torch.empty_like(gradient) if want else gradient.new_empty((0,))
        for gradient, want in zip(gradients, wanted, strict=True)
    ]
    return tuple(scaled)  # type: ignore[return-value]


def _setup_context(ctx, inputs, output) -> None:
    ctx.backend_name = inputs[-1]
    _total, losses, *gradients = output
    ctx.mark_non_differentiable(losses, *gradients)
    ctx.save_for_backward(*gradients, *(x for x in inputs[:TERMS] if x is not None))


def _autograd(ctx, grad_total, *_rest):
    wanted = [bool(needed) for needed in ctx.needs_input_grad[:TERMS]]
    gradients, made = ctx.saved_tensors[:TERMS], list(ctx.saved_tensors[TERMS:])
    scaled = _backward(grad_total, *gradients, wanted, made, ctx.backend_name)
    found = [gradient if want else None for gradient, want in zip(scaled, wanted, strict=True)]
    return (*found, *[None] * 7)


forward.register_autograd(_autograd, setup_context=_setup_context)


def _no_second_derivative(ctx, *_grads):
    raise DoubleBackwardError(STEM)


_backward.register_autograd(_no_second_derivative, setup_context=lambda ctx, inputs, output: None)
