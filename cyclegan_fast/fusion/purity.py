# SPDX-License-Identifier: MIT
"""Is a forward a function of its inputs and the network's state, and nothing else?

Tracing runs forward with symbols. Whatever it does besides computing would be lost or frozen in the
plan; here it is found out, and put back.
"""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Untraceable(Exception):  # noqa: N818 - a finding, not a fault
    """The network's own forward cannot be traced; the text is the reason."""


def modes() -> tuple[Any, ...]:
    """Return the modes that decide what autograd and autocast make of an operation."""
    hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        *[torch.is_autocast_enabled(device) for device in ("cpu", "cuda")],
        *[torch.get_autocast_dtype(device) for device in ("cpu", "cuda")],
        None if hooks is None else hooks(True),
    )


@contextmanager
def ambient(mode: bool) -> Iterator[None]:
    """Switch gradients and autocast both on or both off inside the block."""
    before = [torch.is_autocast_enabled(device) for device in ("cpu", "cuda")]
    try:
        for device in ("cpu", "cuda"):
            torch.set_autocast_enabled(device, mode)
        with torch.inference_mode(False), torch.set_grad_enabled(mode):
            yield
    finally:
        for device, enabled in zip(("cpu", "cuda"), before, strict=True):
            torch.set_autocast_enabled(device, enabled)


def _randomness() -> tuple[Any, ...]:
    """Return the states of the three global generators, comparable with ==."""
    numpy = sys.modules.get("numpy")
    state: tuple[Any, ...] = ()
    if numpy is not None:
        name, keys, *rest = numpy.random.get_state()
        state = (name, keys.tolist(), *rest)
    return random.getstate(), state, torch.get_rng_state().tolist()


@contextmanager
def same_randomness() -> Iterator[None]:
    """Put the global generators back at the end, and refuse a forward that had drawn from them."""
    before = _randomness()
    try:
        yield
    finally:
        after = _randomness()
        if after != before:
            python, state, pytorch = before
            random.setstate(python)
            torch.set_rng_state(torch.tensor(pytorch, dtype=torch.uint8))
            if state:
                sys.modules["numpy"].random.set_state(state)
    if after != before:
        raise Untraceable("its forward draws random numbers outside of PyTorch's operations")


@contextmanager
def unchanged(net: nn.Module) -> Iterator[None]:
    """Put every module's state back as it was, and refuse a forward that had changed it."""
    before = [(module, _state(module)) for module in net.modules()]
    try:
        yield
    finally:
        changed = [name for module, state in before for name in _restore(module.__dict__, state)]
    if changed:
        raise Untraceable(f"its forward changes the network's attribute {changed[0]!r}")


def _state(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    return {
        name: (value, copy.copy(value) if isinstance(value, list | dict | set) else None)
        for name, value in module.__dict__.items()
    }


def _restore(now: dict[str, Any], state: dict[str, tuple[Any, Any]]) -> list[str]:
    changed = [name for name in now if name not in state]
    for name in changed:
        del now[name]
    for name, (value, content) in state.items():
        if name not in now or now[name] is not value:
            changed.append(name)
            now[name] = value
        elif content is not None and not _alike(value, content):
            changed.append(name)
            value.clear()
            (value.extend if isinstance(value, list) else value.update)(content)
    return changed


def _alike(a: Any, b: Any) -> bool:
    """Whether two shallow copies of one container hold the same objects."""
    if len(a) != len(b):
        return False
    if isinstance(a, dict):
        return all(k is j and v is w for (k, v), (j, w) in zip(a.items(), b.items(), strict=True))
    if isinstance(a, set):
        return {id(item) for item in a} == {id(item) for item in b}
    return all(map(lambda x, y: x is y, a, b))
