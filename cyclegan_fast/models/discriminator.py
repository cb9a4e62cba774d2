# SPDX-License-Identifier: MIT
"""The discriminators: PatchGAN and its 1x1 form."""

from __future__ import annotations

from torch import Tensor, nn

from cyclegan_fast.models.arguments import check_int, norm_layer

SLOPE = 0.2
WIDEST = 8  # channels stop doubling at 8 ndf


class NLayerDiscriminator(nn.Module):
    """PatchGAN: a map of scores, each for one overlapping patch (70x70 with three layers).

    State-dict keys, shapes, their order and the default initialisation are those of
    pytorch-CycleGAN-and-pix2pix, so weights load both ways.

    Args:
        input_nc: channels of the image.
        ndf: channels after the first convolution.
        n_layers: convolutions of stride 2.
        norm: "instance", "batch" or "none".

    Input: [N, input_nc, H, W]. Output: unbounded scores [N, 1, h, w]; 30x30 for 256x256 and three
    layers. No sigmoid: the losses take scores.

    Raises:
        TypeError: a size that is no int.
        ValueError: a size below its least value, or an unknown norm.

    Source: Isola et al. 2017, arXiv:1611.07004, section 3.2; Zhu et al. 2017, arXiv:1703.10593.
    """

    def __init__(
        self, input_nc: int, ndf: int = 64, n_layers: int = 3, norm: str = "instance"
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        for name, value, least in (("input_nc", input_nc, 1), ("ndf", ndf, 1)):
            check_int(owner, name, value, least)
        check_int(owner, "n_layers", n_layers, 0)
        layer, use_bias = norm_layer(owner, norm)
        layers: list[nn.Module] = [
            nn.Conv2d(input_nc, ndf, 4, stride=2, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
        ]
        channels = ndf
        for n in range(1, n_layers + 1):
            wider = ndf * min(2**n, WIDEST)
            stride = 2 if n < n_layers else 1
            layers += [
                nn.Conv2d(channels, wider, 4, stride=stride, padding=1, bias=use_bias),
                layer(wider),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
            channels = wider
        layers.append(nn.Conv2d(channels, 1, 4, stride=1, padding=1))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores [N, 1, h, w] of images [N, input_nc, H, W]."""
        return self.model(x)


class PixelDiscriminator(nn.Module):
    """1x1 PatchGAN: a score for every pixel, which judges colour and nothing spatial.

    Args:
        input_nc: channels of the image.
        ndf: channels after the first convolution.
        norm: "instance", "batch" or "none".

    Input: [N, input_nc, H, W]. Output: unbounded scores [N, 1, H, W].

    Raises:
        TypeError: a size that is no int.
        ValueError: a size below its least value, or an unknown norm.

    Source: Isola et al. 2017, arXiv:1611.07004, section 4.4.
    """

    def __init__(self, input_nc: int, ndf: int = 64, norm: str = "instance") -> None:
        super().__init__()
        owner = type(self).__name__
        check_int(owner, "input_nc", input_nc, 1)
        check_int(owner, "ndf", ndf, 1)
        layer, use_bias = norm_layer(owner, norm)
        self.net = nn.Sequential(
            nn.Conv2d(input_nc, ndf, 1),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(ndf, 2 * ndf, 1, bias=use_bias),
            layer(2 * ndf),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(2 * ndf, 1, 1, bias=use_bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores [N, 1, H, W] of images [N, input_nc, H, W]."""
        return self.net(x)
