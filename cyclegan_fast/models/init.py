# SPDX-License-Identifier: MIT
"""Initial weights, by the rules of pytorch-CycleGAN-and-pix2pix."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import nn

from cyclegan_fast.models.arguments import check_choice

INIT_TYPES = ("normal", "xavier", "kaiming", "orthogonal")

Net = TypeVar("Net", bound=nn.Module)


@torch.no_grad()
def init_weights(
    net: Net,
    init_type: str = "normal",
    init_gain: float = 0.02,
    generator: torch.Generator | None = None,
) -> Net:
    """Draw a network's weights anew, in place.

        normal      w ~ N(0, gain^2)
        xavier      w ~ N(0, gain^2 * 2 / (fan_in + fan_out))
        kaiming     w ~ N(0, 2 / fan_in), gain unused
        orthogonal  w = gain * a random orthogonal matrix

    for every module whose class name holds "Conv" or "Linear", its bias 0; a BatchNorm2d's weight
    ~ N(1, gain^2), its bias 0. Other modules, an affine instance norm among them, stay as they are.
    Modules are visited children first, in the order of ``net.apply``, so that the same seed gives
    the same weights as there.

    Args:
        net: any network.
        init_type: "normal", "xavier", "kaiming" or "orthogonal".
        init_gain: standard deviation or scale, see above.
        generator: the source of randomness, on the weights' device; PyTorch's own if None.

    Returns:
        The same network.

    Raises:
        ValueError: unknown init_type, or a gain that is not finite.
    """
    check_choice("init_weights", "init_type", init_type, INIT_TYPES)
    if not math.isfinite(init_gain):
        raise ValueError(f"init_weights: init_gain must be finite, got {init_gain}")

    def visit(module: nn.Module) -> None:
        name = type(module).__name__
        weight = getattr(module, "weight", None)
        if weight is not None and ("Conv" in name or "Linear" in name):
            _draw(weight, init_type, init_gain, generator)
        elif weight is not None and "BatchNorm2d" in name:
            nn.init.normal_(weight, 1.0, init_gain, generator=generator)
        else:
            return
        bias = getattr(module, "bias", None)
        if bias is not None:
            nn.init.zeros_(bias)

    net.apply(visit)
    return net


def _draw(
    weight: torch.Tensor, init_type: str, gain: float, generator: torch.Generator | None
) -> None:
    if init_type == "normal":
        nn.init.normal_(weight, 0.0, gain, generator=generator)
    elif init_type == "xavier":
        nn.init.xavier_normal_(weight, gain=gain, generator=generator)
    elif init_type == "kaiming":
        nn.init.kaiming_normal_(weight, a=0, mode="fan_in", generator=generator)
    else:
        nn.init.orthogonal_(weight, gain=gain, generator=generator)
