# SPDX-License-Identifier: MIT
"""Say what of a network is fused, what is not, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import nn

from cyclegan_fast.fusion.accelerate import PlannedForward
from cyclegan_fast.fusion.hand_steps import why_not
from cyclegan_fast.fusion.modules import installed
from cyclegan_fast.fusion.neighbours import Neighbours
from cyclegan_fast.fusion.steps import ConvStep, NormStep, PadStep, Plan
from cyclegan_fast.fusion.survey import Part, survey


@dataclass(frozen=True)
class Explanation:
    """What :func:`explain` found; as text with ``str()``.

    Attributes:
        network: name of the network's class.
        accelerated: whether any of it runs on plans now; if not, the rest says what would.
        norms: (fused, all) instance norms.
        pads: (served by the package, all) reflection pads.
        fused: one line for every fused group.
        ordinary: one line for everything that stays as it is, with the reason where there is one.
        notes: what else is good to know.
    """

    network: str
    accelerated: bool
    norms: tuple[int, int]
    pads: tuple[int, int]
    fused: tuple[str, ...]
    ordinary: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        state = "accelerated" if self.accelerated else "not accelerated; accelerate(net) would fuse"
        lines = [
            f"{self.network}: {state}: {self.norms[0]} of {self.norms[1]} instance norms, "
            f"{self.pads[0]} of {self.pads[1]} reflection pads"
        ]
        for title, entries in (
            ("fused", self.fused),
            ("ordinary", self.ordinary),
            ("notes", self.notes),
        ):
            if entries:
                lines.append(f"{title}:")
                lines += [f"  {entry}" for entry in entries]
        return "\n".join(lines)


def explain(net: nn.Module) -> Explanation:
    """Say which parts of a network run as fused ops, which do not, and why not.

    Args:
        net: any module, accelerated or not.

    Returns:
        An :class:`Explanation`; print it.

    Raises:
        TypeError: net is no module.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"explain: net must be a torch.nn.Module, got {type(net).__name__}")
    found = [installed(module) for module in net.modules()]
    planned = [forward for forward in found if isinstance(forward, PlannedForward)]
    memory_format = planned[0].memory_format if planned else "channels_last"
    parts = survey(net, memory_format)
    plans = [part.plan for part in parts if part.plan is not None]
    unfused = [entry for plan in plans for entry in plan.unfused]
    fused = [step for plan in plans for step in plan.fused]
    norms = sum(isinstance(step, NormStep) for step in fused)
    pads = sum(1 for step in fused if step.pad)
    missed = sum(_is_pad(label) for label, _ in unfused)
    return Explanation(
        network=type(net).__name__,
        accelerated=bool(planned),
        norms=(norms, norms + len(unfused) - missed),
        pads=(pads, pads + missed),
        fused=tuple(_group(part, step) for part in parts if part.plan for step in part.plan.fused),
        ordinary=(*_unplanned(parts), *_unfused(parts), *_ordinary(plans)),
        notes=(*_notes(plans), *_walk(net, parts), *_calls(planned)),
    )


def _is_pad(label: str) -> bool:
    return label.endswith("ReflectionPad2d") or label == "pad()"


_OPS = {
    NormStep: "instance_norm_act",
    PadStep: "reflect_pad2d",
    ConvStep: "reflect_conv2d",
}


def _group(part: Part, step: NormStep | PadStep | ConvStep) -> str:
    op = _OPS[type(step)]
    within = f" (in {part.path})" if part.path else ""
    return f"{op}: {' + '.join(step.members)}{within}"


def _unplanned(parts: list[Part]) -> list[str]:
    return [
        f"{part.path or 'the network itself'} {type(part.module).__name__}: cannot be planned as a "
        f"whole, so its children are looked at: {part.reason}"
        for part in parts
        if part.plan is None
    ]


def _unfused(parts: list[Part]) -> list[str]:
    return [
        f"{label}{f' (in {part.path})' if part.path else ''}: {reason}"
        for part in parts
        if part.plan is not None
        for label, reason in part.plan.unfused
    ]


def _ordinary(plans: list[Plan]) -> list[str]:
    lines = []
    others = sum(not step.served for step in _convolutions(plans))
    if others:
        lines.append(
            f"{others} convolutions: PyTorch's own serve them, and in a step of training ours "
            "where `tune` has found them faster"
        )
    entries = [entry for plan in plans for entry in plan.ordinary]
    lines += [f"{label}: {reason}" for label, reason in entries if reason]
    kinds = Counter(label.split()[-1] for label, reason in entries if not reason)
    lines += [f"{count} x {kind}: stays as it is" for kind, count in kinds.items()]
    return lines


def _convolutions(plans: list[Plan]) -> list[ConvStep]:
    return [step for plan in plans for step in plan.steps if isinstance(step, ConvStep)]


def _notes(plans: list[Plan]) -> list[str]:
    notes = []
    alone = sum(step.served and not step.pad for step in _convolutions(plans))
    if alone:
        notes.append(
            f"{alone} convolutions take an image as it comes, padded already or not at all: "
            "reflect_conv2d serves them too"
        )
    padded = sum(step.served and step.pad > 0 for step in _convolutions(plans))
    if padded:
        notes.append(
            f"{padded} convolutions take an image that no norm has padded: kernels of ours mirror "
            "it while they load, and for the library reflect_conv2d writes the padded copy"
        )
    dead = sum(len(plan.dead_biases) for plan in plans)
    if dead:
        notes.append(
            f"{dead} convolution biases are followed by an instance norm, which takes them away: "
            "they are not read and get no gradient (DistributedDataParallel waits for one: use "
            'accelerate(net, dead_bias_grad="zero") or find_unused_parameters=True)'
        )
    norms = [step for plan in plans for step in plan.steps if isinstance(step, NormStep)]
    skips = sum(step.interior is not None for step in norms)
    if skips:
        notes.append(
            f"{skips} values are read both padded and unpadded: one buffer holds both, and one "
            "backward pass takes both gradients"
        )
    for plan in plans:
        if plan.fused and plan.memory_format_reason:
            notes.append(f"inputs keep their layout: {plan.memory_format_reason}")
        elif plan.fused and plan.memory_format == "channels_last":
            notes.append("inputs are converted to channels_last, and results back")
    if plans:
        notes.append("first derivatives only: restore(net) before a second one is taken")
    return list(dict.fromkeys(notes))


def _walk(net: nn.Module, parts: list[Part]) -> list[str]:
    """How `train` would run it, where it has one plan."""
    plan = parts[0].plan if len(parts) == 1 and not parts[0].path else None
    weight = next((p for p in net.parameters() if p.is_floating_point()), None)
    if plan is None or weight is None:
        return []
    reason = why_not(plan, dict(net.named_modules()), weight.device, weight.dtype)
    if reason is not None:
        return [f"a step of training needs autograd for it: {reason}"]
    lines = ["a step of training walks it by hand, forward and backward"]
    if Neighbours(plan).entry is not None:
        lines.append("there the picture is padded where it is copied in, if the library serves")
    return lines


def _calls(planned: list[PlannedForward]) -> list[str]:
    return [
        f"{count} calls of {type(forward.net).__name__} ran its plain forward: {reason}"
        for forward in planned
        for reason, count in forward.plain_calls.items()
    ]
