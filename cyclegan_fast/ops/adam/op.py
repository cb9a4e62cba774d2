# SPDX-License-Identifier: MIT
"""adam: checks and custom op; the kernels live behind the back ends."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.adam.reference import adam_reference
from cyclegan_fast.ops.adam.tables import Tables

STEM = "adam"
HALVES = (torch.float16, torch.bfloat16)


def _native_probe(device_type: str, dtype: torch.dtype) -> str | None:
    """PyTorch's own fused kernel: on a CPU and on a GPU."""
    if dtype not in (torch.float32, torch.float64):
        return f"{dtype} is not a dtype of weights: they are float32 or float64"
    return None if device_type in ("cpu", "cuda") else f"no fused kernel on {device_type!r}"


def _triton_probe(device_type: str, dtype: torch.dtype) -> str | None:
    if dtype != torch.float32:
        return f"its kernel updates float32 weights, not {dtype}"
    return _common.triton_probe(device_type, dtype)


backend.register(
    STEM,
    {"native": _native_probe, "triton": _triton_probe},
    # By bytes: PyTorch's moves 28 a weight, and a cast for the 16-bit copy 6 more; ours 30.
    {"cpu": ("native", "reference"), "cuda": ("triton", "native", "reference")},
)


@torch.no_grad()
def adam(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[Tensor],
    lr: Tensor,
    *,
    beta1: float = 0.5,
    beta2: float = 0.999,
    eps: float = 1e-8,
    found_inf: Tensor | None = None,
    halves: list[Tensor | None] | None = None,
    tables: Tables | None = None,
) -> None:
    """One step of Adam for all tensors of an optimiser, in place, and their 16-bit copies with it.

        k = step + 1
        m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
        p = p - lr / (1 - beta1^k) m / (sqrt(v / (1 - beta2^k)) + eps),  half = p

    Args:
        params: float32 (or float64, then not in Triton), any shapes; dense, in any layout.
        grads: like params, one each; one of another layout is copied.
        exp_avgs: m, like params, in their layouts.
        exp_avg_sqs: v, likewise.
        steps: float32 [] each: steps made so far.
        lr: [] on the device, float32 (on a CPU float64 too).
        beta1: decay of m, 0 <= beta1 < 1.
        beta2: decay of v, likewise.
        eps: added to the root.
        found_inf: float32 [] on the device; not zero where gradients overflowed: then nothing is
            written and no step is counted. None: never.
        halves: float16 or bfloat16, like params in their layouts; or None for those, or for all,
            of which no copy is kept.
        tables: kept by the caller from step to step, see `Tables`; needed where a CUDA graph is
            captured.

    Raises:
        ValueError: lists of different lengths, or tensors of different shapes, dtypes, devices.
        BackendUnavailableError: a back end chosen by name cannot serve.

    Gradients: none.

    Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1, its last line as in section 2's end.
    """
    halves = halves or [None] * len(params)
    if not params:
        return
    _check((params, grads, exp_avgs, exp_avg_sqs), steps, halves)
    grads = [
        grad if _same_strides(grad, param) else torch.empty_like(param).copy_(grad)
        for param, grad in zip(params, grads, strict=True)
    ]
    chosen = backend.resolve(STEM, params[0].device.type, params[0].dtype)
    if chosen == "reference":
        adam_reference(
            params, grads, exp_avgs, exp_avg_sqs, steps, lr,
            beta1=beta1, beta2=beta2, eps=eps, found_inf=found_inf, halves=halves,
        )  # fmt: skip
    elif chosen == "native":
        _native(
            params, grads, exp_avgs, exp_avg_sqs, steps, lr, beta1, beta2, eps, found_inf, halves
        )
    else:
        groups = (params, grads, exp_avgs, exp_avg_sqs, steps)
        table = (tables or Tables()).find(groups, halves)
        kept = [half for half in halves if half is not None]
        _update(
            params, grads, exp_avgs, exp_avg_sqs, steps, lr, beta1, beta2, eps, found_inf, kept,
            *table,
        )  # fmt: skip
    backend.count(STEM, chosen)


