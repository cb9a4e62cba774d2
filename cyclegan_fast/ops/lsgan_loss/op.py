# SPDX-License-Identifier: MIT
"""lsgan_loss: checks, custom op, fake, autograd; the kernels live behind the back ends."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.errors import DoubleBackwardError
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.lsgan_loss.reference import lsgan_loss_reference

STEM = "lsgan_loss"

backend.register(STEM, _common.PROBES, _common.PREFERENCE)


def lsgan_loss(pred: Tensor, target: float | bool | Tensor) -> Tensor:
    """Least-squares adversarial loss: mean squared difference of predictions to a target.

        loss = sum (pred - target)^2 / numel,  d loss / d pred = 2 (pred - target) / numel

    Args:
        pred: any shape, at least one element; float16, bfloat16, float32 or float64.
        target: the label as a number or a bool (real True = 1, fake False = 0), or a tensor of
            pred's shape and device.

    Returns:
        0-d float32 (float64 for float64), summed in two deterministic stages.

    Raises:
        TypeError: a dtype that is not floating-point, or a target of another type.
        ValueError: different shapes or devices, or no elements.
        BackendUnavailableError: a back end chosen by name cannot serve.
        DoubleBackwardError: a second derivative was asked of a fused back end.

    Gradients: first order in pred, and in target where it is a tensor.

    Source: Mao et al. 2017, arXiv:1611.04076; Zhu et al. 2017, arXiv:1703.10593, section 4.
    """
    if isinstance(target, Tensor):
        _common.check_pair(STEM, "pred", pred, "target", target)
    else:
        if not isinstance(target, (bool, int, float)):
            raise TypeError(
                f"{STEM}: target must be a number, a bool or a tensor, got {type(target).__name__}"
            )
        _common.check_elements(STEM, "pred", pred)
    chosen = backend.resolve(STEM, pred.device.type, pred.dtype)
    if chosen == "reference":
        if not torch.compiler.is_compiling():
            backend.count(STEM, chosen)
        return lsgan_loss_reference(pred, target)
    if isinstance(target, Tensor):
        dtype = torch.promote_types(pred.dtype, target.dtype)
        pred, target = _common.same_order(pred.to(dtype), target.to(dtype))
        return _forward(pred, target, 0.0, chosen)
    return _forward(_common.dense(pred), None, float(target), chosen)


@torch.library.custom_op("cyclegan_fast::lsgan_loss", mutates_args=())
def _forward(pred: Tensor, target: Tensor | None, target_value: float, backend_name: str) -> Tensor:
    loss = _scalar(pred)
    _common.kernels(STEM, backend_name).lsgan_loss_fwd(
        pred, target, target_value, loss, _common.loss_workspace(STEM, backend_name, pred)
    )
    backend.count(STEM, backend_name)
    return loss


@_forward.register_fake
def _(pred, target, target_value, backend_name):
    return _scalar(pred)


def _scalar(pred: Tensor) -> Tensor:
    return pred.new_empty((), dtype=_common.accumulator(pred.dtype))


@torch.library.custom_op("cyclegan_fast::lsgan_loss_backward", mutates_args=())
def _backward(
    grad_loss: Tensor,
    pred: Tensor,
    target: Tensor | None,
    target_value: float,
    with_pred: bool,
    with_target: bool,
    backend_name: str,
) -> tuple[Tensor, Tensor]:
    grad_pred, grad_target = _gradients(pred, with_pred, with_target)
    _common.kernels(STEM, backend_name).lsgan_loss_bwd(
        grad_loss,
        pred,
        target,
        target_value,
        grad_pred if with_pred else None,
        grad_target if with_target else None,
    )
    backend.count(f"{STEM}_backward", backend_name)
    return grad_pred, grad_target


@_backward.register_fake
def _(grad_loss, pred, target, target_value, with_pred, with_target, backend_name):
    return _gradients(pred, with_pred, with_target)


def _gradients(pred: Tensor, with_pred: bool, with_target: bool) -> tuple[Tensor, Tensor]:
    # A custom op cannot return an optional tensor: an empty one stands for "not asked for".
    def gradient(wanted: bool) -> Tensor:
        return torch.empty_like(pred) if wanted else pred.new_empty((0,))

    return gradient(with_pred), gradient(with_target)


def _setup_context(ctx, inputs, output) -> None:
    pred, target, ctx.target_value, ctx.backend_name = inputs
    ctx.save_for_backward(pred, target)


def _autograd(ctx, grad_loss):
    pred, target = ctx.saved_tensors
    needs_pred, needs_target = ctx.needs_input_grad[:2]
    grad_pred, grad_target = _backward(
        grad_loss, pred, target, ctx.target_value, needs_pred, needs_target, ctx.backend_name
    )
    return grad_pred if needs_pred else None, grad_target if needs_target else None, None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)


def _no_second_derivative(ctx, *_grads):
    raise DoubleBackwardError(STEM)


_backward.register_autograd(_no_second_derivative, setup_context=lambda ctx, inputs, output: None)
