# SPDX-License-Identifier: MIT
"""Small pictures and a small network for the tests of the commands."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cyclegan_fast.models import ResnetGenerator

TINY = (
    "--netG resnet_2blocks --ngf 4 --ndf 4 --netD n_layers --n_layers_D 1 --load_size 32 "
    "--crop_size 32 --batch_size 1 --device cpu --num_threads 1 --print_freq 2 --display_freq 4"
).split()


def picture(path, height=24, width=20, channels=3, seed=0):
    """Write a picture of smooth noise."""
    dice = np.random.default_rng(seed)
    coarse = dice.integers(0, 256, (height // 4 + 1, width // 4 + 1, channels), dtype=np.uint8)
    pixels = coarse.repeat(4, 0).repeat(4, 1)[:height, :width]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(path)
    return path


def generator(path, input_nc=3, output_nc=3, seed=0):
    """Write the weights of a small generator whose every layer counts; return the network."""
    dice = torch.Generator().manual_seed(seed)
    net = ResnetGenerator(input_nc, output_nc, ngf=4, n_blocks=2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=dice))
    torch.save(net.state_dict(), path)
    return net.eval()
