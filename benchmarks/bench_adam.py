# SPDX-License-Identifier: MIT
"""A step of Adam for both generators, 16-bit copies with it.

Bytes of a weight: itself and two moments read and written, its gradient read, its copy written. The
peers are PyTorch's fused Adam and its foreach one, each followed by the casts that make the copies.
"""

from __future__ import annotations

from collections.abc import Callable

import harness
import torch
from op_bench import timed
from torch import Tensor, nn

from cyclegan_fast import backend
from cyclegan_fast.models import ResnetGenerator
from cyclegan_fast.training.optimizer import BETA2, Adam

LR, BETA1 = 2e-4, 0.5
HALF = torch.bfloat16


def bench_adam(benchmark, rows, bench_device, with_compile):
    torch.manual_seed(5)
    networks = [ResnetGenerator(3, 3) for _ in range(2)]
    first = [p.detach() for net in networks for p in net.parameters()]
    gradients = [torch.randn_like(p) * 1e-3 for p in first]

    def weights() -> list[nn.Parameter]:
        made = [nn.Parameter(p.clone().to(bench_device)) for p in first]
        for p, gradient in zip(made, gradients, strict=True):
            p.grad = gradient.to(bench_device)
        return made

    makers: dict[str, Callable[[], Contender]] = {"ours": lambda: Ours(weights())}
    if bench_device == "cuda":
        makers["ours in Triton"] = lambda: Ours(weights(), "triton")
    makers["eager"] = lambda: PyTorchs(weights(), fused=True)
    makers["eager, foreach"] = lambda: PyTorchs(weights(), foreach=True)
    if with_compile:
        makers["torch.compile"] = lambda: PyTorchs(weights(), compiled=True, foreach=True)
    contenders = {}
    with backend.record() as served:
        steppers = {name: make() for name, make in makers.items()}
        for stepper in steppers.values():
            for _ in range(3):
                stepper.step()
    for name, stepper in steppers.items():
        _assert_equal(name, stepper, steppers["eager"])
        contenders[name] = stepper.contender(bench_device)
    count = sum(p.numel() for p in first)
    copied = sum(p.numel() for p in first if _has_copy(p))
    row = timed(contenders, 1, 28 * count + 2 * copied, bench_device, cold=True)
    case = f"two generators, {count} weights"
    rows.append(row | {"case": case, "direction": "step", "served": backend.by_op(served)})
    benchmark.extra_info.update(rows[-1])
    benchmark.pedantic(contenders["ours"], rounds=3, iterations=1)


class Contender:
    """Weights, what moves them, and their copies."""

    weights: list[nn.Parameter]
    copies: dict[nn.Parameter, Tensor]

    def __init__(self, weights: list[nn.Parameter]) -> None:
        self.weights = weights
        self.copies = {p: p.detach().to(HALF) for p in weights if _has_copy(p)}

    def step(self) -> None:
        """Move the weights, and renew the copies."""
        raise NotImplementedError

    def contender(self, device: str) -> Callable[[], object]:
        """What is timed: the step, on a GPU a CUDA graph of it."""
        return harness.rotating(self.step, [()], device)[0]


class Ours(Contender):
    """The trainer's optimiser."""

    def __init__(self, weights: list[nn.Parameter], back_end: str = "auto") -> None:
        super().__init__(weights)
        named = ((str(i), p) for i, p in enumerate(weights))
        self._adam = Adam(named, LR, BETA1, self.copies)
        self._back_end = back_end

    def step(self) -> None:
        """As the trainer does."""
        with backend.use_backend(self._back_end):
            self._adam.step()

    def contender(self, device: str) -> Callable[[], object]:
        """The optimiser is told when a graph was captured."""
        made = super().contender(device)
        self._adam.finish_capture()
        return made


class PyTorchs(Contender):
    """torch.optim.Adam, and a cast of all copies."""

    def __init__(
        self, weights: list[nn.Parameter], *, compiled: bool = False, **implementation: bool
    ) -> None:
        super().__init__(weights)
        on_gpu = weights[0].is_cuda
        self._adam = torch.optim.Adam(
            weights, lr=LR, betas=(BETA1, BETA2), capturable=on_gpu, **implementation
        )
        if on_gpu:  # a captured step sees a learning rate that is a tensor
            self._adam.param_groups[0]["lr"] = torch.tensor(LR, device=weights[0].device)
        self._step = torch.compile(self._both) if compiled else self._both

    def step(self) -> None:
        """As a user of PyTorch would."""
        self._step()

    def _both(self) -> None:
        self._adam.step()
        with torch.no_grad():
            torch._foreach_copy_(list(self.copies.values()), list(self.copies))


def _has_copy(weight: Tensor) -> bool:
    return weight.dim() == 4


def _assert_equal(name: str, ours: Contender, theirs: Contender) -> None:
    for p, q in zip(ours.weights, theirs.weights, strict=True):
        difference = (p - q).abs().max().item()
        if not difference <= 1e-3 * LR:  # of what a step moves a weight by
            raise ValueError(f"{name}: a weight differs by {difference:.3g}; not timed")
    for p, q in zip(ours.copies.values(), theirs.copies.values(), strict=True):
        beyond = (p.double() - q.double()).abs() - 2**-7 * q.double().abs()
        if not beyond.max().item() <= 1e-3 * LR:
            raise ValueError(f"{name}: a 16-bit copy differs; not timed")
