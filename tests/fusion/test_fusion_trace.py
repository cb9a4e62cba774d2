# SPDX-License-Identifier: MIT
"""What tracing must not get wrong in silence: each such module stays whole, and says why."""

from __future__ import annotations

import copy
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cyclegan_fast import accelerate, explain, restore
from cyclegan_fast.fusion import plan_of
from cyclegan_fast.fusion.purity import Untraceable

sys.path.insert(0, str(Path(__file__).parent))
from foreign_networks import Odd  # noqa: E402
from fusion_compare import planned, run  # noqa: E402


class Part(nn.Module):
    """A convolution and a norm, with a forward to be given."""

    def __init__(self, body):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.InstanceNorm2d(3)
        self.table = [1.0, 2.0]
        self.count = 0
        self.body = body

    def forward(self, x):
        return self.body(self, x)


class Double(torch.autograd.Function):
    """A gradient that tracing through forward would lose."""

    @staticmethod
    def forward(ctx, x):
        return x * 1.0

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def branch_on_values(m, x):
    return m.norm(m.conv(x)) if x.sum() > 0 else x


def without_gradients(m, x):
    with torch.no_grad():
        return m.norm(m.conv(x))


def without_autocast(m, x):
    with torch.autocast("cpu", enabled=False):
        return m.norm(m.conv(x))


def with_autocast(m, x):
    with torch.autocast("cpu", torch.bfloat16):
        return m.norm(m.conv(x))


def with_gradients(m, x):
    with torch.enable_grad():
        return m.norm(m.conv(x))


def checkpointed(m, x):
    return checkpoint(lambda y: m.norm(m.conv(y)), x, use_reentrant=False)


def own_gradient(m, x):
    return Double.apply(m.norm(m.conv(x)))


def noise_of_python(m, x):
    return m.norm(m.conv(x)) * random.random()


def noise_of_numpy(m, x):
    return m.norm(m.conv(x)) * float(np.random.rand())


def noise_of_torch(m, x):
    return m.norm(m.conv(x)) + torch.rand(1)


def tensor_of_its_own(m, x):
    return m.norm(m.conv(x)) + torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)


def counts_its_calls(m, x):
    m.count += 1
    return m.norm(m.conv(x)) * m.count


CALLS = []


def counts_globally(m, x):
    CALLS.append(1)
    return m.norm(m.conv(x)) * (len(CALLS) > 0 and len(CALLS) % 2 + 1)


def keeps_its_features(m, x):
    m.features = m.conv(x)
    return m.norm(m.features)


def fills_a_list(m, x):
    y = m.conv(x)
    m.table.append(y)
    return m.norm(y)


def asks_for_a_class(m, x):
    y = m.norm(m.conv(x))
    return y if isinstance(y, torch.Tensor) else y[0]


def registers_a_hook(m, x):
    y = m.conv(x)
    if y.requires_grad:
        y.register_hook(lambda grad: 3 * grad)
    return m.norm(y)


REASONS = {
    branch_on_values: "control flow",
    without_gradients: "gradient or autocast mode",
    without_autocast: "gradient or autocast mode",
    with_autocast: "gradient or autocast mode",
    with_gradients: "gradient or autocast mode",
    checkpointed: "gradient or autocast mode, or checkpoints",
    # torch 2.14 asks for the class of what it is given first, 2.11 switches the mode first.
    own_gradient: "the class of a value|gradient or autocast mode",
    noise_of_python: "random numbers",
    noise_of_numpy: "random numbers",
    noise_of_torch: "a tensor of its own",
    tensor_of_its_own: "a tensor of its own",
    counts_its_calls: "attribute 'count'",
    counts_globally: "does not do the same thing in every call",
    keeps_its_features: "attribute 'features'",
    fills_a_list: "attribute 'table'",
    asks_for_a_class: "the class of a value",
    registers_a_hook: "control flow",
}


