# SPDX-License-Identifier: MIT
"""Run each op's kernels on this machine against its reference in float64."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cyclegan_fast import backend, ops

Arguments = tuple[list[Any], dict[str, Any]]
Call = Callable[..., Tensor]  # of the op, and of what Arguments holds


@dataclass(frozen=True)
class Check:
    """One op on one device by one back end.

    Attributes:
        op: the stem.
        device: "cpu" or "cuda".
        backend: who computed.
        error: largest error of the result and the gradients against float64.
        allowed: twice plain PyTorch's own error in float32, and two units in the last place.
        failure: why nothing could be computed; None otherwise.
    """

    op: str
    device: str
    backend: str
    error: float
    allowed: float
    failure: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the kernel is as exact as plain PyTorch."""
        return self.failure is None and self.error <= self.allowed


def stems() -> list[str]:
    """Return the ops there are."""
    ends = "_reference"
    return [name.removesuffix(ends) for name in ops.__all__ if name.endswith(ends)]


# Off-centre inputs, odd sizes. Kept away from the kink of ReLU and |x|, where two right answers
# differ: the seed below gives no value within 1e-5 of it.
def _instance_norm_act(randn: Callable[..., Tensor]) -> Arguments:
    x, residual = randn(2, 5, 9, 7) + 3, randn(2, 5, 9, 7)
    return [x, randn(5), randn(5)], {"act": "leaky_relu", "residual": residual, "pad": 2}


def _reflect_pad2d(randn: Callable[..., Tensor]) -> Arguments:
    return [randn(2, 3, 9, 7), 3], {}


def _reflect_conv2d(randn: Callable[..., Tensor]) -> Arguments:
    return [randn(2, 5, 9, 7), randn(6, 5, 3, 3) / 7, randn(6)], {"padding": 1, "act": "tanh"}


def _loss(randn: Callable[..., Tensor]) -> Arguments:
    return [randn(2, 1, 9, 7) + 3, randn(2, 1, 9, 7)], {}


def _generator_loss(randn: Callable[..., Tensor]) -> Arguments:
    prediction, picture = (2, 1, 5, 4), (2, 3, 9, 7)
    return [randn(*shape) for shape in (*[prediction] * 2, *[picture] * 4)], {}


def _adam(randn: Callable[..., Tensor]) -> Arguments:
    return [randn(5, 3, 3, 3), randn(7)], {}


def _total(op: Callable[..., Any], *made: Tensor) -> Tensor:
    originals = [torch.full_like(x, 0.3) for x in made[2:4]]
    weights = torch.tensor([10.0, 5.0, 2.5, 0.5], device=made[0].device, dtype=made[0].dtype)
    total: Tensor = op(*made, *originals, weights, tanh=True)[0]
    return total


def _stepped(op: Callable[..., Any], *parameters: Tensor) -> Tensor:
    """Return the parameters after two steps, in which each is its own gradient."""
    moved = [p.detach().clone() for p in parameters]
    moments = [[torch.zeros_like(p) for p in moved] for _ in range(2)]
    steps = [torch.zeros((), device=p.device) for p in moved]
    lr = torch.tensor(2e-2, device=moved[0].device)
    for _ in range(2):
        op(moved, [p.detach() for p in parameters], *moments, steps, lr)
    return torch.cat([p.flatten() for p in moved])


def _pool_exchange(randn: Callable[..., Tensor]) -> Arguments:
    return [randn(4, 3, 9, 7), randn(2, 3, 9, 7)], {}


def _exchanged(op: Callable[..., Any], rows: Tensor, pictures: Tensor) -> Tensor:
    """Return what is shown, and the rows after."""
    rows = rows.detach().clone()
    take, put = (torch.tensor(numbers, device=rows.device) for numbers in ([1, 4], [1, 0]))
    shown = op(rows, pictures.detach(), take, put)
    return torch.cat([shown, rows[:-1]])


def _augment(randn: Callable[..., Tensor]) -> Arguments:
    return [randn(1)], {}


def _augmented(op: Callable[..., Any], like: Tensor) -> Tensor:
    """Return two pictures, one enlarged and one shrunk, on the device of a tensor."""
    levels = np.arange(9 * 7 * 3, dtype=np.uint8).reshape(9, 7, 3)
    packed = ops.PackedPictures.pack([levels, levels], [(11, 12), (5, 6)]).to(like.device)
    picks = torch.tensor([[0, 1, 2, 0], [1, 0, 1, 1]], device=like.device)
    made: Tensor = op(packed, picks, (5, 4), dtype=like.dtype)
    return made


# What is called otherwise than with its arguments for a tensor.
CALLS: dict[str, Call] = {
    "generator_loss": _total,
    "adam": _stepped,
    "pool_exchange": _exchanged,
    "augment": _augmented,
}

SAMPLES: dict[str, Callable[[Callable[..., Tensor]], Arguments]] = {
    "instance_norm_act": _instance_norm_act,
    "reflect_pad2d": _reflect_pad2d,
    "reflect_conv2d": _reflect_conv2d,
    "l1_loss": _loss,
    "lsgan_loss": _loss,
    "generator_loss": _generator_loss,
    "adam": _adam,
    "pool_exchange": _pool_exchange,
    "augment": _augment,
}


def check(op: str, device: str, name: str) -> Check:
    """Compute an op and its gradients by one back end, and compare with the float64 reference."""
    reference = getattr(ops, f"{op}_reference")
    try:
        truth = _results(reference, op, device, torch.float64)
        plain = _results(reference, op, device, torch.float32)
        with backend.use_backend(name):
            ours = _results(getattr(ops, op), op, device, torch.float32)
    except Exception as raised:  # whatever a broken installation raises belongs into the table
        return Check(op, device, name, float("nan"), 0.0, f"{type(raised).__name__}: {raised}")
    epsilon = torch.finfo(torch.float32).eps
    error = allowed = 0.0
    for true, eager, mine in zip(truth, plain, ours, strict=True):
        floor = 2 * epsilon * float(true.abs().max())
        budget = 2 * float((eager.double() - true).abs().max()) + floor
        difference = float((mine.double() - true).abs().max())
        # The pair that comes nearest to its budget, or exceeds it most.
        if not error or difference * allowed > error * budget or difference != difference:
            error, allowed = difference, budget
    return Check(op, device, name, error, allowed)


def _results(
    function: Callable[..., Tensor], op: str, device: str, dtype: torch.dtype
) -> list[Tensor]:
    """Return the result and the gradients of every tensor argument, for fixed random inputs."""
    generator = torch.Generator().manual_seed(5)

    def randn(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float64).float()
        return values.to(device=device, dtype=dtype).requires_grad_()

    arguments, options = SAMPLES[op](randn)
    everything = [*arguments, *options.values()]
    leaves = [a.detach().requires_grad_() if isinstance(a, Tensor) else a for a in everything]
    named = dict(zip(options, leaves[len(arguments) :], strict=True))
    if op in CALLS:
        function = functools.partial(CALLS[op], function)
    result = function(*leaves[: len(arguments)], **named)
    if not result.requires_grad:
        return [result]
    upstream = torch.randn(result.shape, generator=generator, dtype=torch.float64).float()
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    gradients = torch.autograd.grad(result, tensors, upstream.to(result))
    return [result.detach(), *gradients]
