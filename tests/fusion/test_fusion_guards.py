# SPDX-License-Identifier: MIT
"""A network changed after accelerate() computes what it would have computed without it."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cyclegan_fast import accelerate, explain, restore
from cyclegan_fast.fusion.accelerate import MOST_PLANS, MOST_RENEWALS

sys.path.insert(0, str(Path(__file__).parent))
import changes  # noqa: E402
import foreign_networks  # noqa: E402
from changes import X, network  # noqa: E402
from fusion_compare import planned, run  # noqa: E402


def plans_renewed(net: nn.Module) -> int:
    return planned(net)[""]._renewals


@pytest.mark.parametrize("change", changes.CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("walked_before", [True, False])
def test_the_change_counts(change, walked_before):
    plain, fast = network(), accelerate(network())
    if walked_before:
        plain(X), fast(X)
    torch.manual_seed(6)
    change(plain)
    torch.manual_seed(6)
    change(fast)
    torch.manual_seed(6)
    expected = run(plain, X)
    torch.manual_seed(6)
    ours = run(fast, X)
    assert set(ours) <= set(expected)
    assert {name for name in expected if not name.endswith("bias")} <= set(ours)
    for name, value in ours.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-8)
    assert not planned(fast)[""].plain_calls
    for (name, buffer), other in zip(fast.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(buffer, other, rtol=0, atol=1e-10, msg=name)


def test_what_does_not_matter_renews_nothing():
    net = accelerate(network())
    net.step = 0
    for step in range(3):
        net.step = step
        net.model.epoch = step
        net.train(step % 2 == 0)
        net(X)
    changes.new_parameters(net)
    net(X.clone())
    assert plans_renewed(net) == 0


class Flagged(nn.Module):
    """Reads a flag, a number, its training mode, a set, a list through a helper; not its steps."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.InstanceNorm2d(3)
        self.use_norm = True
        self.factor = 2.0
        self.shifts = [1, 2]
        self.marks = {"a"}
        self.step = 0
        self.lift = 0.5

    @property
    def gain(self):
        return self.factor

    def at_the_end(self):
        return self.step

    def forward(self, x):
        y = self.conv(x)
        if self.use_norm:
            y = F.relu(self.norm(y))
        if self.training:
            y = y * 3
        if "b" in self.marks:
            y = y - 1
        y = foreign_networks.lifted(self, y)
        return shifted(self, y) * self.gain


def shifted(module, y):
    return y + sum(module.shifts)


def test_flags_numbers_and_training_mode_count():
    net = Flagged().double()
    fast = accelerate(copy.deepcopy(net))
    x = torch.randn(1, 3, 5, 5, dtype=torch.float64)

    def both(change):
        change(net), change(fast)
        torch.testing.assert_close(fast(x), net(x), rtol=0, atol=1e-12)

    both(lambda m: None)
    both(lambda m: m.eval())
    both(lambda m: m.train())
    both(lambda m: setattr(m, "factor", 5.0))
    both(lambda m: m.shifts.append(4))
    both(lambda m: setattr(m, "use_norm", False))
    both(lambda m: setattr(m, "use_norm", True))
    both(lambda m: m.marks.add("b"))
    both(lambda m: setattr(m, "lift", 1.5))
    assert plans_renewed(fast) == 8
    for step in range(3):
        both(lambda m, step=step: setattr(m, "step", step))
    assert plans_renewed(fast) == 8


def test_attributes_read_by_a_computed_name_count():
    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.InstanceNorm2d(3)
            self.factor_a = 2.0

        def forward(self, x, which="a"):
            return self.norm(x) * getattr(self, f"factor_{which}")

    net = accelerate(Dynamic().double())
    x = torch.randn(1, 3, 5, 5, dtype=torch.float64)
    before = net(x)
    net.factor_a = 3.0
    torch.testing.assert_close(net(x), 1.5 * before, rtol=0, atol=1e-12)


