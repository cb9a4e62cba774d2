# SPDX-License-Identifier: MIT
"""What a module is, for fusion: a torch.nn layer, a wrapper, or code to look into."""

from __future__ import annotations

from typing import Any

from torch import nn

# Called by nn.Module.__call__ around forward; a fused step would not call them.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class InstanceForward:
    """Owns a method that this package has put on an instance as its forward; see accelerate.py.

    Attributes:
        previous: an own forward that the instance had before, or None.
    """

    previous: Any = None


def installed(module: nn.Module) -> InstanceForward | None:
    """Return what owns the module's forward, if this package has put it there."""
    owner = getattr(module.__dict__.get("forward"), "__self__", None)
    return owner if isinstance(owner, InstanceForward) else None


def is_layer(module: nn.Module) -> bool:
    """Whether it is a leaf: its forward is torch.nn's own, or the package's."""
    forward = type(module).forward
    if isinstance(module, nn.Sequential) or forward is nn.Module.forward or is_wrapper(module):
        return False
    home = getattr(forward, "__module__", None) or ""
    return home.startswith(("torch.nn.", "torch.ao.", "cyclegan_fast.nn"))


def is_wrapper(module: nn.Module) -> bool:
    """Whether it only hands its calls to the network inside: parallel wrappers, torch.compile's."""
    return (
        type(module).__module__.startswith(("torch.nn.parallel.", "torch.distributed."))
        or type(module).__name__ == "OptimizedModule"  # importing torch._dynamo takes seconds
    )


def special(module: nn.Module) -> str:
    """Say what a call of the module runs besides its class's forward; "" if nothing."""
    state = module.__dict__
    for name in _HOOKS:
        if state.get(name):
            return "it has forward or backward hooks"
    if state.get("_compiled_call_impl") is not None:
        return "it is compiled on its own"
    if state.get("forward") is not None and installed(module) is None:
        return "its forward was replaced on the instance"
    return ""


def is_reparametrised(module: nn.Module) -> bool:
    """Whether its hooks are torch.nn.utils' own, which compute its weight and touch no input."""
    state = module.__dict__
    hooks = [hook for name in _HOOKS for hook in (state.get(name) or {}).values()]
    return bool(hooks) and all(type(h).__module__.startswith("torch.nn.utils.") for h in hooks)


def plain_forward(module: nn.Module) -> Any:
    """Return the module's forward as it is without this package."""
    ours = installed(module)
    forward = module.__dict__.get("forward") if ours is None else ours.previous
    return forward if forward is not None else type(module).forward.__get__(module)


def child(module: nn.Module, path: str) -> nn.Module:
    """Return the module at a dotted path; the module itself for ""."""
    for name in path.split(".") if path else ():
        module = module._modules[name]  # type: ignore[assignment]
    return module
