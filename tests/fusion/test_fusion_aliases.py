# SPDX-License-Identifier: MIT
"""Writes in place: a fused step moves reads and writes, and nobody may notice."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cyclegan_fast import accelerate, restore
from cyclegan_fast.fusion import plan_of
from cyclegan_fast.fusion.steps import InteriorStep, NormStep

sys.path.insert(0, str(Path(__file__).parent))
from fusion_compare import assert_equal_to_plain, planned, run  # noqa: E402


class Net(nn.Module):
    """Two convolutions and norms, and a forward given as a function of them."""

    def __init__(self, body):
        super().__init__()
        torch.manual_seed(4)
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.norm1 = nn.InstanceNorm2d(4, affine=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.norm2 = nn.InstanceNorm2d(4)
        self.relu_ = nn.ReLU(inplace=True)
        self.relu = nn.ReLU()
        self.pad = nn.ReflectionPad2d(1)
        self.identity = nn.Identity()
        self.drop = nn.Dropout(0.5)
        nn.init.normal_(self.norm1.weight)
        nn.init.normal_(self.norm1.bias)
        self.body = body

    def forward(self, x):
        return self.body(self, x)


def late_reader_of_the_norm(m, x):
    y = m.norm1(m.conv1(x))
    z = m.relu_(y)
    return m.conv2(z) + y  # y is activated by now


def early_reader_of_the_norm(m, x):
    y = m.norm1(m.conv1(x))
    early = y * 2
    return m.conv2(m.relu_(y)) + early


def other_reader_of_a_norm_not_written(m, x):
    y = m.norm1(m.conv1(x))
    return m.relu(y) + 3 * y


def view_of_the_norm_read_late(m, x):
    y = m.norm1(m.conv1(x))
    view = y[:, :2]
    z = m.relu_(y)
    return m.conv2(z)[:, :2] + view


def write_to_the_sum_after_the_pad(m, x):
    s = m.norm1(m.conv1(x))
    p = m.pad(s)
    s = m.relu_(s)  # the padded copy keeps the values from before
    return F.avg_pool2d(p, 3, 1) + s


def write_to_the_padded_copy(m, x):
    s = m.relu(m.norm1(m.conv1(x)))
    p = m.pad(s).mul_(2)  # the unpadded value keeps its own
    return F.avg_pool2d(p, 3, 1) + s


def write_through_an_identity(m, x):
    s = m.norm1(m.conv1(x))
    p = m.pad(s)
    m.identity(s).add_(1)
    return F.avg_pool2d(p, 3, 1) + s


def write_through_a_view_of_the_padded_copy(m, x):
    s = m.relu(m.norm1(m.conv1(x)))
    p = m.pad(s)
    p[:, :1] = 5.0
    return F.avg_pool2d(p, 3, 1) + s


def iadd_to_the_norm(m, x):
    y = m.conv1(x)
    z = m.norm1(y)
    z += m.norm2(m.conv2(y))
    return m.pad(z)


def iadd_to_the_skip(m, x):
    skip = m.relu(m.conv1(x))
    view = skip[:, 1:]
    skip += m.norm2(m.conv2(skip.clone()))
    return skip.sum(1, keepdim=True) + view


def iadd_read_early_under_its_old_name(m, x):
    y = m.conv1(x)
    z = m.norm1(y)
    early = z.sum()
    z += y
    return m.conv2(z) + early


def sum_of_a_value_with_itself(m, x):
    y = m.norm1(m.conv1(x))
    return m.conv2(y + y)


def two_norms_in_one_sum(m, x):
    y = m.conv1(x)
    return m.pad(m.norm1(y) + m.norm2(m.conv2(y)))


def broadcast_residual(m, x):
    y = m.conv1(x)
    return m.pad(m.norm2(m.conv2(y)) + y.mean((2, 3), keepdim=True))


def norm_broadcast_to_a_larger_residual(m, x):
    y = m.conv1(x)
    return m.pad(m.norm2(m.conv2(y[:1])) + y)


def broadcast_iadd(m, x):
    y = m.conv1(x)
    z = m.norm2(m.conv2(y))
    z += y.mean(1, keepdim=True)
    return m.pad(z)


def number_times_size_added(m, x):
    y = m.norm1(m.conv1(x))
    return y + x.size(2)


def two_pads_of_one_value(m, x):
    s = m.relu(m.norm1(m.conv1(x)))
    return (
        m.conv2(m.pad(s))[:, :, 1:-1, 1:-1]
        + F.pad(s, (2, 2, 2, 2), mode="reflect")[..., 3:-1, 3:-1]
    )


def unequal_pad(m, x):
    s = m.relu(m.norm1(m.conv1(x)))
    return F.pad(s, (1, 0, 1, 0), mode="reflect")


def view_needs_strides(m, x):
    s = m.norm1(m.conv1(x))
    return m.pad(s).sum() + s.view(s.size(0), -1)


def norm_output_returned_beside_its_pad(m, x):
    s = m.relu_(m.norm1(m.conv1(x)))
    return s, m.pad(s)


def dead_value_with_a_write(m, x):
    y = m.norm1(m.conv1(x))
    y.mul_(3)
    return m.conv2(y)


def norm_of_the_input_and_a_write_to_it(m, x):
    y = m.norm2(m.conv1(x))
    x = x * 1.0
    m.relu_(x)
    return y.sum(1, keepdim=True) + x


def shared_layers(m, x):
    y = m.relu_(m.norm1(m.conv1(x)))
    y = m.relu_(m.norm1(m.conv2(m.pad(y))))
    return m.conv2(m.relu(m.norm1(y)))


def functional_pad_and_dropout_in_eval(m, x):
    s = m.drop(m.relu(m.norm1(m.conv1(x))))
    return m.conv2(F.pad(s, [1, 1, 1, 1], "reflect"))


def conv_read_twice_keeps_its_bias(m, x):
    y = m.conv1(x)
    return m.norm1(y) + y


def slope_and_eps(m, x):
    y = F.leaky_relu(m.norm1(m.conv1(x)), 0.37)
    return F.leaky_relu(F.instance_norm(y, eps=0.1), negative_slope=0.5, inplace=True)


CASES = [
    value
    for value in list(globals().values())
    if getattr(value, "__code__", None) and value.__code__.co_varnames[:2] == ("m", "x")
]


# PyTorch itself refuses their backward: what was saved for it is written to.
FORWARD_ONLY = (write_to_the_sum_after_the_pad, write_through_an_identity, iadd_to_the_skip)


@pytest.mark.parametrize("body", CASES, ids=lambda body: body.__name__)
@pytest.mark.parametrize("memory_format", ["channels_last", "preserve"])
def test_values_and_gradients_are_the_plain_networks(body, memory_format):
    x = torch.randn(2, 3, 7, 8)
    if body not in FORWARD_ONLY:
        assert_equal_to_plain(Net(body).eval(), x, memory_format=memory_format)
        return
    net, x = Net(body).double(), x.double()
    with torch.no_grad():
        expected = net(x)
        ours = accelerate(net, memory_format=memory_format)(x)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        run(copy.deepcopy(restore(net)), x)


@pytest.mark.parametrize("body", CASES, ids=lambda body: body.__name__)
def test_without_a_batch_dimension(body):
    """Either the same, or the same refusal."""
    net = Net(body).double().eval()
    x = torch.randn(3, 7, 8, dtype=torch.float64)
    with torch.no_grad():
        try:
            expected = net(x)
        except (RuntimeError, ValueError, IndexError) as error:
            with pytest.raises(type(error)):
                accelerate(net)(x)
            return
        torch.testing.assert_close(accelerate(net)(x), expected, rtol=0, atol=1e-10)


def fused(body) -> list[NormStep]:
    return [step for step in plan_of(Net(body)).steps if isinstance(step, NormStep)]


@pytest.mark.parametrize(
    ("body", "acts", "pads", "residuals"),
    [
        (late_reader_of_the_norm, ["relu"], [0], [False]),
        (early_reader_of_the_norm, ["none"], [0], [False]),
        (other_reader_of_a_norm_not_written, ["none"], [0], [False]),
        (view_of_the_norm_read_late, ["none"], [0], [False]),
        (write_to_the_sum_after_the_pad, ["none"], [0], [False]),
        (write_to_the_padded_copy, ["relu"], [0], [False]),
        (write_through_an_identity, ["none"], [0], [False]),
        (iadd_to_the_norm, ["none", "none"], [1, 0], [True, False]),
        (iadd_to_the_skip, ["none"], [0], [False]),
        (sum_of_a_value_with_itself, ["none"], [0], [False]),
        (two_norms_in_one_sum, ["none", "none"], [0, 1], [False, True]),
        (view_needs_strides, ["none"], [0], [False]),
        (norm_output_returned_beside_its_pad, ["relu"], [0], [False]),
        (two_pads_of_one_value, ["relu"], [1], [False]),
        (conv_read_twice_keeps_its_bias, ["none"], [0], [True]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_joined(body, acts, pads, residuals):
    steps = fused(body)
    assert [step.act for step in steps] == acts
    assert sorted(step.pad for step in steps) == sorted(pads)
    assert sorted(len(step.inputs) == 2 for step in steps) == sorted(residuals)


def test_a_network_that_writes_to_its_input_still_does():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Sequential(
                nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.ReLU(True)
            )

        def forward(self, x):
            return self.model(x)

    net = accelerate(Writes())
    assert planned(net)[""].plans[0].memory_format == "preserve"
    x = torch.randn(1, 3, 6, 6)
    before = x.clone()
    net(x)
    assert torch.equal(x, before.relu())


def test_the_interior_is_a_view_and_its_gradient_one_pad():
    plan = plan_of(Net(conv_read_twice_keeps_its_bias))
    assert not any(isinstance(step, InteriorStep) for step in plan.steps)
    plan = plan_of(Net(two_pads_of_one_value))
    assert sum(isinstance(step, InteriorStep) for step in plan.steps) == 1
