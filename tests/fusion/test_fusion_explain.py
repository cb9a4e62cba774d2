# SPDX-License-Identifier: MIT
"""explain() names every group, every layer that stays, and why."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from cyclegan_fast import accelerate, explain, models, restore

sys.path.insert(0, str(Path(__file__).parent))
from foreign_networks import FastNeuralStyle  # noqa: E402


def test_a_network_that_needs_autograd_in_training():
    text = str(explain(models.UnetGenerator(3, 3, 5, 2)))
    assert "a step of training needs autograd for it: FunctionStep of cat()\n" in f"{text}\n"


def test_the_papers_generator():
    net = models.ResnetGenerator(3, 3, 4)
    told = explain(net)
    assert not told.accelerated
    assert str(told).startswith(
        "ResnetGenerator: not accelerated; accelerate(net) would fuse: "
        "23 of 23 instance norms, 20 of 20 reflection pads\n"
    )
    told = explain(accelerate(net))
    assert told.accelerated and told.norms == (23, 23) and told.pads == (20, 20)
    assert len(told.fused) == 25
    assert told.fused[0] == "reflect_conv2d: model.0 ReflectionPad2d + model.1 Conv2d"
    assert told.fused[-1] == "reflect_conv2d: model.26 Conv2d + model.27 Tanh"
    assert told.fused[5] == (
        "instance_norm_act: model.10.conv_block.6 InstanceNorm2d + add() + "
        "model.11.conv_block.0 ReflectionPad2d"
    )
    (line,) = told.ordinary
    assert line.startswith("4 convolutions: PyTorch's own serve them, and in a step of training")
    text = str(told)
    assert "19 convolutions take an image as it comes" in text
    assert "23 convolution biases are followed by an instance norm" in text
    assert "9 values are read both padded and unpadded" in text
    assert "one backward pass takes both gradients" in text
    assert "a step of training walks it by hand, forward and backward" in text
    assert "converted to channels_last" in text
    assert "first derivatives only" in text
    assert "not accelerated" in str(explain(restore(net)))


def test_why_the_rest_is_not_fused():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.ReLU(),
        nn.ReflectionPad2d((1, 2, 1, 2)),
        nn.Conv2d(4, 4, 3),
        nn.InstanceNorm2d(4),
        nn.Dropout(0.5),
        nn.BatchNorm2d(4),
        nn.InstanceNorm2d(4),
        nn.utils.spectral_norm(nn.Conv2d(4, 4, 1)),
        FastNeuralStyle.Block(4),
    )
    net[8].register_forward_hook(lambda module, args, result: result)
    told = explain(accelerate(net))
    assert told.norms == (3, 5)
    assert told.pads == (2, 3)
    text = str(told)
    assert "1 InstanceNorm2d: it tracks running statistics" in text
    assert "3 ReflectionPad2d: it pads unequally: (1, 2, 1, 2)" in text
    assert "8 InstanceNorm2d: it has forward or backward hooks" in text
    assert "9 Conv2d: a hook computes its weight" in text
    assert "1 x Dropout: stays as it is" in text
    assert "1 x BatchNorm2d: stays as it is" in text
    assert "inputs keep their layout: 8 InstanceNorm2d may depend on strides" in text


def test_parts_of_a_network_that_cannot_be_planned_as_a_whole():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = FastNeuralStyle()

        def forward(self, x):
            return self.inner(x) if x.max() > 0 else x

    net = accelerate(Outer())
    told = explain(net)
    assert told.norms == (7, 7)
    assert told.ordinary[0].startswith("the network itself Outer: cannot be planned as a whole")
    assert all(line.endswith(" (in inner)") for line in told.fused)


def test_plain_calls_are_counted_and_told():
    net = accelerate(models.NLayerDiscriminator(3, 4))
    handle = nn.modules.module.register_module_forward_hook(lambda m, a, r: None)
    try:
        net(torch.randn(1, 3, 40, 40))
    finally:
        handle.remove()
    assert "1 calls of NLayerDiscriminator ran its plain forward: global module hooks" in str(
        explain(net)
    )
