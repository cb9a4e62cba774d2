# SPDX-License-Identifier: MIT
"""The U-Net generator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cyclegan_fast.models.arguments import check_int, norm_layer

SLOPE = 0.2
LEAST_DOWNS = 5  # four levels double the channels; the innermost one is the fifth


class UnetSkipConnectionBlock(nn.Module):
    """One level of the U-Net: halve, go through the inner level, double, and keep the input beside.

        y = cat(x', up(inner(down(x'))))   with x' = leaky_relu(x)

    The leading LeakyReLU works in place, so what travels over the skip is the *activated* tensor.
    Published weights were trained with that; it is part of the network.

    Args:
        outer_nc: channels of this level's output before the concatenation.
        inner_nc: channels between this level and the inner one.
        norm: builds a norm layer from its number of channels.
        use_bias: whether convolutions beside a norm have a bias.
        input_nc: channels of this level's input (default outer_nc).
        submodule: the inner level; None for the innermost.
        outermost: image in, image out: no leading activation, no skip, tanh at the end.
        use_dropout: put Dropout(0.5) at the end.
    """

    def __init__(
        self,
        outer_nc: int,
        inner_nc: int,
        norm: Callable[[int], nn.Module],
        use_bias: bool,
        *,
        input_nc: int | None = None,
        submodule: nn.Module | None = None,
        outermost: bool = False,
        use_dropout: bool = False,
    ) -> None:
        super().__init__()
        self.outermost = outermost
        innermost = submodule is None
        layers: list[nn.Module] = [] if outermost else [nn.LeakyReLU(SLOPE, inplace=True)]
        layers.append(nn.Conv2d(input_nc or outer_nc, inner_nc, 4, 2, 1, bias=use_bias))
        if not outermost and not innermost:
            layers.append(norm(inner_nc))
        if submodule is not None:
            layers.append(submodule)
        layers.append(nn.ReLU(inplace=True))
        up_nc = inner_nc if innermost else 2 * inner_nc
        bias = True if outermost else use_bias
        layers.append(nn.ConvTranspose2d(up_nc, outer_nc, 4, 2, 1, bias=bias))
        layers.append(nn.Tanh() if outermost else norm(outer_nc))
        if use_dropout:
            layers.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, outer_nc, H, W] from the outermost level, else x' and it, side by side."""
        if self.outermost:
            return self.model(x)
        return torch.cat([x, self.model(x)], 1)


class UnetGenerator(nn.Module):
    """U-Net generator: ``num_downs`` halvings down to the bottleneck and back, with skips.

    State-dict keys, shapes, their order and the default initialisation are those of
    pytorch-CycleGAN-and-pix2pix, so weights load both ways.

    Args:
        input_nc: channels of the input image.
        output_nc: channels of the output image.
        num_downs: number of halvings, at least 5; 7 for images of 128, 8 for 256 pixels a side.
        ngf: channels of the outermost level.
        norm: "instance", "batch" or "none".
        use_dropout: put Dropout(0.5) into the levels of 8 ngf channels.

    Input and output: [N, C, H, W] in [-1, 1], H and W multiples of 2^num_downs.

    Raises:
        TypeError: a size that is no int.
        ValueError: a size below its least value, or an unknown norm.

    Source: Isola et al. 2017, arXiv:1611.07004, section 6.1.
    """

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        num_downs: int,
        ngf: int = 64,
        norm: str = "instance",
        use_dropout: bool = False,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        for name, value, least in (
            ("input_nc", input_nc, 1),
            ("output_nc", output_nc, 1),
            ("num_downs", num_downs, LEAST_DOWNS),
            ("ngf", ngf, 1),
        ):
            check_int(owner, name, value, least)
        layer, use_bias = norm_layer(owner, norm)

        def level(outer: int, inner: int, **options) -> UnetSkipConnectionBlock:
            return UnetSkipConnectionBlock(outer, inner, layer, use_bias, **options)

        block = level(8 * ngf, 8 * ngf)
        for _ in range(num_downs - LEAST_DOWNS):
            block = level(8 * ngf, 8 * ngf, submodule=block, use_dropout=use_dropout)
        for outer, inner in ((4, 8), (2, 4), (1, 2)):
            block = level(outer * ngf, inner * ngf, submodule=block)
        self.model = level(output_nc, ngf, input_nc=input_nc, submodule=block, outermost=True)

    def forward(self, x: Tensor) -> Tensor:
        """Translate images [N, input_nc, H, W] to [N, output_nc, H, W]."""
        return self.model(x)