def test_a_network_that_always_changes_runs_plainly_in_the_end_and_says_so():
    net = accelerate(Flagged().double())
    x = torch.randn(1, 3, 5, 5, dtype=torch.float64)
    for step in range(MOST_RENEWALS + 3):
        net.factor = float(step)
        net(x)
    assert list(planned(net)[""].plain_calls) == [
        f"the network changed more than {MOST_RENEWALS} times"
    ]
    assert "ran its plain forward" in str(explain(net))


def test_plain_arguments_are_part_of_the_call():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.InstanceNorm2d(3)

        def forward(self, x, times=1, names=("a",), extra=None, *, relu=True):
            for _ in range(times):
                x = self.norm(x)
            if times is True:
                x = x * 7
            if extra is not None:
                x = x + extra
            return {name: F.relu(x) if relu else x for name in names}

    net = Steps().double()
    fast = accelerate(copy.deepcopy(net))
    x = torch.randn(1, 3, 5, 5, dtype=torch.float64)
    for args, kwargs in (
        ((x,), {}),
        ((x, 2), {}),
        ((x, 1), {}),
        ((x, True), {}),
        ((), {"x": x, "times": 2}),
        ((x, 1, ["b", "c"]), {"relu": False}),
        ((x,), {"extra": x, "relu": False}),
        ((x,), {"extra": 3}),
        ((x, 1), {"extra": x}),
    ):
        ours, expected = fast(*args, **kwargs), net(*args, **kwargs)
        assert list(ours) == list(expected)
        for name in ours:
            torch.testing.assert_close(ours[name], expected[name], rtol=0, atol=1e-12)
    forward = planned(fast)[""]
    assert not forward.plain_calls
    assert len(forward.plans) == 8  # x, 2 by place and by name is one form
    fast(x, names={"a": 1})
    assert list(forward.plain_calls) == ["an argument is neither a tensor nor a plain value"]
    for times in range(2, MOST_PLANS + 3):
        torch.testing.assert_close(fast(x, times)["a"], net(x, times)["a"], rtol=0, atol=1e-9)
    assert f"it is called in more than {MOST_PLANS} forms" in forward.plain_calls


def test_what_could_not_be_traced_is_tried_again_when_the_network_has_changed():
    class Choosy(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.InstanceNorm2d(3)
            self.odd = True

        def forward(self, x, kind="a"):
            if self.odd and kind == "b" and x.sum() > 1e9:
                return x
            return self.norm(x)

    net = accelerate(Choosy().double())
    x = torch.randn(1, 3, 5, 5, dtype=torch.float64)
    expected = net(x)
    torch.testing.assert_close(net(x, "b"), expected, rtol=0, atol=1e-12)
    (reason,) = planned(net)[""].plain_calls
    assert "control flow" in reason
    net.odd = False
    for kind in ("a", "b", "b"):
        torch.testing.assert_close(net(x, kind), expected, rtol=0, atol=1e-12)
    assert planned(net)[""].plain_calls == {reason: 1}


def test_an_argument_that_forward_writes_to_is_written_to():
    class Appends(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.InstanceNorm2d(3)

        def forward(self, x, wanted=()):
            if wanted:
                wanted.append(7)
            return self.norm(x)

    net = accelerate(Appends().double())
    wanted = [1]
    net(torch.randn(1, 3, 5, 5, dtype=torch.float64), wanted)
    assert wanted == [1, 7]
    assert "changes its arguments" in next(iter(planned(net)[""].plain_calls))


def test_global_hooks_are_called_for_every_module():
    net = accelerate(network())
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, a, r: seen.append(type(m)))
    try:
        y = net(X)
    finally:
        handle.remove()
    assert seen.count(nn.InstanceNorm2d) == 9
    assert "global module hooks" in str(explain(net))
    torch.testing.assert_close(y, restore(net)(X), rtol=0, atol=1e-12)
