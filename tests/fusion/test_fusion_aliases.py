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
from cyclegan_fast.fusion.steps import NormStep

sys.path.insert(0, str(Path(__file__).parent))
import bodies  # noqa: E402
from fusion_compare import assert_equal_to_plain, planned, run  # noqa: E402

# PyTorch itself refuses their backward: what was saved for it is written to.
FORWARD_ONLY = (
    bodies.write_to_the_sum_after_the_pad,
    bodies.iadd_to_the_sum_after_the_pad,
    bodies.write_through_an_identity,
    bodies.iadd_to_the_skip,
    bodies.write_to_the_norms_input,
    bodies.write_to_a_view_of_the_norms_input,
    bodies.unknown_function_writes_to_the_norms_input,
    bodies.unknown_module_writes_to_the_norms_input,
    bodies.write_by_index_to_the_norms_input,
)


@pytest.mark.parametrize("body", bodies.CASES, ids=lambda body: body.__name__)
@pytest.mark.parametrize("memory_format", ["channels_last", "preserve"])
def test_values_and_gradients_are_the_plain_networks(body, memory_format):
    x = torch.randn(2, 3, 7, 8)
    if body not in FORWARD_ONLY:
        assert_equal_to_plain(bodies.Net(body).eval(), x, memory_format=memory_format)
        return
    net, x = bodies.Net(body).double(), x.double()
    with torch.no_grad():
        expected = net(x)
        ours = accelerate(net, memory_format=memory_format)(x)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        run(copy.deepcopy(restore(net)), x)


@pytest.mark.parametrize("body", bodies.CASES, ids=lambda body: body.__name__)
def test_without_a_batch_dimension(body):
    """Either the same, or the same refusal."""
    net = bodies.Net(body).double().eval()
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
    return [step for step in plan_of(bodies.Net(body)).steps if isinstance(step, NormStep)]


@pytest.mark.parametrize(
    ("body", "acts", "pads", "residuals"),
    [
        (bodies.late_reader_of_the_norm, ["relu"], [0], [False]),
        (bodies.early_reader_of_the_norm, ["none"], [0], [False]),
        (bodies.other_reader_of_a_norm_not_written, ["none"], [0], [False]),
        (bodies.view_of_the_norm_read_late, ["none"], [0], [False]),
        (bodies.write_to_the_sum_after_the_pad, ["none"], [0], [False]),
        (bodies.write_to_the_padded_copy, ["relu"], [0], [False]),
        (bodies.write_through_an_identity, ["none"], [0], [False]),
        (bodies.iadd_to_the_norm, ["none", "none"], [1, 0], [True, False]),
        (bodies.iadd_to_the_skip, ["none"], [0], [False]),
        (bodies.sum_of_a_value_with_itself, ["none"], [0], [False]),
        (bodies.two_norms_in_one_sum, ["none", "none"], [0, 1], [False, True]),
        (bodies.view_needs_strides, ["none"], [0], [False]),
        (bodies.norm_output_returned_beside_its_pad, ["relu"], [0], [False]),
        (bodies.two_pads_of_one_value, ["relu"], [1], [False]),
        (bodies.conv_read_twice_keeps_its_bias, ["none"], [0], [True]),
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


def test_only_a_value_read_unpadded_has_an_interior():
    def interiors(body):
        steps = plan_of(bodies.Net(body)).steps
        return [s for s in steps if isinstance(s, NormStep) and s.interior is not None]

    assert not interiors(bodies.conv_read_twice_keeps_its_bias)
    assert len(interiors(bodies.two_pads_of_one_value)) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (bodies.unknown_function_writes_to_the_norms_input, "doubles() may depend on strides"),
        (bodies.unknown_module_writes_to_the_norms_input, "doubles Doubles may depend on strides"),
        (bodies.view_needs_strides, "forward calls .view(), which depends on strides"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_layout_is_left_alone_where_somebody_might_notice(body, reason):
    plan = plan_of(bodies.Net(body))
    assert (plan.memory_format, plan.memory_format_reason) == ("preserve", reason)


def test_one_tensor_given_twice():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.InstanceNorm2d(3)

        def forward(self, a, b):
            n = self.norm(a)
            b.mul_(3).add_(1).pow_(3)
            return F.relu(n)

    x = torch.randn(1, 3, 5, 5, dtype=torch.float64)
    net = accelerate(Two())
    with torch.no_grad():
        expected = Two()(x.clone(), x.clone())
        same = x.clone()
        torch.testing.assert_close(net(same, same), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("shape", ["same", "broadcast"])
def test_a_sum_of_two_dtypes_has_pytorchs_dtype(in_place, shape):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.norm = nn.InstanceNorm2d(3)

        def forward(self, x, skip):
            y = self.norm(self.conv(x))
            if in_place:
                y += skip
                return y
            return skip + y

    x = torch.randn(1, 3, 8, 8)
    skip = x if shape == "same" else x.mean((2, 3), keepdim=True)
    net = Mixed()
    fast = accelerate(copy.deepcopy(net))
    assert len(planned(fast)[""].plans[0].fused[0].inputs) == 2
    with torch.autocast("cpu", torch.bfloat16):
        expected, ours = net(x, skip), fast(x, skip)
    assert ours.dtype == expected.dtype == (torch.bfloat16 if in_place else torch.float32)
    torch.testing.assert_close(ours, expected, rtol=0.02, atol=0.02)
