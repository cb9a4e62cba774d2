# SPDX-License-Identifier: MIT
"""Find the parts of a network that can be planned: the whole, or as much of it as can be traced."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from cyclegan_fast.fusion import calls
from cyclegan_fast.fusion.lower import make_plan
from cyclegan_fast.fusion.modules import child, is_layer, plain_forward
from cyclegan_fast.fusion.purity import Untraceable
from cyclegan_fast.fusion.steps import ModuleStep, Plan

# Layers that gain even alone.
_FUSIBLE = (nn.InstanceNorm2d, nn.ReflectionPad2d)


@dataclass(frozen=True)
class Part:
    """One module that was looked at on its own.

    Attributes:
        path: its path in the network.
        module: itself.
        form: the call for which it was looked at.
        plan: its plan, or None.
        reason: why there is none, or "".
    """

    path: str
    module: nn.Module
    form: calls.Form
    plan: Plan | None
    reason: str = ""


def survey(net: nn.Module, memory_format: str) -> list[Part]:
    """Look at a network, at the modules its plan must leave whole, or at its children.

    Args:
        net: any module.
        memory_format: "channels_last" or "preserve".

    Returns:
        The parts, outer ones first. No module's plan reaches into that of another.
    """
    parts: list[Part] = []
    seen: set[nn.Module] = set()

    def visit(module: nn.Module, path: str) -> None:
        if module in seen:
            return
        if type(module).forward is nn.Module.forward:  # a ModuleList and its like
            for name, inner in module.named_children():
                visit(inner, _join(path, name))
            return
        if is_layer(module) and not isinstance(module, _FUSIBLE):
            return
        seen.add(module)
        form = calls.usual_form(plain_forward(module))
        try:
            plan = make_plan(module, *form, memory_format)
        except Untraceable as reason:
            parts.append(Part(path, module, form, None, str(reason)))
            inside = list(dict(module.named_children()))
        else:
            parts.append(Part(path, module, form, plan))
            called = [step.module for step in plan.steps if isinstance(step, ModuleStep)]
            inside = [name for name in called if not is_layer(child(module, name))]
        for name in dict.fromkeys(inside):
            visit(child(module, name), _join(path, name))

    visit(net, "")
    return parts


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
