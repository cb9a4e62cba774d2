# SPDX-License-Identifier: MIT
"""The stand-in for a tensor while a network is traced.

torch.fx's own stand-in answers some questions wrongly and in silence: ``x += y`` becomes ``x + y``
and is not seen under other names of x; ``isinstance(x, torch.Tensor)`` is False; ``hasattr(x, y)``
is always True. This one answers as the tensor would, or refuses.
"""

from __future__ import annotations

import operator
import sys
from typing import Any

import torch
from torch import fx

from cyclegan_fast.fusion.purity import Untraceable

_IN_PLACE = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift"


class Symbol(fx.Proxy):
    """A tensor, or what was computed from one, while a network is traced."""

    @property
    def __class__(self) -> Any:
        """What isinstance() goes by, after the true type."""
        caller = str(sys._getframe(1).f_globals.get("__name__", ""))
        if caller.startswith(("torch.", "cyclegan_fast.fusion.")):
            return Symbol
        if self.node.op == "placeholder":
            return torch.Tensor
        raise Untraceable("its forward asks for the class of a value that it has computed")

    def __getattr__(self, name: str) -> Any:
        if not hasattr(torch.Tensor, name):
            raise AttributeError(f"a tensor has no attribute {name!r}")
        return super().__getattr__(name)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})


def _in_place(function: Any) -> Any:
    def method(self: Symbol, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


for _name in _IN_PLACE.split():
    setattr(Symbol, f"__i{_name}__", _in_place(getattr(operator, f"i{_name}")))
