# SPDX-License-Identifier: MIT
"""Turn a traced network and the groups found in it into a plan."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn
from torch.fx import Node

from cyclegan_fast.fusion import recognise
from cyclegan_fast.fusion.alias import Aliases
from cyclegan_fast.fusion.guard import make_guards
from cyclegan_fast.fusion.layout import why_preserve
from cyclegan_fast.fusion.match import Group, Matches, match
from cyclegan_fast.fusion.modules import is_reparametrised, special
from cyclegan_fast.fusion.recognise import label
from cyclegan_fast.fusion.steps import (
    ConvStep,
    FunctionStep,
    ModuleStep,
    NormStep,
    PadStep,
    Plan,
    Ref,
    Step,
    references,
    written,
)
from cyclegan_fast.fusion.trace import Traced, trace

_KINDS = {"call_function": "function", "call_method": "method", "get_attr": "attribute"}
_NAMING = ("call_module", "get_attr")


def make_plan(
    net: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    memory_format: str = "channels_last",
) -> Plan:
    """Make the plan of a network for calls of one form.

    Args:
        net: any module.
        args: positional arguments, trace.TENSOR for each tensor and plain values for the rest.
        kwargs: keyword arguments, likewise.
        memory_format: "channels_last" or "preserve".

    Raises:
        Untraceable: the network's own forward cannot be traced.
    """
    traced = trace(net, args, kwargs)
    aliases = Aliases(net, traced.graph)
    return _Lowering(net, traced, aliases, match(net, traced.graph, aliases)).plan(memory_format)


class _Lowering:
    def __init__(self, net: nn.Module, traced: Traced, aliases: Aliases, found: Matches) -> None:
        self._net = net
        self._traced = traced
        self._aliases = aliases
        self._found = found
        self._registers: dict[Node, int] = {}
        self._count = 0
        self._steps: list[Step] = []
        self._unfused: list[tuple[str, str]] = []
        self._ordinary: list[tuple[str, str]] = []
        self._dead_biases: list[str] = []
        self._absorbed = self._affine_only()
        for convolution in found.convolutions.values():
            self._absorbed |= {
                node for node in (convolution.pad_node, convolution.tanh) if node is not None
            }

    def plan(self, memory_format: str) -> Plan:
        inputs: list[int] = []
        output: Any = None
        for node in self._traced.graph.nodes:
            if node.op == "placeholder":
                inputs.append(self._register(node))
            elif node.op == "output":
                output = self._argument(node.args[0])
            elif node in self._found.groups:
                group = self._found.groups[node]
                if node is group.last:
                    self._norm(group)
            elif node not in self._absorbed:
                self._step(node)
        # A convolution may be used twice, once with its bias.
        read = {f"{s.module}.bias" for s in self._steps if isinstance(s, ConvStep) and s.use_bias}
        read |= {str(node.target) for node in self._traced.graph.nodes if node.op == "get_attr"}
        reason = (
            ""
            if memory_format == "preserve"
            else why_preserve(self._net, self._traced, self._aliases, self._found.ordinary)
        )
        return Plan(
            inputs=tuple(inputs),
            steps=_with_frees(self._steps, inputs, output),
            output=output,
            registers=self._count,
            memory_format="preserve" if reason else memory_format,
            memory_format_reason=reason,
            dead_biases=tuple(dict.fromkeys(p for p in self._dead_biases if p not in read)),
            guards=make_guards(self._net, self._whole()),
            unfused=tuple(self._unfused),
            ordinary=tuple(self._ordinary),
        )

    def _norm(self, group: Group) -> None:
        norm = group.norm
        read = [norm.x] if group.residual is None else [norm.x, group.residual]
        inputs = tuple(self._registers[node] for node in read)
        members = [label(self._net, node) for node in group.nodes]
        if group.pad_node is not None:
            members.append(label(self._net, group.pad_node))
        output = unpadded = self._new()
        interior = None
        if group.pad_node is not None:
            self._registers[group.pad_node] = output
            inside = {group.pad_node, *group.nodes}
            if any(user not in inside for node in group.holders for user in node.users):
                interior = unpadded = self._new()
        for node in group.holders:
            self._registers[node] = unpadded
        self._steps.append(
            NormStep(
                inputs=inputs,
                output=output,
                weight=norm.weight,
                bias=norm.bias,
                act=group.act.act if group.act else "none",
                negative_slope=group.act.negative_slope if group.act else 0.0,
                eps=norm.eps,
                pad=group.pad,
                interior=interior,
                residual_in_place=group.residual_in_place,
                members=tuple(members),
                only_batches=group.nodes[0].op == "call_function",
            )
        )

    def _step(self, node: Node) -> None:
        pad = self._found.pads.get(node)
        if pad is not None:
            inputs = (self._registers[pad.x],)
            members = (label(self._net, node),)
            step = PadStep(inputs=inputs, output=self._register(node), pad=pad.pad, members=members)
            self._steps.append(step)
        elif recognise.convolution(self._net, node) is not None:
            self._convolution(node)
        elif node.op == "call_module":
            self._module(node)
        else:
            self._function(node)

    def _convolution(self, node: Node) -> None:
        module = recognise.layer(self._net, node)
        served = self._found.convolutions.get(node)
        use_bias = module.bias is not None
        if use_bias and self._bias_is_dead(node, module):
            use_bias = False
            self._dead_biases.append(f"{node.target}.bias")
        x, tanh = (node.all_input_nodes[0], None) if served is None else (served.x, served.tanh)
        parts = (node,) if served is None else (served.pad_node, node, tanh)
        self._steps.append(
            ConvStep(
                inputs=(self._registers[x],),
                output=self._register(node if tanh is None else tanh),
                module=str(node.target),
                use_bias=use_bias,
                served=served is not None,
                pad=0 if served is None else served.pad,
                act="none" if tanh is None else "tanh",
                members=tuple(label(self._net, part) for part in parts if part is not None),
            )
        )

    def _bias_is_dead(self, node: Node, module: nn.Module) -> bool:
        """Whether a fused norm alone reads the result: it takes any constant of a plane away."""
        if len(node.users) != 1:
            return False
        (reader,) = node.users
        group = self._found.groups.get(reader)
        return (
            group is not None
            and group.nodes[0] is reader
            and group.norm.x is node
            and type(module) in (nn.Conv2d, nn.ConvTranspose2d)  # a parametrized one is another
            and (module.padding_mode == "zeros" or node in self._found.convolutions)
        )

    def _module(self, node: Node) -> None:
        path = str(node.target)
        module = recognise.layer(self._net, node)
        reason = self._note_unfused(node)
        if not reason:
            reason = self._traced.opaque.get(path) or special(module)
            if is_reparametrised(module):
                reason = "a hook computes its weight"
            self._ordinary.append((label(self._net, node), reason))
        args, kwargs = self._arguments(node)
        self._steps.append(
            ModuleStep(
                inputs=tuple(references([args, dict(kwargs)])),
                output=self._register(node),
                module=path,
                args=args,
                kwargs=kwargs,
                reason=reason,
            )
        )

    def _function(self, node: Node) -> None:
        if not self._note_unfused(node) and node.op != "get_attr":
            self._ordinary.append((label(self._net, node), ""))
        args, kwargs = self._arguments(node)
        self._steps.append(
            FunctionStep(
                inputs=tuple(references([args, dict(kwargs)])),
                output=self._register(node),
                kind=_KINDS[node.op],
                target=node.target,
                args=args,
                kwargs=kwargs,
            )
        )

    def _whole(self) -> set[str]:
        """Opaque modules of which the plan names nothing inside."""
        named = [str(n.target) for n in self._traced.graph.nodes if n.op in _NAMING]
        return {
            path
            for path in self._traced.opaque
            if not any(target.startswith(f"{path}.") for target in named)
        }

    def _note_unfused(self, node: Node) -> str:
        reason = self._found.ordinary.get(node, "")
        if reason:
            self._unfused.append((label(self._net, node), reason))
        return reason

    def _affine_only(self) -> set[Node]:
        """Parameters read by fused functional norms alone: their steps look them up by path."""
        nodes = [node for node in self._traced.graph.nodes if node.op == "get_attr"]
        firsts = {group.nodes[0] for group in self._found.groups.values()}
        return {node for node in nodes if node.users and set(node.users) <= firsts}

    def _new(self) -> int:
        self._count += 1
        return self._count - 1

    def _register(self, node: Node) -> int:
        self._registers[node] = self._new()
        return self._registers[node]

    def _arguments(self, node: Node) -> tuple[tuple[Any, ...], tuple[tuple[str, Any], ...]]:
        args = tuple(self._argument(arg) for arg in node.args)
        return args, tuple((name, self._argument(arg)) for name, arg in node.kwargs.items())

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Node):
            return Ref(self._registers[value])
        if isinstance(value, tuple):
            return tuple(self._argument(item) for item in value)
        if isinstance(value, list):
            return [self._argument(item) for item in value]
        if isinstance(value, dict):
            return {key: self._argument(item) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(*map(self._argument, (value.start, value.stop, value.step)))
        return value


def _with_frees(steps: list[Step], inputs: list[int], output: Any) -> tuple[Step, ...]:
    """Note at every step which registers nobody reads after it."""
    last = {register: i for i, step in enumerate(steps) for register in written(step)}
    last |= {register: 0 for register in inputs}
    for i, step in enumerate(steps):
        for register in step.inputs:
            last[register] = max(last[register], i)
    kept = set(references(output))
    frees: list[list[int]] = [[] for _ in steps]
    for register, i in last.items():
        if register not in kept and steps:
            frees[i].append(register)
    return tuple(
        dataclasses.replace(step, frees=tuple(sorted(free)))
        for step, free in zip(steps, frees, strict=True)
    )
