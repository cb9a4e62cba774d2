# SPDX-License-Identifier: MIT
"""Read the nodes of a traced network: which are norms, activations, sums, pads, convolutions.

Each reader returns None for a node that is something else. Modules and functions are read alike,
and only exact classes of torch.nn (or subclasses that change nothing of a call) are taken for what
they are called.
"""

from __future__ import annotations

import inspect
import operator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Node

from cyclegan_fast.fusion.modules import child, is_layer, special


@dataclass(frozen=True)
class Norm:
    """An instance norm; ``reason`` says why it cannot be fused, or is ""."""

    x: Node
    weight: str | None = None
    bias: str | None = None
    eps: float = 1e-5
    reason: str = ""


@dataclass(frozen=True)
class Activation:
    """A ReLU or LeakyReLU."""

    x: Node
    act: str
    negative_slope: float
    in_place: bool


@dataclass(frozen=True)
class Sum:
    """An addition with factor 1; ``in_place`` writes into a."""

    a: Node
    b: Node
    in_place: bool


@dataclass(frozen=True)
class Pad:
    """A reflection pad; ``reason`` says why it cannot be served by the package, or is ""."""

    x: Node
    pad: int = 0
    reason: str = ""


def layer(net: nn.Module, node: Node) -> Any:
    """Return the module that a node calls, or None."""
    return child(net, str(node.target)) if node.op == "call_module" else None


def label(net: nn.Module, node: Node) -> str:
    """Return what people call a node: a module's path and class, or a function's name."""
    module = layer(net, node)
    if module is not None:
        return f"{node.target} {type(module).__name__}".strip()
    return f"{getattr(node.target, '__name__', node.target)}()"


def is_plainly(module: nn.Module | None, cls: type[nn.Module]) -> bool:
    """Whether a call of the module runs the forward of ``cls`` and nothing else."""
    return (
        isinstance(module, cls)
        and is_layer(module)
        and type(module).forward is cls.forward
        and type(module).__call__ is cls.__call__
        and not special(module)
    )


def norm(net: nn.Module, node: Node) -> Norm | None:
    """Read an InstanceNorm2d, or F.instance_norm."""
    module = layer(net, node)
    if isinstance(module, nn.InstanceNorm2d):
        return _norm_module(module, node)
    if node.op == "call_function" and node.target is F.instance_norm:
        return _norm_function(node)
    return None


def _norm_module(module: nn.InstanceNorm2d, node: Node) -> Norm | None:
    x = _only_tensor(node)
    if x is None:
        return None
    if not is_plainly(module, nn.InstanceNorm2d):
        reason = special(module) or f"it is a {type(module).__name__} with a forward of its own"
        return Norm(x, reason=reason)
    if type(module)._check_input_dim is not nn.InstanceNorm2d._check_input_dim:
        return Norm(x, reason=f"it is a {type(module).__name__} with checks of its own")
    if module.track_running_stats or module.running_mean is not None:
        return Norm(x, reason="it tracks running statistics")
    return Norm(x, f"{node.target}.weight", f"{node.target}.bias", module.eps)


def _norm_function(node: Node) -> Norm | None:
    call = _bound(node)
    if call is None or not isinstance(call["input"], Node):
        return None
    x = call["input"]
    if call["running_mean"] is not None or call["running_var"] is not None:
        return Norm(x, reason="it tracks running statistics")
    affine = (call["weight"], call["bias"])
    if call["use_input_stats"] is not True:
        return Norm(x, reason="it is not certain to use the statistics of its input")
    if not isinstance(call["eps"], int | float):
        return Norm(x, reason="its eps is computed")
    if any(p is not None and getattr(p, "op", "") != "get_attr" for p in affine):
        return Norm(x, reason="its weight or bias is computed")
    weight, bias = (None if p is None else str(p.target) for p in affine)
    return Norm(x, weight, bias, float(call["eps"]))


