# SPDX-License-Identifier: MIT
"""Find out what a network computes, as a graph, or why that cannot be found out.

torch.fx runs forward once with symbols in place of tensors. What it would get wrong in silence is
refused here instead: a gradient or autocast mode switched inside forward, tensors made and random
numbers drawn inside it, attributes changed by it, checkpointing, and a forward that does not do the
same thing twice. A module in which something is refused stays whole: one ordinary step.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from cyclegan_fast.fusion.modules import (
    installed,
    is_layer,
    is_wrapper,
    plain_forward,
    special,
)
from cyclegan_fast.fusion.purity import Untraceable, ambient, modes, same_randomness, unchanged
from cyclegan_fast.fusion.symbol import Symbol

# fx replaces nn.Module's methods while it traces, so one thread at a time.
_lock = threading.RLock()


class _Marker:
    """Stands for a tensor in a description of a call."""

    def __repr__(self) -> str:
        return "tensor"

    def __reduce__(self) -> str:
        return "TENSOR"


TENSOR = _Marker()


class _KeepWhole(BaseException):
    """A submodule cannot be traced. Not an Exception, lest a network's own code catches it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason


@dataclass
class Traced:
    """What tracing found.

    Attributes:
        graph: the computation; layers of torch.nn and opaque modules are single nodes.
        opaque: path -> reason, for modules that are not layers and stay whole.
    """

    graph: fx.Graph
    opaque: dict[str, str]


def trace(net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Traced:
    """Trace a network's forward.

    Args:
        net: any module.
        args: positional arguments, TENSOR for each tensor and plain values for the rest.
        kwargs: keyword arguments, likewise.

    Raises:
        Untraceable: with the reason.
    """
    if is_wrapper(net):
        raise Untraceable("it only wraps another network")
    if is_layer(net):
        return Traced(_single_call(), {})
    opaque: dict[str, str] = {}
    with _lock:
        while True:
            try:
                # Twice, under opposite modes: a mode that forward switches on or off shows in one
                # of the two, and so does a forward that depends on how often it was called.
                graphs = [_trace(net, args, kwargs, opaque, mode) for mode in (False, True)]
            except _KeepWhole as found:
                opaque[found.path] = found.reason
                continue
            break
    if _text(graphs[0]) != _text(graphs[1]):
        raise Untraceable("its forward does not do the same thing in every call")
    return Traced(graphs[1], opaque)


def _trace(
    net: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    opaque: dict[str, str],
    mode: bool,
) -> fx.Graph:
    values = copy.deepcopy((args, kwargs))
    with unchanged(net), same_randomness(), ambient(mode):
        try:
            graph = _Tracer(opaque, values).trace(net)
        except Exception as error:
            raise Untraceable(_first_line(error)) from error
    if repr(values) != repr((args, kwargs)):
        raise Untraceable("its forward changes its arguments")
    return graph


def _single_call() -> fx.Graph:
    """Return the graph of a layer of torch.nn called with one tensor: there is nothing to trace."""
    graph = fx.Graph()
    graph.output(graph.call_module("", (graph.placeholder("input_0"),)))
    return graph


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def __init__(
        self, opaque: dict[str, str], values: tuple[tuple[Any, ...], dict[str, Any]]
    ) -> None:
        super().__init__()
        self._opaque = opaque
        self._values = values
        self._mode = modes()
        self._thread = threading.get_ident()

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        args, kwargs = self._values

        def symbol(value: Any) -> Any:
            if value is not TENSOR:
                return value
            return self.create_proxy("placeholder", f"input_{next(count)}", (), {})

        count = iter(range(sys.maxsize))
        positional = [symbol(value) for value in args]
        keywords = {name: symbol(value) for name, value in kwargs.items()}
        forward = plain_forward(self.root)

        def run() -> Any:
            return forward(*positional, **keywords)

        return run, []

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Symbol(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self._opaque or is_layer(m)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self._thread:  # fx's patches are there for every thread
            return forward(*args, **kwargs)
        path = self.path_of_module(m)
        if self.is_leaf_module(m, path):
            return super().call_module(m, forward, args, kwargs)
        reason = "it wraps another network" if is_wrapper(m) else special(m)
        if reason:
            raise _KeepWhole(path, reason)
        if installed(m) is not None:
            forward = plain_forward(m)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:
            raise _KeepWhole(path, _first_line(error)) from error

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:
        if kind not in ("placeholder", "output") and modes() != self._mode:
            raise Untraceable("its forward switches the gradient or autocast mode, or checkpoints")
        return super().create_node(kind, *args, **kwargs)

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, torch.Tensor) and a not in self.tensor_attrs and not self._owns(a):
            raise Untraceable("its forward makes a tensor of its own")
        return super().create_arg(a)

    def _owns(self, tensor: torch.Tensor) -> bool:
        return any(tensor is own for own in self.root.parameters()) or any(
            tensor is own for own in self.root.buffers()
        )


def _text(graph: fx.Graph) -> list[str]:
    return [f"{n.op} {n.target} {n.args} {n.kwargs}" for n in graph.nodes]


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    if isinstance(error, Untraceable):
        return text[0]
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
