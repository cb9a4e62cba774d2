# SPDX-License-Identifier: MIT
"""The networks once more, each as one function of its state dict: what the modules must compute."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]


def conv(x: Tensor, state: State, name: str, **options) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)


def up(x: Tensor, state: State, name: str, **options) -> Tensor:
    return F.conv_transpose2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)


def resnet(x: Tensor, state: State, blocks: int) -> Tensor:
    def reflect(y, p):
        return F.pad(y, (p, p, p, p), mode="reflect")

    x = F.relu(F.instance_norm(conv(reflect(x, 3), state, "model.1")))
    x = F.relu(F.instance_norm(conv(x, state, "model.4", stride=2, padding=1)))
    x = F.relu(F.instance_norm(conv(x, state, "model.7", stride=2, padding=1)))
    for i in range(10, 10 + blocks):
        y = F.relu(F.instance_norm(conv(reflect(x, 1), state, f"model.{i}.conv_block.1")))
        x = x + F.instance_norm(conv(reflect(y, 1), state, f"model.{i}.conv_block.5"))
    for i in (10 + blocks, 13 + blocks):
        x = up(x, state, f"model.{i}", stride=2, padding=1, output_padding=1)
        x = F.relu(F.instance_norm(x))
    return torch.tanh(conv(reflect(x, 3), state, f"model.{17 + blocks}"))


def unet(x: Tensor, state: State, downs: int) -> Tensor:
    def level(x: Tensor, prefix: str, depth: int) -> Tensor:
        # The skip carries the activated tensor: the first layer of a level works in place.
        x = F.leaky_relu(x, 0.2)
        y = conv(x, state, f"{prefix}.1", stride=2, padding=1)
        if depth < downs:
            y = level(F.instance_norm(y), f"{prefix}.3.model", depth + 1)
            y = up(F.relu(y), state, f"{prefix}.5", stride=2, padding=1)
        else:
            y = up(F.relu(y), state, f"{prefix}.3", stride=2, padding=1)
        return torch.cat([x, F.instance_norm(y)], 1)

    y = conv(x, state, "model.model.0", stride=2, padding=1)
    y = level(y, "model.model.1.model", 2)
    return torch.tanh(up(F.relu(y), state, "model.model.3", stride=2, padding=1))


def patch(x: Tensor, state: State, layers: int) -> Tensor:
    x = F.leaky_relu(conv(x, state, "model.0", stride=2, padding=1), 0.2)
    for i in range(layers):
        stride = 2 if i < layers - 1 else 1
        x = conv(x, state, f"model.{2 + 3 * i}", stride=stride, padding=1)
        x = F.leaky_relu(F.instance_norm(x), 0.2)
    return conv(x, state, f"model.{2 + 3 * layers}", padding=1)


def pixel(x: Tensor, state: State) -> Tensor:
    x = F.leaky_relu(conv(x, state, "net.0"), 0.2)
    x = F.leaky_relu(F.instance_norm(conv(x, state, "net.2")), 0.2)
    return conv(x, state, "net.5")
