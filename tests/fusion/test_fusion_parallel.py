# SPDX-License-Identifier: MIT
"""Accelerated networks under PyTorch's own data parallelism."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from cyclegan_fast import accelerate
from cyclegan_fast.fusion.accelerate import PlannedForward
from cyclegan_fast.fusion.modules import installed

sys.path.insert(0, str(Path(__file__).parent))
from foreign_networks import Contrastive  # noqa: E402
from fusion_compare import X, assert_same, network, run  # noqa: E402


def test_replicas_of_data_parallel_use_their_own_parameters():
    net = accelerate(network())
    replica = replicate(net)
    assert isinstance(installed(replica), PlannedForward)
    assert installed(replica).net is replica
    with torch.no_grad():
        expected = net(X)
        torch.testing.assert_close(replica(X), expected, rtol=0, atol=1e-12)
        for parameter in net.parameters():
            parameter.zero_()
        torch.testing.assert_close(replica(X), expected, rtol=0, atol=1e-12)
        assert not net(X).any()


def replicate(net: nn.Module) -> nn.Module:
    """What DataParallel makes of a network for another device, here for the same."""
    modules = list(net.modules())
    copies = {module: module._replicate_for_data_parallel() for module in modules}
    for module, made in copies.items():
        for name, child in module._modules.items():
            made._modules[name] = copies[child]
        for name, parameter in module._parameters.items():
            if parameter is None:
                made._parameters[name] = None
            else:  # a plain attribute, as torch.nn.parallel.replicate makes it
                setattr(made, name, parameter.detach().clone())
    return copies[net]


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_distributed_data_parallel_gets_its_zeros(one_process):
    expected = run(network(), X)
    net = nn.parallel.DistributedDataParallel(accelerate(network(), dead_bias_grad="zero"))
    for _ in range(3):  # a gradient that never comes shows in the second round
        ours = run(net, X)
    assert len(ours) == len(expected)
    for name, value in ours.items():
        name = name.replace("module.", "")
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-10)
    assert not ours["gradient of module.model.1.bias"].any()
    net = accelerate(network())
    net = nn.parallel.DistributedDataParallel(net, find_unused_parameters=True)
    for _ in range(3):
        assert_same({k.replace("module.", ""): v for k, v in run(net, X).items()}, expected)


def test_zero_gradients_for_tuples_and_not_for_frozen_biases():
    net = Contrastive(blocks=1).double()
    fast = accelerate(copy.deepcopy(net), dead_bias_grad="zero")
    fast.model[4].bias.requires_grad_(False)

    def call(m, x):
        return m(x, [2, 8])

    ours, expected = run(fast, X, call), run(net, X, call)
    assert expected.keys() - ours.keys() == {"gradient of model.4.bias"}
    assert_same(ours, expected)
    assert not ours["gradient of model.8.conv_block.1.bias"].any()
