# SPDX-License-Identifier: MIT
"""Networks by the names that pytorch-CycleGAN-and-pix2pix gives them on its command line."""

from __future__ import annotations

from torch import nn

from cyclegan_fast.models.arguments import check_choice
from cyclegan_fast.models.discriminator import NLayerDiscriminator, PixelDiscriminator
from cyclegan_fast.models.generator import ResnetGenerator
from cyclegan_fast.models.init import init_weights
from cyclegan_fast.models.unet import UnetGenerator

RESNET_BLOCKS = {"resnet_9blocks": 9, "resnet_6blocks": 6}
UNET_DOWNS = {"unet_128": 7, "unet_256": 8}
GENERATORS = (*RESNET_BLOCKS, *UNET_DOWNS)
DISCRIMINATORS = ("basic", "n_layers", "pixel")


def define_G(  # noqa: N802 - upstream's name
    input_nc: int,
    output_nc: int,
    ngf: int,
    netG: str,  # noqa: N803 - upstream's name
    norm: str = "instance",
    use_dropout: bool = False,
    init_type: str = "normal",
    init_gain: float = 0.02,
) -> nn.Module:
    """Build and initialise a generator.

    Args:
        input_nc: channels of the input image.
        output_nc: channels of the output image.
        ngf: channels after the first convolution.
        netG: "resnet_9blocks", "resnet_6blocks", "unet_128" or "unet_256".
        norm: "instance", "batch" or "none". (Upstream's function defaults to batch, its command
            line, like this, to instance.)
        use_dropout: put Dropout(0.5) into the residual blocks, or the U-Net's widest levels.
        init_type: see :func:`init_weights`.
        init_gain: see :func:`init_weights`.

    Returns:
        The network, on the CPU, drawn with PyTorch's global generator.

    Raises:
        TypeError: a size that is no int.
        ValueError: an unknown name, or a size out of range.
    """
    check_choice("define_G", "netG", netG, GENERATORS)
    net: nn.Module
    if netG in RESNET_BLOCKS:
        net = ResnetGenerator(input_nc, output_nc, ngf, norm, use_dropout, RESNET_BLOCKS[netG])
    else:
        net = UnetGenerator(input_nc, output_nc, UNET_DOWNS[netG], ngf, norm, use_dropout)
    return init_weights(net, init_type, init_gain)


def define_D(  # noqa: N802 - upstream's name
    input_nc: int,
    ndf: int,
    netD: str,  # noqa: N803 - upstream's name
    n_layers_D: int = 3,  # noqa: N803 - upstream's name
    norm: str = "instance",
    init_type: str = "normal",
    init_gain: float = 0.02,
) -> nn.Module:
    """Build and initialise a discriminator.

    Args:
        input_nc: channels of the image.
        ndf: channels after the first convolution.
        netD: "basic" (70x70 patches), "n_layers" (as many layers as n_layers_D) or "pixel".
        n_layers_D: convolutions of stride 2; read only when netD is "n_layers".
        norm: "instance", "batch" or "none".
        init_type: see :func:`init_weights`.
        init_gain: see :func:`init_weights`.

    Returns:
        The network, on the CPU, drawn with PyTorch's global generator.

    Raises:
        TypeError: a size that is no int.
        ValueError: an unknown name, or a size out of range.
    """
    check_choice("define_D", "netD", netD, DISCRIMINATORS)
    net: nn.Module
    if netD == "pixel":
        net = PixelDiscriminator(input_nc, ndf, norm)
    else:
        net = NLayerDiscriminator(input_nc, ndf, 3 if netD == "basic" else n_layers_D, norm)
    return init_weights(net, init_type, init_gain)