def _native(
    params, grads, exp_avgs, exp_avg_sqs, steps, lr, beta1, beta2, eps, found_inf, halves
) -> None:
    torch._foreach_add_(steps, 1)
    torch._fused_adam_(
        params, grads, exp_avgs, exp_avg_sqs, [], steps,
        lr=lr, beta1=beta1, beta2=beta2, weight_decay=0, eps=eps, amsgrad=False, maximize=False,
        grad_scale=None, found_inf=found_inf,
    )  # fmt: skip
    if found_inf is not None:
        torch._foreach_sub_(steps, [found_inf] * len(steps))
    kept = [(half, param) for half, param in zip(halves, params, strict=True) if half is not None]
    if kept:
        torch._foreach_copy_([half for half, _ in kept], [param for _, param in kept])


@torch.library.custom_op(
    "cyclegan_fast::adam_",
    mutates_args=("params", "exp_avgs", "exp_avg_sqs", "steps", "halves"),
)
def _update(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[Tensor],
    lr: Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    found_inf: Tensor | None,
    halves: list[Tensor],
    rows: Tensor,
    programs: Tensor,
    aligned: bool,
) -> None:
    # The kernel finds the tensors in the table; here they say what is read and what is written.
    _common.kernels(STEM, "triton").adam_update(
        rows,
        programs,
        aligned,
        lr.new_empty((2, len(params)), dtype=torch.float32),
        lr,
        found_inf,
        beta1,
        beta2,
        eps,
        halves[0].dtype if halves else None,
    )


@_update.register_fake
def _(params, *_arguments):
    return None


def _same_strides(a: Tensor, b: Tensor) -> bool:
    """Whether elements of one shape lie alike; strides of nothing and of one say nothing."""
    sizes = zip(a.shape, a.stride(), b.stride(), strict=True)
    return not a.numel() or all(size == 1 or s == t for size, s, t in sizes)


def _check(
    groups: tuple[list[Tensor], ...], steps: list[Tensor], halves: list[Tensor | None]
) -> None:
    params = groups[0]
    names = ("params", "grads", "exp_avgs", "exp_avg_sqs")
    lists: list[tuple[str, Sequence[Tensor | None]]] = [
        *zip(names, groups, strict=True),
        ("halves", halves),
    ]
    for name, tensors in [*lists, ("steps", steps)]:
        if len(tensors) != len(params):
            raise ValueError(
                f"{STEM}: {name} must be as many as params, {len(params)}, got {len(tensors)}"
            )
    dtype, device = params[0].dtype, params[0].device
    for name, tensors in lists:
        wanted = HALVES if name == "halves" else (dtype,)
        first = next((tensor for tensor in tensors if tensor is not None), None)
        for i, (tensor, param) in enumerate(zip(tensors, params, strict=True)):
            if tensor is None or first is None:
                continue
            # A gradient of another layout is copied.
            alike = tensor.shape == param.shape and (
                name == "grads" or _same_strides(tensor, param)
            )
            if not alike:
                raise ValueError(
                    f"{STEM}: {name}[{i}] must have its parameter's shape and strides "
                    f"{tuple(param.shape)} {param.stride()}, got {tuple(tensor.shape)} "
                    f"{tensor.stride()}"
                )
            if tensor.dtype not in wanted or tensor.dtype != first.dtype:
                raise ValueError(
                    f"{STEM}: {name}[{i}] must be {' or '.join(map(str, wanted))} as the others, "
                    f"got {tensor.dtype}"
                )
            if tensor.device != device:
                raise ValueError(f"{STEM}: {name}[{i}] must be on {device}, got {tensor.device}")
    for i, param in enumerate(params):
        if _common.dense(param) is not param:
            raise ValueError(
                f"{STEM}: params[{i}] must fill one stretch of memory, got strides {param.stride()}"
            )
    for i, step in enumerate(steps):
        if step.dtype != torch.float32 or step.dim() or step.device != device:
            raise ValueError(
                f"{STEM}: steps[{i}] must be float32 [] on {device}, got {step.dtype} "
                f"{list(step.shape)} on {step.device}"
            )