def activation(net: nn.Module, node: Node) -> Activation | None:
    """Read a ReLU or LeakyReLU: module, function or method, in place or not."""
    x: Any
    module = layer(net, node)
    if module is not None:
        x = _only_tensor(node)
        if x is not None and is_plainly(module, nn.ReLU):
            return Activation(x, "relu", 0.0, bool(module.inplace))
        if x is not None and is_plainly(module, nn.LeakyReLU):
            return Activation(x, "leaky_relu", module.negative_slope, bool(module.inplace))
        return None
    x = node.args[0] if node.args else None
    if not isinstance(x, Node):
        return None
    simple = (node.op, node.target)
    if simple in (("call_method", "relu"), ("call_function", torch.relu)):
        return Activation(x, "relu", 0.0, False)
    if simple in (("call_method", "relu_"), ("call_function", torch.relu_)):
        return Activation(x, "relu", 0.0, True)
    if node.op == "call_function" and node.target in (F.relu, F.leaky_relu):
        call = _bound(node)
        if call is None or not isinstance(call["inplace"], bool):
            return None
        slope = call.get("negative_slope", 0.0)
        if isinstance(slope, int | float):
            act = "relu" if node.target is F.relu else "leaky_relu"
            return Activation(x, act, float(slope), call["inplace"])
    return None


def addition(node: Node) -> Sum | None:
    """Read ``a + b``, ``a += b``, torch.add or Tensor.add of two nodes."""
    if len(node.args) != 2 or not all(isinstance(arg, Node) for arg in node.args):
        return None
    if node.kwargs and dict(node.kwargs) != {"alpha": 1}:
        return None
    a: Any
    b: Any
    a, b = node.args
    simple = (node.op, node.target)
    if simple in (
        ("call_function", operator.add),
        ("call_function", torch.add),
        ("call_method", "add"),
    ):
        return Sum(a, b, False)
    if simple in (("call_function", operator.iadd), ("call_method", "add_")):
        return Sum(a, b, True)
    return None


def pad(net: nn.Module, node: Node) -> Pad | None:
    """Read a ReflectionPad2d, or F.pad in reflect mode."""
    module = layer(net, node)
    if isinstance(module, nn.ReflectionPad2d):
        x, amount = _only_tensor(node), tuple(module.padding)
        plain = is_plainly(module, nn.ReflectionPad2d)
        reason = "" if plain else special(module) or "it has a forward of its own"
    elif node.op == "call_function" and node.target is F.pad:
        call = _bound(node)
        if call is None or call["mode"] != "reflect" or not isinstance(call["pad"], list | tuple):
            return None
        x, amount, reason = call["input"], tuple(call["pad"]), ""
    else:
        return None
    if not isinstance(x, Node):
        return None
    if reason:
        return Pad(x, reason=reason)
    if len(amount) != 4 or len(set(amount)) != 1 or not isinstance(amount[0], int):
        return Pad(x, reason=f"it pads unequally: {amount}")
    if amount[0] < 1:
        return Pad(x, reason=f"it does not pad: {amount}")
    return Pad(x, amount[0])


def convolution(net: nn.Module, node: Node) -> nn.Conv2d | nn.ConvTranspose2d | None:
    """Return the Conv2d or ConvTranspose2d that a node calls with nothing but an input, or None."""
    module = layer(net, node)
    if _only_tensor(node) is not None and (
        is_plainly(module, nn.Conv2d) or is_plainly(module, nn.ConvTranspose2d)
    ):
        return module  # type: ignore[return-value]
    return None


def served_padding(module: nn.Module | None) -> int | None:
    """Return the pixels that a convolution itself mirrors, if reflect_conv2d can serve it."""
    if type(module) is not nn.Conv2d or module.groups != 1 or len(set(module.stride)) != 1:
        return None
    if set(module.dilation) != {1} or not isinstance(module.padding, tuple):
        return None
    if set(module.padding) == {0}:
        return 0
    equal = len(set(module.padding)) == 1
    return module.padding[0] if equal and module.padding_mode == "reflect" else None


def is_tanh(net: nn.Module, node: Node) -> bool:
    """Whether the node is the tanh of one tensor: module, function or method."""
    module = layer(net, node)
    if module is not None:
        return _only_tensor(node) is not None and is_plainly(module, nn.Tanh)
    simple = (node.op, node.target)
    known = (("call_function", torch.tanh), ("call_function", F.tanh), ("call_method", "tanh"))
    return simple in known and _only_tensor(node) is not None


def _only_tensor(node: Node) -> Node | None:
    if len(node.args) == 1 and not node.kwargs and isinstance(node.args[0], Node):
        return node.args[0]
    return None


def _bound(node: Node) -> dict[str, Any] | None:
    """Arguments of a call of a Python function, by name, defaults filled in."""
    try:
        call = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
    except TypeError:
        return None
    call.apply_defaults()
    return call.arguments
