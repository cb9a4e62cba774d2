# SPDX-License-Identifier: MIT
"""The networks of CycleGAN, with the state-dict keys of pytorch-CycleGAN-and-pix2pix."""

from cyclegan_fast.models.define import define_D, define_G
from cyclegan_fast.models.discriminator import NLayerDiscriminator, PixelDiscriminator
from cyclegan_fast.models.generator import ResnetBlock, ResnetGenerator
from cyclegan_fast.models.init import init_weights
from cyclegan_fast.models.unet import UnetGenerator, UnetSkipConnectionBlock

__all__ = [
    "NLayerDiscriminator",
    "PixelDiscriminator",
    "ResnetBlock",
    "ResnetGenerator",
    "UnetGenerator",
    "UnetSkipConnectionBlock",
    "define_D",
    "define_G",
    "init_weights",
]
