# SPDX-License-Identifier: MIT
"""Which convolutions, pads and tanhs a step of reflect_conv2d stands for, and which it must not."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cyclegan_fast import accelerate, backend, explain, models
from cyclegan_fast.fusion import plan_of
from cyclegan_fast.fusion.guard import bind
from cyclegan_fast.fusion.steps import ConvStep, PadStep
from cyclegan_fast.fusion.walk import walk, without_tanh

sys.path.insert(0, str(Path(__file__).parent))
from fusion_compare import assert_equal_to_plain  # noqa: E402

X = torch.randn(2, 3, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def convolutions(net: nn.Module) -> list[tuple[bool, int, str]]:
    """(served, pad, activation) of each convolution."""
    steps = [step for step in plan_of(net).steps if isinstance(step, ConvStep)]
    return [(step.served, step.pad, step.act) for step in steps]


def pads(net: nn.Module) -> list[int]:
    """Pads that stand alone."""
    return [step.pad for step in plan_of(net).steps if isinstance(step, PadStep)]


class TanhMethod(nn.Sequential):
    def forward(self, x):
        return super().forward(x).tanh()


class TwoReadersOfThePad(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x):
        y = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return self.conv(y) + y.mean()


class TwoReadersOfTheConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.pad, self.conv = nn.ReflectionPad2d(1), nn.Conv2d(3, 3, 3)

    def forward(self, x):
        y = self.conv(self.pad(x))
        return torch.tanh(y) + y


class WritesWhatWasPadded(nn.Module):
    def __init__(self):
        super().__init__()
        self.pad, self.conv = nn.ReflectionPad2d(1), nn.Conv2d(3, 3, 3)

    def forward(self, x):
        x = x * 2
        y = self.pad(x)
        x += 1
        return self.conv(y) + x


def _conv(*args, **kwargs):
    return nn.Sequential(nn.Conv2d(*args, **kwargs), nn.InstanceNorm2d(args[1]))


NETWORKS = {
    "pad, conv, tanh": (
        lambda: nn.Sequential(nn.ReflectionPad2d(2), nn.Conv2d(3, 4, 5, 2), nn.Tanh()),
        [(True, 2, "tanh")],
        [],
    ),
    "tanh as a method": (
        lambda: TanhMethod(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3, bias=False)),
        [(True, 1, "tanh")],
        [],
    ),
    "its own reflection": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.Tanh()),
        [(True, 1, "tanh")],
        [],
    ),
    "a dead bias behind its own reflection": (
        lambda: _conv(3, 4, 3, padding=1, padding_mode="reflect"),
        [(True, 1, "none")],
        [],
    ),
    "its own reflection, unequal": (
        lambda: _conv(3, 4, 3, padding=(1, 2), padding_mode="reflect"),
        [(False, 0, "none")],
        [],
    ),
    "pad before its own reflection": (
        lambda: nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")
        ),
        [(True, 1, "none")],
        [1],
    ),
    "zeros": (lambda: _conv(3, 4, 3, padding=1), [(False, 0, "none")], []),
    "a string": (lambda: _conv(3, 4, 3, padding="same"), [(False, 0, "none")], []),
    "groups": (lambda: _conv(3, 6, 3, groups=3), [(False, 0, "none")], []),
    "dilation": (lambda: _conv(3, 4, 3, dilation=2), [(False, 0, "none")], []),
    "two strides": (lambda: _conv(3, 4, 3, stride=(1, 2)), [(False, 0, "none")], []),
    "transposed": (
        lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.ConvTranspose2d(3, 4, 3), nn.Tanh()),
        [(False, 0, "none")],
        [1],
    ),
    "the pad is read elsewhere": (TwoReadersOfThePad, [(True, 0, "none")], [1]),
    "the convolution is read elsewhere": (TwoReadersOfTheConvolution, [(True, 1, "none")], []),
    "what was padded is written to": (WritesWhatWasPadded, [(True, 0, "none")], [1]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_a_step_takes_in(name):
    build, expected, lone_pads = NETWORKS[name]
    torch.manual_seed(0)
    net = build()
    assert convolutions(net) == expected
    assert pads(net) == lone_pads
    if name == "what was padded is written to":  # which autograd refuses in the plain network
        with torch.no_grad():
            fast = accelerate(copy.deepcopy(net).double())
            torch.testing.assert_close(fast(X), net.double()(X), rtol=0, atol=1e-12)
    elif plan_of(net).fused:
        assert_equal_to_plain(net, X)


def test_an_image_without_a_batch():
    net = nn.Sequential(nn.ReflectionPad2d(2), nn.Conv2d(3, 4, 5, 2), nn.Tanh()).double()
    fast = accelerate(copy.deepcopy(net))
    torch.testing.assert_close(fast(X[0]), net(X[0]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "value"),
    [("stride", (2, 1)), ("groups", 3), ("dilation", (2, 2)), ("padding", (1, 1))],
)
def test_a_convolution_changed_later_is_looked_at_again(name, value):
    net = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, 3, 3), nn.Tanh()).double()
    fast = accelerate(copy.deepcopy(net))
    fast(X)
    for each in (net, fast):
        setattr(each[1], name, value)
        if name == "groups":
            each[1].weight = nn.Parameter(net[1].weight[:, :1].detach().clone())
    torch.testing.assert_close(fast(X), net(X), rtol=0, atol=1e-12)


def test_reflect_conv2d_serves_the_generator():
    net = accelerate(models.ResnetGenerator(3, 3, 4, n_blocks=2))
    with backend.record() as served:
        net(torch.randn(1, 3, 16, 16)).mean().backward()
    assert served["reflect_conv2d", "native"] == served["reflect_conv2d_backward", "native"] == 6
    assert not any(op.startswith("reflect_pad2d") for op, _ in served)
    assert "reflect_conv2d: model.0 ReflectionPad2d + model.1 Conv2d" in explain(net).fused


def test_the_last_tanh_can_be_left_out():
    net = models.ResnetGenerator(3, 3, 4, n_blocks=1).double()
    plan = plan_of(net)
    modules, x = bind(net, plan.guards), torch.randn(1, 3, 16, 16, dtype=torch.float64)
    before, after = walk(without_tanh(plan, modules), modules, (x,)), walk(plan, modules, (x,))
    torch.testing.assert_close(before.tanh(), after, rtol=0, atol=1e-14)
    assert not torch.equal(before, after)
    torch.testing.assert_close(nn.Sequential(*net.model[:-1])(x), before, rtol=0, atol=1e-12)


def test_only_a_plan_that_ends_in_a_tanh_can_leave_it_out():
    for net in (nn.Sequential(nn.Conv2d(3, 3, 3), nn.Tanh(), nn.InstanceNorm2d(3)), _conv(3, 4, 3)):
        plan = plan_of(net)
        assert without_tanh(plan, bind(net, plan.guards)) is None
