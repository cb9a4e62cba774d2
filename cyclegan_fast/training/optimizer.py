# SPDX-License-Identifier: MIT
"""Adam, made to be captured in a CUDA graph and saved without pickle."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

BETA2 = 0.999  # upstream's, not an option there
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Adam:
    """torch.optim.Adam over named parameters, its learning rate a tensor and its moments ready.

    The moments exist from the start rather than from the first step: a captured step finds them
    in place, and a checkpoint has the same tensors at every step. A parameter without a gradient
    (a bias in front of an instance norm, in an accelerated network) is left alone.

    Args:
        named: (name, parameter) pairs; the names appear in `state_dict`.
        lr: learning rate until `set_lr`.
        beta1: first momentum.

    Reference: Kingma and Ba 2015, arXiv:1412.6980.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], lr: float, beta1: float) -> None:
        self._named = dict(named)
        parameters = list(self._named.values())
        device = parameters[0].device
        on_gpu = device.type == "cuda"
        # The CUDA kernel reads a float32 learning rate on the device, the CPU one any float.
        dtype = torch.float32 if on_gpu else torch.float64
        self._lr = torch.tensor(lr, dtype=dtype, device=device)
        self.optimizer = torch.optim.Adam(
            parameters, lr=self._lr, betas=(beta1, BETA2), fused=True, capturable=on_gpu
        )
        for parameter in parameters:
            self.optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }

    def set_lr(self, lr: float) -> None:
        """Set the learning rate, in place: a captured step sees it."""
        self._lr.fill_(lr)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        self.optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the live moments, by "parameter name/step", "/exp_avg" and "/exp_avg_sq"."""
        return {
            f"{name}/{moment}": self.optimizer.state[parameter][moment]
            for name, parameter in self._named.items()
            for moment in _MOMENTS
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy moments into the live tensors."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
