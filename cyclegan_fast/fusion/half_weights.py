# SPDX-License-Identifier: MIT
"""16-bit copies of weights that an optimiser keeps: a walk reads them instead of casting.

Autocast casts every weight of a convolution once in each of its regions. Adam holds the new weight
in a register when it writes it, and writes the copy too (ops/adam). Both have the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn


class HalfWeights:
    """The copies of some parameters, and which version of the parameter each is a copy of.

    Args:
        copies: parameter -> float16 or bfloat16 tensor of its shape and strides, up to date.
    """

    def __init__(self, copies: Mapping[nn.Parameter, Tensor]) -> None:
        self._copies = dict(copies)
        self._versions = {parameter: parameter._version for parameter in self._copies}
        # By whether gradients are wanted, which a network that is frozen for a while says anew.
        self._in_use: dict[tuple[nn.Parameter, bool], Tensor] = {}

    def refresh(self) -> None:
        """Copy anew the parameters that somebody changed in place (a load, a user's own step).

        What bypasses PyTorch's counting of changes (`parameter.data`) is not seen.
        """
        for parameter, copy in self._copies.items():
            if parameter._version != self._versions[parameter]:
                with torch.no_grad():
                    copy.copy_(parameter)
                self._versions[parameter] = parameter._version

    def written(self, parameters: Iterable[nn.Parameter]) -> None:
        """Note that these parameters' copies have been written with them."""
        for parameter in parameters:
            self._versions[parameter] = parameter._version

    def copy_of(self, parameter: nn.Parameter) -> Tensor | None:
        """Return a parameter's copy, without a path back; None if it has none."""
        return self._copies.get(parameter)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let walks inside the block read the copies; each is one node of the graph for all reads.

        So gradients of several passes are added in 16 bits and cast once, as under autocast.
        """
        self.refresh()
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)
            self._in_use.clear()

    def read(self, parameter: nn.Parameter) -> Tensor:
        """Return the copy with a path back to the parameter, or the parameter if it has none."""
        key = parameter, parameter.requires_grad
        found = self._in_use.get(key)
        if found is None:
            copy = self._copies.get(parameter)
            if copy is None:
                return parameter
            found = self._in_use[key] = _Copy.apply(parameter, copy)
        return found


_current: ContextVar[HalfWeights | None] = ContextVar("half_weights", default=None)


def read(parameter: Any) -> Any:
    """Return what a walk is to use for a parameter of a convolution."""
    weights = _current.get()
    if weights is None or not isinstance(parameter, nn.Parameter):
        return parameter
    return weights.read(parameter)


class _Copy(torch.autograd.Function):
    """The copy, to which gradients come in 16 bits and leave in the parameter's dtype."""

    @staticmethod
    def forward(parameter: Tensor, copy: Tensor) -> Tensor:
        return copy.detach()  # unlike a view, with the strides of sides of one kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.dtype = inputs[0].dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.to(ctx.dtype), None
