# SPDX-License-Identifier: MIT
"""Which values of a traced network may share memory, and which are written in place, and when.

The answer errs on the safe side: what is not known to return new memory may return its input, and
what is not known to leave its input alone writes to it. A fusion that moves a read or a write is
made only where nothing here speaks against it.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx import Node

from cyclegan_fast.fusion.modules import is_layer, is_reparametrised, special
from cyclegan_fast.fusion.recognise import layer

# Their result is always new memory.
_FRESH_LAYERS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
    nn.InstanceNorm2d,
    nn.BatchNorm2d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.SiLU,
    nn.GELU,
    nn.PReLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.MaxPool2d,
    nn.AvgPool2d,
)
_FRESH_FUNCTIONS: frozenset[Callable[..., Any]] = frozenset(
    (
        operator.add,
        operator.sub,
        operator.mul,
        operator.truediv,
        operator.neg,
        torch.add,
        torch.sub,
        torch.mul,
        torch.cat,
        torch.relu,
        torch.tanh,
        torch.sigmoid,
        torch.conv2d,
        F.conv2d,
        F.conv_transpose2d,
        F.relu,
        F.leaky_relu,
        F.tanh,
        F.sigmoid,
        F.instance_norm,
        F.batch_norm,
        F.max_pool2d,
        F.avg_pool2d,
    )
)
# Functions from here write to an argument only if their name or an argument says so.
TRUSTED = frozenset(("torch", "_operator", "math", "builtins"))
_FRESH_METHODS = frozenset(("add", "sub", "mul", "relu", "tanh", "sigmoid", "clone", "mean", "sum"))
_METADATA_METHODS = frozenset(("size", "dim", "numel", "stride", "is_contiguous", "element_size"))
_METADATA_ATTRIBUTES = frozenset(("shape", "dtype", "device", "ndim", "requires_grad", "layout"))


class Aliases:
    """Classes of nodes that may share memory, and the writes to each class.

    Args:
        net: the network.
        graph: what tracing found in it.
    """

    def __init__(self, net: nn.Module, graph: fx.Graph) -> None:
        self.order = {node: i for i, node in enumerate(graph.nodes)}
        self._parent: dict[Node, Node] = {}
        self._writes: list[tuple[Node, Node]] = []
        self._inputs = [node for node in graph.nodes if node.op == "placeholder"]
        # A caller may pass one tensor twice, and parameters may be tied.
        outside: dict[str, Node] = {}
        for node in graph.nodes:
            if node.op in ("placeholder", "get_attr"):
                self._join(node, outside.setdefault(node.op, node))
            elif node.op != "output":
                shared, written = _effects(net, node)
                for source in shared:
                    self._join(node, source)
                self._writes += [(node, target) for target in written]

    def writes(self, value: Node) -> list[Node]:
        """Nodes that may write to the value's memory, in order."""
        root = self._find(value)
        return [node for node, target in self._writes if self._find(target) is root]

    def written_inputs(self) -> bool:
        """Whether the network may write to its own inputs."""
        return any(self.writes(node) for node in self._inputs)

    def _find(self, node: Node) -> Node:
        while (parent := self._parent.get(node, node)) is not node:
            node = parent
        return node

    def _join(self, a: Node, b: Node) -> None:
        self._parent[self._find(a)] = self._find(b)


def _effects(net: nn.Module, node: Node) -> tuple[list[Node], list[Node]]:
    """Return the inputs that a node's result may share memory with, and those it may write to."""
    inputs = node.all_input_nodes
    if node.op == "call_module":
        module = layer(net, node)
        if not is_layer(module) or (special(module) and not is_reparametrised(module)):
            return inputs, inputs
        if getattr(module, "inplace", False):
            return inputs[:1], inputs[:1]
        return ([] if type(module) in _FRESH_LAYERS else inputs), []
    if node.op == "call_method":
        name = str(node.target)
        if name in _METADATA_METHODS:
            return [], []
        if name.endswith("_"):  # torch's own sign for "in place"; the dunders are not told apart
            return inputs[:1], inputs[:1]
        return ([] if name in _FRESH_METHODS else inputs), []
    return _function_effects(node, inputs)


def _function_effects(node: Node, inputs: list[Node]) -> tuple[list[Node], list[Node]]:
    target = node.target
    name = getattr(target, "__name__", "")
    home = getattr(target, "__module__", None) or ""
    if target is getattr:
        return ([] if node.args[1] in _METADATA_ATTRIBUTES else inputs), []
    if target is operator.setitem or (home == "_operator" and name.startswith("i")):
        # iadd, isub, ...; the others that begin with an i (index, inv, is_) are rare and harmless
        return inputs[:1], inputs[:1]
    if "out" in node.kwargs:
        return inputs, inputs
    if home.startswith("torch._ops") or home.partition(".")[0] not in TRUSTED:
        return inputs, inputs
    if name.endswith("_") or _asks_in_place(node):
        return inputs[:1], inputs[:1]
    return ([] if target in _FRESH_FUNCTIONS else inputs), []


def _asks_in_place(node: Node) -> bool:
    try:
        call = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # a builtin: torch's take no such argument but by name
        return bool(node.kwargs.get("inplace", False))
    return bool(call.arguments.get("inplace", False))
