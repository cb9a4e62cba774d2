# SPDX-License-Identifier: MIT
"""Guards: a plan is walked only while the network is what it was when the plan was made.

Tracing reads everything in a network that is plain Python once: its modules, flags, numbers. When
one of these changes later (a layer replaced, a hook added, ``net.train()`` where forward asks for
it), the plan must be made again. What torch.nn's own layers read is read live and needs no guard,
save for what a fused step has taken over.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from cyclegan_fast.fusion.modules import is_layer, plain_forward, special
from cyclegan_fast.fusion.steps import Guard

# Attributes of torch.nn's layers that decide what is fused, or are copied into a step.
_LAYER_ATTRIBUTES = (
    "dilation",
    "eps",
    "groups",
    "inplace",
    "negative_slope",
    "padding",
    "padding_mode",
    "stride",
    "track_running_stats",
)
_MODULE_STATE = frozenset(nn.Module().__dict__) - {"training"}
_REFLECTION = frozenset(("getattr", "__dict__", "vars", "hasattr", "__getattribute__"))
_MISSING = "<no such attribute>"
_SCALARS = (bool, int, float, complex, str, bytes, type(None))


def make_guards(net: nn.Module, opaque: set[str]) -> tuple[Guard, ...]:
    """Return the guards of a network.

    Args:
        net: the network.
        opaque: paths of modules whose inside is none of the plan's business; no more is that of
            torch.nn's layers.
    """
    guards: list[Guard] = []

    def visit(module: nn.Module, path: str, name: str, parent: int) -> None:
        inside = path not in opaque and not is_layer(module)
        children = tuple(module._modules) if inside else None
        names = _read_names(module) if inside else _LAYER_ATTRIBUTES
        attributes = tuple(
            (name, _frozen(module.__dict__[name])) for name in names if name in module.__dict__
        )
        # The network's own hooks and compilation stand around its forward, not inside it.
        extra = "" if parent < 0 else special(module)
        position = len(guards)
        forward = type(module).forward
        guards.append(Guard(path, parent, name, type(module), forward, extra, children, attributes))
        for key in children or ():
            inner = f"{path}.{key}" if path else key
            if module._modules[key] is not None:
                visit(module._modules[key], inner, key, position)  # type: ignore[arg-type]

    visit(net, "", "", -1)
    return tuple(guards)


def bind(net: nn.Module, guards: tuple[Guard, ...]) -> dict[str, nn.Module] | None:
    """Return the network's modules by path, or None if a guard does not hold any more."""
    modules: list[nn.Module] = []
    bound: dict[str, nn.Module] = {}
    for guard in guards:
        module = net if guard.parent < 0 else modules[guard.parent]._modules.get(guard.name)
        if module is None or type(module) is not guard.type:
            return None
        if guard.type.forward is not guard.forward:
            return None
        # Read once per module and call, so the usual case asks as little as it can.
        state = module.__dict__
        if guard.parent >= 0 and (
            guard.special
            or "forward" in state
            or state["_forward_hooks"]
            or state["_forward_pre_hooks"]
            or state["_backward_hooks"]
            or state["_backward_pre_hooks"]
            or state.get("_compiled_call_impl") is not None
        ):
            if special(module) != guard.special:
                return None
        if guard.children is not None and tuple(module._modules) != guard.children:
            return None
        for name, value in guard.attributes:
            present = state.get(name, _MISSING)
            if present is not value and not _same(_frozen(present), value):
                return None
        modules.append(module)
        bound[guard.path] = module
    return bound


def _frozen(value: Any) -> Any:
    """Return a snapshot of a plain value: containers by content, anything else as it is."""
    if isinstance(value, tuple) and all([isinstance(item, _SCALARS) for item in value]):
        return value
    if isinstance(value, list | tuple):
        return (type(value).__name__, *[_frozen(item) for item in value])
    if isinstance(value, dict):
        return ("dict", *[(key, _frozen(item)) for key, item in value.items()])
    if isinstance(value, set | frozenset):
        return ("set", frozenset(value))
    return value


def _same(a: Any, b: Any) -> bool:
    """Equality for plain values, identity for everything that might define its own."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, (*_SCALARS, frozenset)):
        return a == b
    return isinstance(a, torch.dtype | torch.device) and a == b


def _read_names(module: nn.Module) -> tuple[str, ...]:
    """Names of the instance's plain attributes that its forward may read.

    An attribute that no code within forward's reach names (a step counter of a training script,
    say) cannot change what it does, and watching it would make the plan anew at every step.
    """
    own = [
        name
        for name, value in module.__dict__.items()
        if name not in _MODULE_STATE
        and not isinstance(value, torch.Tensor)  # read live, by its path
        and not name.startswith("_replicate")
        and name != "forward"
    ]
    classes = [cls for cls in type(module).__mro__ if not _is_torchs(cls.__module__)]
    found = [value for cls in classes for value in [vars(cls).get("forward")]]
    if "forward" in module.__dict__:
        found.append(plain_forward(module))
    named: set[str] = set()
    seen: set[types.FunctionType] = set()
    functions = [function for value in found for function in _functions(value)]
    while functions:
        function = functions.pop()
        if function in seen or _is_torchs(function.__module__ or ""):
            continue
        seen.add(function)
        names = set(_code_names(function.__code__))
        named |= names
        homes = [vars(cls) for cls in classes] + [function.__globals__]
        homes += [
            vars(value)
            for value in map(function.__globals__.get, names)
            if isinstance(value, types.ModuleType) and not _is_torchs(value.__name__)
        ]
        functions += [f for home in homes for name in names for f in _functions(home.get(name))]
    dynamic = any("__getattr__" in vars(cls) for cls in classes)
    return tuple(own) if dynamic or named & _REFLECTION else tuple(n for n in own if n in named)


def _is_torchs(home: str) -> bool:
    return home == "torch" or home.startswith("torch.") or home == "builtins"


def _functions(value: Any) -> list[types.FunctionType]:
    if isinstance(value, property):
        parts = [value.fget]
    elif isinstance(value, staticmethod | classmethod | types.MethodType):
        parts = [value.__func__]
    else:
        parts = [getattr(value, "__wrapped__", None), value]
    return [part for part in parts if isinstance(part, types.FunctionType)]


def _code_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code_names(constant)
