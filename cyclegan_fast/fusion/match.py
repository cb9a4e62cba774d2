# SPDX-License-Identifier: MIT
"""Find the groups of nodes that one fused op carries out.

A group is an instance norm and, as far as they follow it, an activation, a residual addition and a
reflection pad. Nodes of a group are computed together at the place of the last of them but the pad,
which moves forward to it. So nobody else may want a value from the middle of the group, and nothing
may write in between to what is read later, or after it to what is read in two places at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx import Node

from cyclegan_fast.fusion import recognise
from cyclegan_fast.fusion.alias import Aliases
from cyclegan_fast.fusion.modules import is_layer, special
from cyclegan_fast.fusion.recognise import Activation, Norm, Pad, Sum

# They read an image in any strides, and keep no view of it.
_STRIDE_BLIND_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.InstanceNorm2d)
_STRIDE_BLIND_FUNCTIONS = (torch.cat, F.conv2d, F.conv_transpose2d)


@dataclass
class Group:
    """What one fused step stands for.

    Attributes:
        norm: the instance norm.
        nodes: its nodes, in order; the pad's node, if any, is not among them.
        holders: nodes by which others read the unpadded result.
        act: the activation, if any.
        residual: what is added, if anything is.
        residual_in_place: it is added with ``+=``.
        pad_node: the reflection pad, if any.
        pad: its pixels.
    """

    norm: Norm
    nodes: list[Node]
    holders: list[Node]
    act: Activation | None = None
    residual: Node | None = None
    residual_in_place: bool = False
    pad_node: Node | None = None
    pad: int = 0

    @property
    def last(self) -> Node:
        """The node in whose place the group is computed."""
        return self.nodes[-1]


@dataclass
class Convolution:
    """What one convolution that reflect_conv2d serves stands for.

    Attributes:
        x: the unpadded input.
        pad: pixels mirrored on each side.
        pad_node: the reflection pad before it that is part of it, if any.
        tanh: the tanh after it that is part of it, if any.
    """

    x: Node
    pad: int
    pad_node: Node | None = None
    tanh: Node | None = None


@dataclass
class Matches:
    """What was found in a graph.

    Attributes:
        groups: norm groups, by each of their nodes and by their pad's node.
        pads: reflection pads that stand alone.
        convolutions: those that reflect_conv2d serves, by their node.
        ordinary: norms and pads that stay as they are, with the reason.
    """

    groups: dict[Node, Group] = field(default_factory=dict)
    pads: dict[Node, Pad] = field(default_factory=dict)
    convolutions: dict[Node, Convolution] = field(default_factory=dict)
    ordinary: dict[Node, str] = field(default_factory=dict)


def match(net: nn.Module, graph: fx.Graph, aliases: Aliases) -> Matches:
    """Find the groups in a traced network."""
    found = Matches()
    for node in graph.nodes:
        norm = recognise.norm(net, node)
        if norm is None:
            continue
        if norm.reason:
            found.ordinary[node] = norm.reason
            continue
        group = Group(norm, [node], [node])
        if not _writes_after(aliases, norm.x, node):
            _add_activation(net, aliases, group)
            _add_residual(aliases, group, found)
        _add_pad(net, aliases, group)
        for member in (*group.nodes, *([group.pad_node] if group.pad_node else [])):
            found.groups[member] = group
    for node in graph.nodes:
        pad = recognise.pad(net, node) if node not in found.groups else None
        if pad is not None and pad.reason:
            found.ordinary[node] = pad.reason
        elif pad is not None:
            found.pads[node] = pad
    for node in graph.nodes:
        convolution = _convolution(net, aliases, found, node)
        if convolution is not None:
            found.convolutions[node] = convolution
            found.pads.pop(convolution.pad_node, None)  # type: ignore[arg-type]
    return found


def _convolution(
    net: nn.Module, aliases: Aliases, found: Matches, node: Node
) -> Convolution | None:
    module = recognise.convolution(net, node)
    padding = recognise.served_padding(module)
    if padding is None:
        return None
    x = node.all_input_nodes[0]
    convolution = Convolution(x, padding)
    pad = found.pads.get(x)
    # The pad moves forward to the convolution: nobody may write in between to what it pads.
    if padding == 0 and pad is not None and len(x.users) == 1:
        if not _writes_after(aliases, pad.x, x):
            convolution = Convolution(pad.x, pad.pad, x)
    readers = list(node.users)
    if len(readers) == 1 and recognise.is_tanh(net, readers[0]):
        convolution.tanh = readers[0]
    return convolution


def _add_activation(net: nn.Module, aliases: Aliases, group: Group) -> None:
    readers = _readers(aliases, group.holders)
    act = recognise.activation(net, readers[0]) if readers else None
    if act is not None and _joins(act.in_place, readers, group, act.x):
        group.act = act


def _add_residual(aliases: Aliases, group: Group, found: Matches) -> None:
    readers = _readers(aliases, group.holders)
    total = recognise.addition(readers[0]) if readers else None
    if total is None or readers[0] in found.groups:
        return
    ours = [operand for operand in (total.a, total.b) if operand in group.holders]
    if len(ours) != 1 or (total.in_place and ours[0] is not total.a):
        return  # x += branch writes to x, which is not this group's
    if _joins(total.in_place, readers, group, ours[0]):
        group.residual = _other(total, ours[0])
        group.residual_in_place = total.in_place


def _joins(in_place: bool, readers: list[Node], group: Group, operand: Node) -> bool:
    """Take the first reader into the group, if nobody else needs the value before it."""
    if operand not in group.holders or not (in_place or len(readers) == 1):
        return False
    group.nodes.append(readers[0])
    # Written in place, the value is the same tensor under its old names as well.
    group.holders = [*group.holders, readers[0]] if in_place else [readers[0]]
    return True


def _add_pad(net: nn.Module, aliases: Aliases, group: Group) -> None:
    readers = _readers(aliases, group.holders)
    for node in readers:
        pad = recognise.pad(net, node)
        if pad is None or pad.reason:
            continue
        others = [reader for reader in readers if reader is not node]
        # The unpadded value is then a view of the padded one: no write to either may be seen in
        # the other, and nobody may depend on its strides.
        if _writes_after(aliases, group.last, group.last) or (
            others and (aliases.writes(node) or not all(_stride_blind(net, o) for o in others))
        ):
            return
        group.pad_node, group.pad = node, pad.pad
        return


def _readers(aliases: Aliases, holders: Iterable[Node]) -> list[Node]:
    """Nodes that read any of the holders and are not one of them, in order."""
    holders = list(holders)
    readers = {user for holder in holders for user in holder.users if user not in holders}
    return sorted(readers, key=aliases.order.__getitem__)


def _writes_after(aliases: Aliases, value: Node, node: Node) -> bool:
    return any(aliases.order[write] > aliases.order[node] for write in aliases.writes(value))


def _other(total: Sum, operand: Node) -> Node:
    return total.b if operand is total.a else total.a


def _stride_blind(net: nn.Module, node: Node) -> bool:
    if recognise.addition(node) is not None or recognise.pad(net, node) is not None:
        return True
    module = recognise.layer(net, node)
    if module is not None:
        return is_layer(module) and not special(module) and type(module) in _STRIDE_BLIND_LAYERS
    return node.op == "call_function" and node.target in _STRIDE_BLIND_FUNCTIONS
