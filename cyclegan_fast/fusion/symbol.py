# SPDX-License-Identifier: MIT
"""The stand-in for a tensor while a network is traced.

torch.fx's own stand-in answers some questions wrongly and in silence: ``x += y`` becomes ``x + y``
and is not seen under other names of x; ``isinstance(x, torch.Tensor)`` is False; ``hasattr(x, y)``
is always True; ``assert`` on a value cannot be traced by newer Pythons. This one answers as the
tensor would, or refuses.
"""

from __future__ import annotations

import dis
import operator
import sys
import types
from typing import Any

import torch
from torch import fx

from cyclegan_fast.fusion.purity import Untraceable

_IN_PLACE = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift"


class Symbol(fx.Proxy):
    """A tensor, or what was computed from one, while a network is traced."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """What isinstance() asks for, after the true type."""
        caller = str(sys._getframe(1).f_globals.get("__name__", ""))
        if caller.startswith(("torch.", "cyclegan_fast.fusion.")):
            return Symbol
        # Answering "a tensor" would be right in Python, and a lie to C++ code that asks the same
        # way and then reads a tensor's memory.
        raise Untraceable("its forward asks for the class of a value")

    def __bool__(self) -> bool:
        frame = sys._getframe(1)
        if not _is_assertion(frame):
            return super().__bool__()
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        self.tracer.create_proxy(
            "call_function", torch._assert, (self, f"assertion at {where} failed"), {}
        )
        return True

    def __getattr__(self, name: str) -> Any:
        if not hasattr(torch.Tensor, name):
            raise AttributeError(f"a tensor has no attribute {name!r}")
        return super().__getattr__(name)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})


def _is_assertion(frame: types.FrameType) -> bool:
    """Whether the instruction that asks for a truth value belongs to an assert statement."""
    code = [i for i in dis.get_instructions(frame.f_code) if i.offset >= frame.f_lasti]
    names = [instruction.opname for instruction in code[:3]]
    if names[0].startswith(("TO_BOOL", "COMPARE_OP")):  # Python 3.13 and later
        names, code = names[1:], code[1:]
    raises = code[1:2] and (
        names[1] == "LOAD_ASSERTION_ERROR" or code[1].argval is AssertionError  # Python 3.14
    )
    return "JUMP" in names[0] and names[0].endswith("IF_TRUE") and bool(raises)


def _in_place(function: Any) -> Any:
    def method(self: Symbol, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


for _name in _IN_PLACE.split():
    setattr(Symbol, f"__i{_name}__", _in_place(getattr(operator, f"i{_name}")))
