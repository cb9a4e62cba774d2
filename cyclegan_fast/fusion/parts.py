# SPDX-License-Identifier: MIT
"""What a trainer may ask of an accelerated network beside its result."""

from __future__ import annotations

from torch import Tensor, nn

from cyclegan_fast.fusion.accelerate import PlannedForward
from cyclegan_fast.fusion.modules import child, installed
from cyclegan_fast.fusion.steps import ConvStep
from cyclegan_fast.fusion.walk import walk


def ends_in_tanh(net: nn.Module, x: Tensor) -> bool:
    """Whether :func:`before_tanh` can run a network.

    It can where the network is accelerated as a whole, ends in a plain nn.Tanh that makes its
    result alone, and has no hooks that a call must run.
    """
    forward = installed(net)
    return isinstance(forward, PlannedForward) and forward.tanhless(x) is not None


def before_tanh(net: nn.Module, x: Tensor) -> Tensor:
    """Run an accelerated network up to the tanh that it ends in.

    For a loss that takes the tanh itself: ``net(x) == before_tanh(net, x).tanh()``.

    Args:
        net: of which `ends_in_tanh` holds.
        x: its only argument.

    Raises:
        ValueError: `ends_in_tanh` does not hold.
    """
    forward = installed(net)
    found = forward.tanhless(x) if isinstance(forward, PlannedForward) else None
    if found is None:
        raise ValueError(
            "before_tanh: net must be accelerated and end in nn.Tanh, without hooks of its own, "
            f"got {type(net).__name__}; ask ends_in_tanh first"
        )
    return walk(*found, (x,))


def convolution_parameters(net: nn.Module) -> list[nn.Parameter]:
    """Return the weights, and the biases that count, of the convolutions in installed plans."""
    found: dict[nn.Parameter, None] = {}
    for module in net.modules():
        forward = installed(module)
        for plan in forward.plans if isinstance(forward, PlannedForward) else ():
            for step in plan.steps:
                if isinstance(step, ConvStep):
                    layer = child(module, step.module)
                    read = [layer.weight, layer.bias if step.use_bias else None]
                    found |= dict.fromkeys(p for p in read if isinstance(p, nn.Parameter))
    return list(found)
