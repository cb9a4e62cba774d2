# SPDX-License-Identifier: MIT
"""The counter of launches and bytes counts what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from count_launches import Counter  # noqa: E402

from cyclegan_fast.ops import instance_norm_act  # noqa: E402


def test_a_small_network_by_hand():
    x = torch.randn(1, 3, 8, 8)
    weight, bias = torch.randn(4, 3, 3, 3, requires_grad=True), torch.randn(4, requires_grad=True)
    with Counter() as counter:
        y = F.conv2d(x, weight, bias)  # 4 x 6 x 6
        z = instance_norm_act(y, pad=1)  # 4 x 8 x 8
        z.view(-1)[:5].detach()  # views: nothing
        torch.empty(100)  # nothing
        z.backward(torch.zeros_like(z))
    groups = counter.groups
    convolutions = groups["convolutions"]
    assert dict(convolutions.names) == {"fprop": 1, "wgrad": 1, "gradient of a bias": 1}
    x_size, w_size, y_size, b_size, z_size = (4 * n for n in (192, 108, 144, 4, 256))
    forward = x_size + w_size + b_size + y_size
    backward = (y_size + x_size + w_size) + (y_size + b_size)
    assert convolutions.bytes == forward + backward
    ours = groups["ours"]
    assert dict(ours.names) == {"instance_norm_act": 2, "instance_norm_act_backward": 2}
    statistics = 2 * 4 * 4
    assert ours.bytes >= (y_size + z_size + statistics) + (z_size + y_size + statistics + y_size)
    assert dict(groups["fills"].names) == {"zeros_like": 1}
    assert set(groups) == {"convolutions", "ours", "fills"}


def test_an_expanded_tensor_counts_as_the_memory_that_it_has():
    one = torch.ones(1)
    with Counter() as counter:
        one.expand(1000) + 0
    assert counter.groups["other"].names["add"] == 1
    assert counter.groups["other"].bytes == 4 + 4000
