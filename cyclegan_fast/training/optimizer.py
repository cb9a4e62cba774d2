# SPDX-License-Identifier: MIT
"""Adam, made to be captured in a CUDA graph and saved without pickle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from cyclegan_fast.ops.adam import Tables, adam

BETA2 = 0.999  # upstream's, not an option there


class Adam:
    """Adam over named parameters, its learning rate a tensor and its moments ready.

    The moments exist from the start rather than from the first step: a captured step finds them
    in place, and a checkpoint has the same tensors at every step. A parameter without a gradient
    (a bias in front of an instance norm, in an accelerated network) is left alone.

    Args:
        named: (name, parameter) pairs; the names appear in `state_dict`.
        lr: learning rate until `set_lr`.
        beta1: first momentum.
        halves: parameter -> its 16-bit copy, which every step writes too.

    Attributes:
        parameters: in order.
        halves: those of its own parameters.
        found_inf: float32 [] on the device: not zero where the next step is to be skipped; or None.

    Reference: Kingma and Ba 2015, arXiv:1412.6980.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        lr: float,
        beta1: float,
        halves: Mapping[nn.Parameter, Tensor] | None = None,
    ) -> None:
        self._named = dict(named)
        self.parameters = list(self._named.values())
        self._beta1 = beta1
        device = self.parameters[0].device
        # The CUDA kernels read a float32 learning rate on the device, the CPU one any float.
        dtype = torch.float32 if device.type == "cuda" else torch.float64
        self._lr = torch.tensor(lr, dtype=dtype, device=device)
        self._steps = [torch.zeros((), device=device) for _ in self.parameters]
        self._exp_avg = [torch.zeros_like(p) for p in self.parameters]
        self._exp_avg_sq = [torch.zeros_like(p) for p in self.parameters]
        self.halves = {p: h for p, h in (halves or {}).items() if p in set(self.parameters)}
        self._tables = Tables()
        self.found_inf: Tensor | None = None

    @property
    def lr(self) -> float:
        """The learning rate (one synchronisation)."""
        return float(self._lr)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate, in place: a captured step sees it."""
        self._lr.fill_(lr)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient, and its 16-bit copy."""
        moved = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        parameters = [self.parameters[i] for i in moved]
        adam(
            [p.detach() for p in parameters],
            [p.grad for p in parameters if p.grad is not None],
            [self._exp_avg[i] for i in moved],
            [self._exp_avg_sq[i] for i in moved],
            [self._steps[i] for i in moved],
            self._lr,
            beta1=self._beta1,
            beta2=BETA2,
            found_inf=self.found_inf,
            halves=[self.halves.get(p) for p in parameters],
            tables=self._tables,
        )

    def finish_capture(self) -> None:
        """Make ready what a step that was captured reads; before the graph's first replay."""
        self._tables.finish_capture()

    def forget_capture(self) -> None:
        """Be as if the capture that has just failed had not been tried."""
        self._tables.forget_capture()
        self.found_inf = None
        self.zero_grad()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the live moments, by "parameter name/step", "/exp_avg" and "/exp_avg_sq"."""
        state = {}
        moments = zip(self._named, self._steps, self._exp_avg, self._exp_avg_sq, strict=True)
        for name, step, exp_avg, exp_avg_sq in moments:
            state[f"{name}/step"] = step
            state[f"{name}/exp_avg"] = exp_avg
            state[f"{name}/exp_avg_sq"] = exp_avg_sq
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy moments into the live tensors."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
