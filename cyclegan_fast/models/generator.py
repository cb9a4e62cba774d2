# SPDX-License-Identifier: MIT
"""The residual generator of CycleGAN."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from cyclegan_fast.models.arguments import check_choice, check_int, norm_layer

PADDINGS = ("reflect", "replicate", "zero")
DOWNSAMPLINGS = 2


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions with norms around a skip connection.

        y = x + norm(conv(pad(relu(norm(conv(pad(x)))))))

    Args:
        dim: channels in and out.
        padding_type: "reflect", "replicate" or "zero".
        norm: builds a norm layer from its number of channels.
        use_dropout: put Dropout(0.5) after the activation.
        use_bias: whether the convolutions have a bias.

    Source: Johnson, Alahi, Fei-Fei 2016, arXiv:1603.08155, supplement.
    """

    def __init__(
        self,
        dim: int,
        padding_type: str,
        norm: Callable[[int], nn.Module],
        use_dropout: bool,
        use_bias: bool,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for half in range(2):
            if padding_type == "reflect":
                layers.append(nn.ReflectionPad2d(1))
            elif padding_type == "replicate":
                layers.append(nn.ReplicationPad2d(1))
            padding = 1 if padding_type == "zero" else 0
            layers += [nn.Conv2d(dim, dim, 3, padding=padding, bias=use_bias), norm(dim)]
            if half == 0:
                layers.append(nn.ReLU(inplace=True))
                if use_dropout:
                    layers.append(nn.Dropout(0.5))
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus what the block computes from it, [N, dim, H, W]."""
        return x + self.conv_block(x)


class ResnetGenerator(nn.Module):
    """Residual generator: 7x7 stem, two halvings, residual blocks, two doublings, 7x7 head.

        y = tanh(head(up(up(block^n(down(down(stem(x))))))))

    State-dict keys, shapes, their order and the default initialisation are those of
    pytorch-CycleGAN-and-pix2pix, so weights load both ways.

    Args:
        input_nc: channels of the input image.
        output_nc: channels of the output image.
        ngf: channels after the stem.
        norm: "instance", "batch" or "none".
        use_dropout: put Dropout(0.5) into every block.
        n_blocks: residual blocks; 9 for 256x256 and more, 6 for 128x128 in the paper.
        padding_type: padding inside the blocks, "reflect", "replicate" or "zero".

    Input and output: [N, C, H, W] in [-1, 1]. A height or width that is no multiple of 4 comes out
    rounded up to one.

    Raises:
        TypeError: a size that is no int.
        ValueError: a size below its least value, an unknown norm or padding type.

    Source: Zhu et al. 2017, arXiv:1703.10593, section 7.2.
    """

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        ngf: int = 64,
        norm: str = "instance",
        use_dropout: bool = False,
        n_blocks: int = 9,
        padding_type: str = "reflect",
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        for name, value, least in (
            ("input_nc", input_nc, 1),
            ("output_nc", output_nc, 1),
            ("ngf", ngf, 1),
            ("n_blocks", n_blocks, 0),
        ):
            check_int(owner, name, value, least)
        check_choice(owner, "padding_type", padding_type, PADDINGS)
        layer, use_bias = norm_layer(owner, norm)
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(input_nc, ngf, 7, bias=use_bias),
            layer(ngf),
            nn.ReLU(inplace=True),
        ]
        channels = ngf
        for _ in range(DOWNSAMPLINGS):
            layers += [
                nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=use_bias),
                layer(2 * channels),
                nn.ReLU(inplace=True),
            ]
            channels *= 2
        layers += [
            ResnetBlock(channels, padding_type, layer, use_dropout, use_bias)
            for _ in range(n_blocks)
        ]
        for _ in range(DOWNSAMPLINGS):
            half = channels // 2
            layers += [
                nn.ConvTranspose2d(
                    channels, half, 3, stride=2, padding=1, output_padding=1, bias=use_bias
                ),
                layer(half),
                nn.ReLU(inplace=True),
            ]
            channels = half
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, output_nc, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Translate images [N, input_nc, H, W] to [N, output_nc, H, W]."""
        return self.model(x)
