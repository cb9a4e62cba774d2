# SPDX-License-Identifier: MIT
"""What a trainer may ask of an accelerated network beside its result."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cyclegan_fast.fusion import hand_steps
from cyclegan_fast.fusion.accelerate import PlannedForward
from cyclegan_fast.fusion.modules import child, installed
from cyclegan_fast.fusion.steps import ConvStep, Plan
from cyclegan_fast.fusion.walk import walk, without_tanh


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


def by_hand(
    net: nn.Module, x: Tensor, dtype: torch.dtype, *, tanhless: bool
) -> tuple[Plan, dict[str, nn.Module]] | str:
    """Return what a walk by hand needs of a network, or why it has to run under autograd.

    Args:
        net: any module, accelerated or not.
        x: what it is called with, but for its dtype.
        dtype: of the arithmetic.
        tanhless: leave out the tanh that it ends in; only where `ends_in_tanh`.

    Returns:
        The plan and the modules that it names; or the reason, with the step that stands against it.
    """
    forward = installed(net)
    if not isinstance(forward, PlannedForward):
        return "it is not accelerated as a whole"
    found = forward.whole(x)
    if isinstance(found, str):
        return found
    plan, modules = found
    if tanhless:
        plan = without_tanh(plan, modules) or plan
    reason = hand_steps.why_not(plan, modules, x.device, dtype)
    return (plan, modules) if reason is None else reason


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
