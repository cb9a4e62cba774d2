# SPDX-License-Identifier: MIT
"""generator_loss: the function users call, and what it accepts."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.generator_loss.autograd import STEM, forward
from cyclegan_fast.ops.generator_loss.reference import generator_loss_reference

backend.register(STEM, _common.PROBES, _common.PREFERENCE)


def generator_loss(
    pred_A: Tensor,
    pred_B: Tensor,
    rec_A: Tensor,
    rec_B: Tensor,
    idt_A: Tensor | None,
    idt_B: Tensor | None,
    real_A: Tensor,
    real_B: Tensor,
    weights: Tensor,
    *,
    scale: Tensor | None = None,
    tanh: bool = False,
) -> tuple[Tensor, Tensor]:
    """All losses of a step of CycleGAN's generators, values and gradients, in one pass.

        total = scale (G_A + G_B + cycle_A + cycle_B + idt_A + idt_B)
        G_A = mean (pred_A - 1)^2,        G_B = mean (pred_B - 1)^2
        cycle_A = w[0] mean |rec_A - A|,  cycle_B = w[1] mean |rec_B - B|
        idt_A = w[2] mean |idt_A - B|,    idt_B = w[3] mean |idt_B - A|

    Each original is read once. Gradients are written by the pass that sums, after the scale is
    applied, so that in float16 they do not vanish; backward multiplies them by total's own, and
    what had left float16's range before stays infinite.

    Args:
        pred_A: D_A(G_A(A)), any shape; float16, bfloat16, float32 or float64, as all that is made.
        pred_B: D_B(G_B(B)), any shape.
        rec_A: G_B(G_A(A)), [N, C, H, W] or any shape, in any layout.
        rec_B: G_A(G_B(B)), likewise.
        idt_A: G_A(B), rec_B's shape; None: the loss is left out.
        idt_B: G_B(A), rec_A's shape; None: the loss is left out.
        real_A: A, rec_A's shape, any floating dtype; no gradient.
        real_B: B, rec_B's shape, real_A's dtype; no gradient.
        weights: [4] float32 (float64 for float64) on the device: of cycle_A, cycle_B, idt_A, idt_B.
        scale: [] of weights' dtype on the device, or None for 1: the loss scale of float16.
        tanh: rec and idt are what a network made before its last tanh; it is taken here, in the
            accumulator's precision, and gradients are those of what was handed on.

    Returns:
        total, 0-d, and losses, [6] in the order above without the scale, no gradient; float32
        (float64 for float64), summed in two deterministic stages.

    Raises:
        TypeError: a dtype that is not floating-point.
        ValueError: different shapes, dtypes or devices, or no elements.
        BackendUnavailableError: a back end chosen by name cannot serve.
        DoubleBackwardError: a second derivative was asked of a fused back end.

    Gradients: first order in what is made; sign(0) = sign(NaN) = 0, as PyTorch's.

    Source: Zhu et al. 2017, arXiv:1703.10593, equations 1 to 3 and section 5.2, in the
    least-squares form of section 4 (Mao et al. 2017, arXiv:1611.04076).
    """
    _check(pred_A, pred_B, rec_A, rec_B, idt_A, idt_B, real_A, real_B, weights, scale)
    chosen = backend.resolve(STEM, pred_A.device.type, pred_A.dtype)
    if chosen == "reference":
        if not torch.compiler.is_compiling():
            backend.count(STEM, chosen)
        return generator_loss_reference(
            pred_A, pred_B, rec_A, rec_B, idt_A, idt_B, real_A, real_B, weights,
            scale=scale, tanh=tanh,
        )  # fmt: skip
    rec_A, rec_B = _common.dense(rec_A), _common.dense(rec_B)
    made = (pred_A, pred_B, rec_A, rec_B, idt_A, idt_B)
    grads = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in made)
    wide = _common.accumulator(pred_A.dtype)
    target = real_A.dtype if real_A.dtype == pred_A.dtype else wide
    total, losses, *_ = forward(
        _common.dense(pred_A),
        _common.dense(pred_B),
        rec_A,
        rec_B,
        None if idt_A is None else _common.same_order(rec_B, idt_A)[1],
        None if idt_B is None else _common.same_order(rec_A, idt_B)[1],
        _common.same_order(rec_A, real_A.detach().to(target))[1],
        _common.same_order(rec_B, real_B.detach().to(target))[1],
        weights,
        scale,
        tanh,
        grads,
        chosen,
    )
    return total, losses


def _check(
    pred_A: Tensor,
    pred_B: Tensor,
    rec_A: Tensor,
    rec_B: Tensor,
    idt_A: Tensor | None,
    idt_B: Tensor | None,
    real_A: Tensor,
    real_B: Tensor,
    weights: Tensor,
    scale: Tensor | None,
) -> None:
    for name, x in (("pred_A", pred_A), ("pred_B", pred_B), ("rec_A", rec_A), ("rec_B", rec_B)):
        _common.check_elements(STEM, name, x)
    pairs = [("rec_A", rec_A, "real_A", real_A), ("rec_B", rec_B, "real_B", real_B)]
    pairs += [("rec_B", rec_B, "idt_A", idt_A)] if idt_A is not None else []
    pairs += [("rec_A", rec_A, "idt_B", idt_B)] if idt_B is not None else []
    for first, a, second, b in pairs:
        _common.check_pair(STEM, first, a, second, b)
    made = {"pred_B": pred_B, "rec_A": rec_A, "rec_B": rec_B, "idt_A": idt_A, "idt_B": idt_B}
    for name, tensor in made.items():
        if tensor is None:
            continue
        if tensor.dtype != pred_A.dtype:
            raise ValueError(
                f"{STEM}: {name} must have pred_A's dtype {pred_A.dtype}, got {tensor.dtype}"
            )
        if tensor.device != pred_A.device:
            raise ValueError(
                f"{STEM}: {name} must be on pred_A's device {pred_A.device}, got {tensor.device}"
            )
    if real_B.dtype != real_A.dtype:
        raise ValueError(
            f"{STEM}: real_B must have real_A's dtype {real_A.dtype}, got {real_B.dtype}"
        )
    wide = _common.accumulator(pred_A.dtype)
    for name, scalars, shape in (("weights", weights, (4,)), ("scale", scale, ())):
        if scalars is None:
            continue
        if not isinstance(scalars, Tensor):
            raise TypeError(f"{STEM}: {name} must be a tensor, got {type(scalars).__name__}")
        if scalars.shape != shape or scalars.dtype != wide or scalars.device != pred_A.device:
            raise ValueError(
                f"{STEM}: {name} must be {wide} {list(shape)} on {pred_A.device}, got "
                f"{scalars.dtype} {list(scalars.shape)} on {scalars.device}"
            )
