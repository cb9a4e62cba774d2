# SPDX-License-Identifier: MIT
"""The counter of launches and bytes counts what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import least_bytes  # noqa: E402
from count_launches import (  # noqa: E402
    IN_THE_LEAST,
    IN_TRITON,
    ON_LOAD,
    RECORD,
    Counter,
    Group,
    count,
)

from cyclegan_fast.benchmark.ours import OursIteration  # noqa: E402
from cyclegan_fast.ops import instance_norm_act, reflect_conv2d  # noqa: E402


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_small_network_by_hand(layout):
    x = torch.randn(1, 3, 8, 8).contiguous(memory_format=layout)
    weight, bias = torch.randn(4, 3, 3, 3, requires_grad=True), torch.randn(4, requires_grad=True)
    with Counter() as counter:
        y = F.conv2d(x, weight, bias)  # 4 x 6 x 6
        z = instance_norm_act(y, pad=1)  # 4 x 8 x 8
        z.flatten(2)[:, 2:].detach()  # views: nothing
        torch.empty(100)  # nothing
        z.backward(torch.zeros_like(z))
    groups = counter.groups
    convolutions = groups["convolutions"]
    assert dict(convolutions.names) == {"fprop": 1, "wgrad": 1, "gradient of a bias": 1}
    x_size, w_size, y_size, b_size, z_size = (4 * n for n in (192, 108, 144, 4, 256))
    forward = x_size + w_size + b_size + y_size
    backward = (y_size + x_size + w_size) + (y_size + b_size)
    assert convolutions.bytes == forward + backward
    ours = groups["norms"]
    # A plane is a block's own, and stays in its cache; few channels side by side are split.
    times = 2 if layout == torch.channels_last else 1
    assert dict(ours.names) == {"instance_norm_act": times, "instance_norm_act_backward": times}
    statistics = 2 * 4 * 4
    # Backward reads the gradient and x and writes that of x; sums and statistics.
    forward = times * y_size + z_size + statistics
    backward = times * (z_size + y_size) + y_size + 2 * statistics
    assert ours.bytes == forward + backward
    assert dict(groups["fills"].names) == {"zeros_like": 1}
    assert set(groups) == {"convolutions", "norms", "fills"}


def test_a_padded_convolution_by_hand():
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    weight, bias = torch.randn(4, 3, 3, 3, requires_grad=True), torch.randn(4, requires_grad=True)
    with Counter() as counter:
        y = reflect_conv2d(x, weight, bias, padding=1, act="tanh")  # of 3 x 10 x 10: 4 x 8 x 8
        y.backward(torch.zeros_like(y))
    convolutions, pads = counter.groups["convolutions"], counter.groups["pads"]
    parts = {"fprop": 1, "dgrad": 1, "wgrad": 1, "gradient of a bias": 1}
    assert dict(convolutions.names) == parts
    assert sum(pads.names.values()) == 3  # forward, its adjoint, and again for wgrad
    assert dict(counter.groups["other"].names) == {"tanh": 1, "tanh_backward": 1}
    x_size, padded, w_size, y_size, b_size = (4 * n for n in (192, 300, 108, 256, 4))
    forward, gradient = padded + w_size + b_size + y_size, y_size + b_size
    assert convolutions.bytes == forward + 2 * (y_size + padded + w_size) + gradient
    assert pads.bytes == 3 * (x_size + padded)
    assert counter.groups["other"].bytes == 5 * y_size


def test_channels_that_fit_on_chip_are_normalised_in_one_launch():
    x = torch.randn(2, 256, 32, 32).contiguous(memory_format=torch.channels_last)
    with Counter() as counter:
        y = instance_norm_act(x)
    norms = counter.groups["norms"]
    assert norms.launches == 1
    assert norms.bytes == 4 * (x.numel() + y.numel() + 2 * 512)


def test_an_expanded_tensor_counts_as_the_memory_that_it_has():
    one = torch.ones(1)
    with Counter() as counter:
        one.expand(1000) + 0
    assert counter.groups["other"].names["add"] == 1
    assert counter.groups["other"].bytes == 4 + 4000


def test_an_optimiser_reads_and_writes():
    parameter = torch.zeros(1000, requires_grad=True)
    adam = torch.optim.Adam([parameter], fused=True)
    parameter.grad = torch.ones(1000)
    adam.step()
    with Counter() as counter:
        adam.step()
    # Gradient, parameter and two moments are read, all but the gradient written; and a step count.
    assert 7 * 4000 <= counter.groups["optimisers"].bytes <= 7 * 4000 + 100


def test_the_least_is_that_of_upstreams_networks():
    generator, discriminator = least_bytes.generator(256), least_bytes.discriminator(256)
    assert sum(x.weight + x.channels for x in generator) == 11_378_179
    assert sum(x.weight + x.channels for x in discriminator) == 2_764_737
    assert [x.size for x in discriminator] == [128, 64, 32, 31, 30]
    once, twice = (least_bytes.least(256, batch) for batch in (1, 2))
    for group, (launches, moved) in once.items():
        assert twice[group][0] == launches and moved <= twice[group][1] <= 2 * moved


def recorded(row: str) -> dict[str, dict[str, int]]:
    """Group -> operation -> launches, as committed."""
    groups = json.loads(RECORD.read_text())["256 batch 1"]["rows"][row]["groups"]
    return {name: launches_of(group["operations"]) for name, group in groups.items()}


def launches_of(operations: dict[str, dict]) -> dict[str, int]:
    return {name: operation["launches"] for name, operation in operations.items()}


def counted(groups: dict[str, Group]) -> dict[str, dict[str, int]]:
    """Likewise, as counted here.."""
    return {
        name: {operation: group.names[operation] for operation in group.moved}
        for name, group in groups.items()
    }


def test_a_walk_by_hand_takes_each_weight_gradient_once():
    images = tuple(torch.zeros(2, 1, 3, 256, 256))
    groups, alone = (
        count(OursIteration("bf16", graph=False, images=images, merge=merge, pair=pair))
        for merge, pair in (("on", "on"), ("off", "off"))
    )
    # Copies, casts and fills too: who adds or saves one renews the record, and says why.
    assert counted(groups) == recorded("ours bf16")
    assert counted(alone) == recorded("ours bf16, each pass alone")
    convolutions = groups["convolutions"].names
    # 24 of each generator, 5 of each discriminator: two passes of the former, one of the latter.
    assert convolutions["wgrad"] == 2 * 24 + 2 * 5
    assert convolutions["fprop"] == 2 * (2 * 24) + 2 * 5
    assert convolutions["dgrad"] == 2 * (24 + 23) + 2 * 5
    # Pictures side by side make more norms resident; those of a discriminator are small.
    assert 0 <= alone["norms"].bytes - groups["norms"].bytes < 0.003 * alone["norms"].bytes
    assert sum(group.launches for group in groups.values()) <= 650


def test_an_iteration_moves_no_more_than_the_least_and_the_terms_beyond_it():
    """With each pass alone, as the least is counted; convolutions are counted, not computed."""
    images = tuple(torch.zeros(2, 1, 3, 256, 256))
    groups = count(OursIteration("bf16", graph=False, images=images, merge="off"))
    assert sum(group.launches for group in groups.values()) <= 1450
    beyond = {
        name: moved
        for group in groups.values()
        for name, moved in group.moved.items()
        if name not in IN_THE_LEAST
    }
    assert {"tanh", "_to_copy", "reflect_conv2d pad", "leaky_relu_"} < set(beyond)
    least = sum(moved for _, moved in least_bytes.least(256, 1).values())
    moved = sum(group.bytes for group in groups.values())
    assert moved - sum(beyond.values()) <= least
    assert moved <= 1.02 * least, "the terms beyond it have grown"


def in_triton(**how):
    images = tuple(torch.zeros(2, 1, 3, 256, 256))
    iteration = OursIteration("bf16", graph=False, images=images, pair="on")
    groups = count(iteration, triton=True, **how)
    assert counted(groups) == recorded(ON_LOAD if how.get("on_load") else IN_TRITON)
    assert sum(group.launches for group in groups.values()) <= 350
    assert not {name for name in groups["pads"].names}
    convolutions = groups["convolutions"]
    # 24 layers of a generator, in two passes; 5 of a discriminator, in one; A's with B's. Of the
    # blocks' 18 weight gradients two launches.
    assert convolutions.names["fprop"] == 2 * 24 + 5
    assert convolutions.names["dgrad"] == 24 + 23 + 5
    assert convolutions.names["wgrad"] == 24 - 18 + 2 + 5
    assert convolutions.names["wgrad split sums"] <= 24 - 18 + 2 + 5
    least = least_bytes.least_joined(256, 1, on_load=how.get("on_load", False))
    return (
        groups,
        sum(group.bytes for group in groups.values()),
        sum(moved for _, moved in least.values()),
    )


def test_with_convolutions_in_triton_networks_share_launches_and_norms_read_once():
    groups, moved, least = in_triton()
    finished = ("instance_norm_act_finish", "instance_norm_act_bwd_finish")
    assert dict(groups["norms"].names) == dict.fromkeys(finished, 2 * 23 + 3)
    # What is left for norms is no byte beyond the least, but for the skips' gradients and what
    # passes from kernel to kernel; the sums of splits are, and so is the rest.
    assert 6.5e9 < least < 6.7e9
    splits = groups["convolutions"].moved["wgrad split sums"]
    assert moved - splits <= 1.05 * least
    assert moved <= 1.1 * least


def test_with_norms_on_load_sums_with_a_residual_alone_are_written():
    groups, moved, least = in_triton(on_load=True)
    norms = groups["norms"].names
    # Of a generator's 23 norms nine add, and one begins what they add to.
    assert norms["instance_norm_act_finish"] == 2 * 10
    assert norms["statistics from chunks"] == 2 * 13 + 3
    assert norms["sums from chunks"] == 2 * 23 + 3
    assert not norms["instance_norm_act_bwd_finish"]
    assert 5.3e9 < least < 5.5e9
    assert moved <= 1.1 * least
