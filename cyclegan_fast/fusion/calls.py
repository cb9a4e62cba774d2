# SPDX-License-Identifier: MIT
"""The form of a call: which arguments are tensors, and the plain values of the others.

A plan holds for calls of one form. An argument that is no tensor is part of it, since forward may
decide anything by it; forward's own defaults belong to the form that leaves them out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cyclegan_fast.fusion.trace import TENSOR

# Positional and keyword arguments, TENSOR in the place of each tensor.
Form = tuple[tuple[Any, ...], dict[str, Any]]

_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.memory_format)


def key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    """Return a hashable name of a call's form, or None if it has none."""
    parts: list[Any] = []
    for value in args:
        parts.append(_part(value))
    for name, value in kwargs.items():
        parts.append((name, _part(value)))
    return None if any(_unnamed(part) for part in parts) else tuple(parts)


def tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, ...]:
    """Return the tensor arguments, in the order of their plan's inputs."""
    return tuple([value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)])


def form(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Form:
    """Return the arguments with TENSOR for each tensor."""
    return (
        tuple(TENSOR if isinstance(value, Tensor) else value for value in args),
        {k: TENSOR if isinstance(value, Tensor) else value for k, value in kwargs.items()},
    )


def usual_form(forward: Callable[..., Any]) -> Form:
    """Return the form of a call with nothing but forward's required arguments, all tensors."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):
        return (TENSOR,), {}
    required = [p for p in parameters if p.default is p.empty]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return (
        tuple(TENSOR for p in required if p.kind in positional),
        {p.name: TENSOR for p in required if p.kind is inspect.Parameter.KEYWORD_ONLY},
    )


def positional(
    names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Move keyword arguments into the places they have in forward, as far as they follow on."""
    if not kwargs:
        return args, kwargs
    moved, rest = list(args), dict(kwargs)
    for name in names[len(args) :]:
        if name not in rest:
            break
        moved.append(rest.pop(name))
    return tuple(moved), rest


def names(forward: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of forward's arguments that may be given by place or by name."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)


def _part(value: Any) -> Any:
    if isinstance(value, Tensor) or value is TENSOR:
        return "tensor"
    if value is None:
        return ("None",)
    if isinstance(value, _PLAIN):
        return (type(value).__name__, value)  # True and 1 are equal, but not the same argument
    if type(value) in (tuple, list):
        inner = tuple([_part(item) for item in value])
        return None if "tensor" in inner else (type(value).__name__, *inner)
    return None


def _unnamed(part: Any) -> bool:
    return part is None or (isinstance(part, tuple) and any([_unnamed(item) for item in part[1:]]))
