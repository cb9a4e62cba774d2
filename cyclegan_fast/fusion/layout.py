# SPDX-License-Identifier: MIT
"""May a network's inputs be converted to channels_last without its own code noticing?"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn
from torch.fx import Node

from cyclegan_fast.fusion import recognise
from cyclegan_fast.fusion.alias import TRUSTED, Aliases
from cyclegan_fast.fusion.modules import is_reparametrised, special
from cyclegan_fast.fusion.trace import Traced

# They ask for strides, or for a contiguous tensor.
_STRIDE_BOUND = frozenset(("view", "view_as", "as_strided", "stride", "is_contiguous", "data_ptr"))


def why_preserve(
    net: nn.Module, traced: Traced, aliases: Aliases, ordinary: Collection[Node]
) -> str:
    """Say why the inputs' layout must be left alone, or "" where it need not.

    Args:
        net: the network.
        traced: its forward.
        aliases: what its tensors share.
        ordinary: norms and pads that PyTorch's own operations carry out.
    """
    nodes = list(traced.graph.nodes)
    if not any(recognise.convolution(net, node) is not None for node in nodes):
        return "there is no convolution that would gain"
    if aliases.written_inputs():
        return "the network writes to its own input"
    for node in nodes:
        if node.op == "call_module":
            module = recognise.layer(net, node)
            foreign = special(module) and not is_reparametrised(module)
            if str(node.target) in traced.opaque or foreign:
                return f"{recognise.label(net, node)} may depend on strides"
        elif node.op == "call_method" and node.target in _STRIDE_BOUND:
            return f"forward calls .{node.target}(), which depends on strides"
        elif node.op == "call_function":
            home = (getattr(node.target, "__module__", None) or "").partition(".")[0]
            if home not in TRUSTED or node.target is torch.as_strided:
                return f"{recognise.label(net, node)} may depend on strides"
    for node in nodes:
        if node in ordinary and recognise.norm(net, node) is not None:
            # At batch 1 on a CPU, silently: PyTorch 2.11 to 2.14. See instance_norm_act_reference.
            name = recognise.label(net, node)
            return f"PyTorch's gradient of {name} is wrong for a channels_last one"
    return ""