@pytest.mark.parametrize("body", REASONS, ids=lambda body: body.__name__)
def test_refused_with_the_reason_and_without_a_trace(body):
    part = Part(body)
    before = {name: copy.copy(value) for name, value in part.__dict__.items()}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with pytest.raises(Untraceable, match=REASONS[body]):
        plan_of(part)
    assert part.__dict__ == before
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == states


FOUND_OUT_LATE = (
    noise_of_python,
    noise_of_numpy,
    counts_its_calls,
    counts_globally,
    keeps_its_features,
    fills_a_list,
)


@pytest.mark.parametrize("body", REASONS, ids=lambda body: body.__name__)
def test_inside_a_network_it_runs_whole_between_planned_parts(body):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 3, 3),
        nn.InstanceNorm2d(3),
        nn.ReLU(),
        Part(body),
        nn.InstanceNorm2d(3, affine=True),
    ).double()
    if body in FOUND_OUT_LATE:
        # Found out only at the end of a trace, so it counts against the whole.
        with pytest.raises(Untraceable):
            plan_of(net)
    else:
        plan = plan_of(net)
        assert len(plan.fused) == 2
        assert any(re.search(REASONS[body], reason) for _, reason in plan.ordinary)
        assert plan.memory_format == "preserve"
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    CALLS.clear(), random.seed(1), np.random.seed(1)
    expected = run(copy.deepcopy(net), x)
    fast = accelerate(net)
    assert planned(fast)
    assert re.search(REASONS[body], str(explain(fast)))
    CALLS.clear(), random.seed(1), np.random.seed(1)
    ours = run(fast, x)
    tolerance = 0.03 if body is with_autocast else 1e-10
    for name, value in ours.items():
        torch.testing.assert_close(value, expected[name], rtol=tolerance, atol=tolerance)


def test_what_can_be_traced_in_spite_of_appearances():
    torch.manual_seed(0)
    net = Odd().double()
    assert len(plan_of(net).fused) == 1
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    for kwargs in ({}, {"factor": 3}):
        expected = run(copy.deepcopy(net), x, lambda m, y, k=kwargs: m(y, **k))
        fast = accelerate(copy.deepcopy(net))
        ours = run(fast, x, lambda m, y, k=kwargs: m(y, **k))
        assert expected.keys() - ours.keys() == {"gradient of conv.bias"}
        for name, value in ours.items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-10)
        assert fast(x, **kwargs)[1]["size"] == (5, 6)
        assert not planned(fast)[""].plain_calls
    with pytest.raises(AssertionError, match="foreign_networks.py:"):
        fast(x[0])


def test_a_network_that_cannot_be_traced_has_its_children_accelerated():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Conv2d(3, 3, 3), nn.InstanceNorm2d(3), nn.ReLU()) for _ in range(2)
            )
            self.norm = nn.InstanceNorm2d(3)

        def forward(self, x):
            for block in self.blocks:
                if x.mean() > -1e9:
                    x = block(x)
            return self.norm(x)

    net = Two().double()
    x = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    expected = run(copy.deepcopy(net), x)
    fast = accelerate(net)
    assert list(planned(fast)) == ["blocks.0", "blocks.1", "norm"]
    for name, value in run(fast, x).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-10)
    explanation = explain(fast)
    assert explanation.norms == (3, 3)
    assert "the network itself Two: cannot be planned as a whole" in str(explanation)


def test_a_block_in_two_places_is_one_part():
    block = nn.Sequential(nn.Conv2d(3, 3, 3), nn.InstanceNorm2d(3), nn.ReLU())

    class Sharing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.ModuleList([block])
            self.second = nn.ModuleList([block])

        def forward(self, x):
            x = self.first[0](x)
            return self.second[0](x) if x.mean() > -1e9 else x

    net = accelerate(Sharing().double())
    x = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    assert explain(net).norms == (1, 1)
    assert planned(net)["first.0"].previous is None
    ours = net(x)
    torch.testing.assert_close(ours, restore(net)(x), rtol=0, atol=1e-12)
