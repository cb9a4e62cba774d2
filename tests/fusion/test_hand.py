# SPDX-License-Identifier: MIT
"""Plans walked by hand: results and every gradient are those of autograd, on the same plans."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cyclegan_fast import accelerate, backend, models
from cyclegan_fast.fusion import by_hand, hand_norm, hand_steps
from cyclegan_fast.fusion.autograd_walk import AutogradWalk
from cyclegan_fast.fusion.hand import alone
from cyclegan_fast.fusion.hand_runs import Part, Run

sys.path.insert(0, str(Path(__file__).parent))
from foreign_networks import every_foreign_network  # noqa: E402
from hand_walks import (  # noqa: E402
    FORMATS,
    KINDS,
    by_autograd,
    check,
    pictures,
    prepared,
    walk_of,
)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_one_pass_of_three_parts(kind, together, memory_format, device, each_backend):
    if each_backend == "reference":
        pytest.skip("runs under autograd alone: test_what_cannot_be_walked_is_named")
    if each_backend == "triton" and device == "cpu":
        pytest.skip("reflect_conv2d has no float64 kernel in Triton: test_in_float32")
    plain, net = (n.to(device) for n in prepared(kind, memory_format))
    x = [p.to(device) for p in pictures((16, 20), (16, 20), (16, 20), n=2)]
    asked = [(False, True), (True, False), (True, False)]
    parts = [Part(p, *flags) for p, flags in zip(x, asked, strict=True)]
    walk = walk_of(net, x[0], 6, together=together)
    check(plain, net, parts, walk, [slice(0, 3)])


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_two_passes_as_a_generators(kind, memory_format):
    plain, net = prepared(kind, memory_format)
    x = pictures((16, 20), (16, 20), (16, 20))
    parts = [Part(x[0], True, False), Part(x[1], True, False), Part(x[2], True, True)]
    check(plain, net, parts, walk_of(net, x[0], 3), [slice(0, 2), slice(2, 3)])


def test_pictures_of_different_sizes():
    plain, net = prepared("resnet", FORMATS[1])
    x = pictures((16, 20), (12, 16), (16, 20))
    parts = [Part(x[0], True, True), Part(x[1], True, True), Part(x[2], True, True)]
    check(plain, net, parts, walk_of(net, x[0], 3), [slice(0, 2), slice(2, 3)])


def test_frozen_parameters_take_no_gradient():
    _, net = prepared("affine", FORMATS[0])
    net.first.weight.requires_grad_(False)
    net.norm.bias.requires_grad_(False)
    (x,) = pictures((8, 8))
    walk = walk_of(net, x, 1)
    made = alone(walk.forward([Part(x, True, False)]))
    alone(walk.backward(made, [torch.randn_like(made.outputs[0])]))
    assert net.first.weight.grad is None and net.norm.bias.grad is None
    assert net.norm.weight.grad is not None and net.same.weight.grad is not None


class Calls(TorchDispatchMode):
    """Counts what is called."""

    def __init__(self):
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name == "convolution_backward":
            name = "".join(" xwb"[1:][i] for i, need in enumerate(args[-1]) if need)
        if name == "reflect_conv2d_backward":
            name = "".join("xwb"[i] for i, need in enumerate(args[6:9]) if need)
        self.names[name] += 1
        return func(*args, **(kwargs or {}))


def test_a_weight_gradient_is_taken_once_and_nothing_is_joined_by_copying():
    _, net = prepared("resnet", FORMATS[1])
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    x = pictures((16, 20), (16, 20), (16, 20))
    walk = walk_of(net, x[0], 3)
    made = alone(walk.forward([Part(x[0], True, False), Part(x[1], True, False)]))
    again = alone(walk.forward([Part(x[2], True, True)]))
    upstream = [torch.randn_like(y) for y in (*made.outputs, *again.outputs)]
    with Calls() as calls:
        alone(walk.backward(again, upstream[2:]))
        alone(walk.backward(made, upstream[:2]))
    weights = sum(n for name, n in calls.names.items() if name in ("w", "wb"))
    assert weights == len(convolutions)
    assert calls.names["x"] == 2 * len(convolutions) - 1  # the first pass's pictures want none
    # The upstream gradients of the first pass; and the result and its gradient, of both passes,
    # which no kernel of ours has written.
    assert calls.names["cat"] == 3


@pytest.mark.parametrize("each_backend", ["native", "triton"])
def test_in_float32(each_backend):
    with backend.use_backend(each_backend):
        plain, net = (n.float() for n in prepared("resnet", FORMATS[1]))
        x = pictures((8, 12), (8, 12), dtype=torch.float32)
        walk = walk_of(net, x[0], 2)
        made = alone(walk.forward([Part(x[0], True, True), Part(x[1], True, True)]))
        upstream = [torch.randn_like(y) for y in made.outputs]
        ours = alone(walk.backward(made, upstream))
        parts = [Part(p.double(), True, True) for p in x]
        truth = by_autograd(plain.double(), parts, [g.double() for g in upstream])
    for y, expected in zip([*made.outputs, *ours], [*truth[0], *truth[1]], strict=True):
        bound = 1e-4 * expected.abs().max().item()
        torch.testing.assert_close(y.double(), expected, rtol=0, atol=bound)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_under_autograd_the_same_is_asked(kind, together, memory_format):
    plain, net = prepared(kind, memory_format)
    x = pictures((16, 20), (16, 20), (16, 20), n=2)
    asked = [(False, True), (True, False), (True, False)]
    parts = [Part(p, *flags) for p, flags in zip(x, asked, strict=True)]
    check(plain, net, parts, AutogradWalk(net, net, together=together), [slice(0, 3)])
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_under_autograd_two_passes_as_a_generators(kind, memory_format):
    plain, net = prepared(kind, memory_format)
    x = pictures((16, 20), (12, 16), (16, 20))
    parts = [Part(x[0], True, False), Part(x[1], True, False), Part(x[2], True, True)]
    walk = AutogradWalk(net, net, together=True)
    check(plain, net, parts, walk, [slice(0, 2), slice(2, 3)])


REASONS = {
    "unet": "FunctionStep",
    "dropout": "(Dropout)",
    "parametrized": "model.4",
    "hooked": "hooks",
    "plain": "not accelerated",
    "reference": "reference back end",
}


@pytest.mark.parametrize("kind", REASONS)
def test_what_cannot_be_walked_is_named(kind):
    net = models.ResnetGenerator(3, 3, 4, "instance", kind == "dropout", 1)
    if kind == "unet":
        net = models.UnetGenerator(3, 3, 5, 2, "instance")
    if kind == "parametrized":
        nn.utils.parametrizations.weight_norm(net.model[4])
    if kind != "plain":
        accelerate(net)
    if kind == "hooked":
        net.register_forward_hook(lambda *_: None)
    with backend.use_backend("reference" if kind == "reference" else "auto"):
        reason = by_hand(net, torch.zeros(1, 3, 32, 32), torch.float32, tanhless=False)
    assert isinstance(reason, str) and REASONS[kind] in reason


def test_foreign_networks_name_the_step():
    for name, (net, shape) in every_foreign_network().items():
        reason = by_hand(accelerate(net), torch.randn(shape), torch.float32, tanhless=False)
        named = isinstance(reason, str) and any(
            word in reason for word in ("FunctionStep of", "model.7", "more than one tensor")
        )
        assert named, f"{name}: {reason}"


def test_a_sum_that_broadcasts_is_refused_with_the_way_out():
    _, net = prepared("zero padding", FORMATS[0])
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    plan, modules = by_hand(net, x, x.dtype, tanhless=False)
    step = next(s for s in plan.steps if len(s.inputs) > 1)
    registers = [None] * plan.registers
    registers[step.inputs[0]] = torch.randn(1, 16, 4, 4, dtype=torch.float64)
    registers[step.inputs[1]] = torch.randn(1, 16, 1, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="--merge off"):
        hand_norm.forward(step, modules, registers, None)


# What is broken -> a network that must notice.
def lost_second_reader(monkeypatch):
    monkeypatch.setattr(hand_steps.Gradients, "add", lambda self, r, g: self._held.update({r: g}))


def weights_of_all_parts(monkeypatch):
    right = Run.span

    def span(self, wanted):
        of_weights = wanted(Part(torch.empty(0), weights=True, picture=False))
        return right(self, (lambda part: True) if of_weights else wanted)

    monkeypatch.setattr(Run, "span", span)


def activation_of_the_input(monkeypatch):
    monkeypatch.setattr(hand_steps, "_activation_backward", lambda module, y, of_y: of_y)


def never_asked(monkeypatch):
    monkeypatch.setattr(AutogradWalk, "_ask", lambda self, wanted: None)


def parts_in_another_order(monkeypatch):
    right = AutogradWalk._groups
    monkeypatch.setattr(AutogradWalk, "_groups", lambda self, parts: right(self, parts)[::-1])


@pytest.mark.parametrize("wrong", [never_asked, parts_in_another_order])
def test_a_wrong_walk_under_autograd_differs(wrong, monkeypatch):
    wrong(monkeypatch)
    with pytest.raises(AssertionError):
        test_under_autograd_the_same_is_asked("patch", True, FORMATS[0])


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (lost_second_reader, "zero padding"),
        (weights_of_all_parts, "patch"),
        (activation_of_the_input, "patch"),
    ],
)
def test_a_wrong_walk_differs(wrong, kind, monkeypatch):
    wrong(monkeypatch)
    with pytest.raises(AssertionError):
        test_one_pass_of_three_parts(kind, True, FORMATS[0], "cpu", "native")
