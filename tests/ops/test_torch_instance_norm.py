# SPDX-License-Identifier: MIT
"""PyTorch's instance norm at batch 1 with a channels_last gradient: wrong, and ours is not.

Seen on CPUs in PyTorch 2.11 and 2.14, whatever the layout of the input. It is why the reference
lays its gradient out, and why nothing of ours runs PyTorch's norm in channels_last on a CPU.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import cyclegan_fast
from cyclegan_fast.ops import instance_norm_act
from cyclegan_fast.training.precision import Precision, resolve_layout

X = torch.randn(1, 8, 5, 4, dtype=torch.float64)
GRAD = torch.randn(1, 8, 5, 4, dtype=torch.float64)


def gradient(function, x=X, grad=GRAD):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf, grad)[0]


def by_hand(x: torch.Tensor) -> torch.Tensor:
    variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    return (x - mean) * (variance + 1e-5).rsqrt()


def test_ours_is_right_whatever_the_gradients_layout(device, each_backend):
    truth = gradient(by_hand)
    for x in (X, X.contiguous(memory_format=torch.channels_last)):
        for grad in (GRAD, GRAD.contiguous(memory_format=torch.channels_last)):
            ours = gradient(
                lambda x: instance_norm_act(x, act="none"), x.to(device), grad.to(device)
            )
            torch.testing.assert_close(ours.cpu(), truth, rtol=1e-10, atol=1e-10)


def test_pytorch_is_wrong_still():
    """Once this fails, PyTorch is mended, and what goes around it may go."""
    grad = GRAD.contiguous(memory_format=torch.channels_last)
    assert not torch.allclose(gradient(F.instance_norm, X, grad), gradient(by_hand))


def test_a_plan_that_leaves_a_norm_to_pytorch_leaves_the_layout_too():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.InstanceNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.InstanceNorm2d(8, track_running_stats=True),
        nn.ReLU(),
        nn.Conv2d(8, 3, 3),
    ).double()
    x = torch.randn(1, 3, 12, 12, dtype=torch.float64)
    results = []
    for fused in (False, True):
        if fused:
            cyclegan_fast.accelerate(net)
            text = str(cyclegan_fast.explain(net))
            assert "1 of 2 instance norms" in text
            assert "InstanceNorm2d is wrong for a channels_last one" in text
        leaf = x.clone().requires_grad_()
        y = net(leaf)
        results.append(torch.autograd.grad(y, leaf, torch.ones_like(y).cumsum(-1))[0])
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def test_plain_networks_train_in_the_layout_that_is_right():
    half = Precision("bf16", "cpu")
    assert resolve_layout("auto", half, accelerated=True) is torch.channels_last
    assert resolve_layout("auto", half, accelerated=False) is torch.contiguous_format
    on_gpu = Precision("bf16", "cuda")
    assert resolve_layout("auto", on_gpu, accelerated=False) is torch.channels_last
    with pytest.raises(ValueError, match="contiguous on a CPU without the fused ops"):
        resolve_layout("channels_last", half, accelerated=False)
