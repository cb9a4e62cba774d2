# SPDX-License-Identifier: MIT
"""The networks compute what the papers' networks compute, and refuse wrong arguments well."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from cyclegan_fast import models

sys.path.insert(0, str(Path(__file__).parent))
import written_out  # noqa: E402 - a helper beside this file


def spread(net: nn.Module) -> nn.Module:
    """Weights large enough that every layer matters, biases too."""
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.0, 0.2)
    return net


@pytest.mark.parametrize(
    ("net", "function", "depth", "size"),
    [
        (models.ResnetGenerator(3, 2, 8), written_out.resnet, 9, (24, 20)),
        (models.ResnetGenerator(1, 3, 4, n_blocks=0), written_out.resnet, 0, (16, 16)),
        (models.UnetGenerator(3, 2, 5, 4), written_out.unet, 5, (64, 32)),
        (models.UnetGenerator(3, 2, 7, 4), written_out.unet, 7, (128, 128)),
        (models.NLayerDiscriminator(3, 8), written_out.patch, 3, (64, 64)),
        (models.NLayerDiscriminator(4, 8, 5), written_out.patch, 5, (128, 96)),
        (models.NLayerDiscriminator(4, 8, 1), written_out.patch, 1, (24, 24)),
    ],
)
def test_forward_is_the_written_out_function(net, function, depth, size):
    net = spread(net)
    x = torch.randn(2, next(net.parameters()).shape[1], *size) + 1
    assert torch.equal(net(x.clone()), function(x, net.state_dict(), depth))


def test_pixel_discriminator_is_the_written_out_function():
    net = spread(models.PixelDiscriminator(3, 8))
    x = torch.randn(2, 3, 9, 7)
    assert torch.equal(net(x), written_out.pixel(x, net.state_dict()))


@pytest.mark.parametrize(("layers", "side"), [(1, 126), (2, 62), (3, 30), (4, 14), (5, 6)])
def test_patch_maps_have_the_published_sizes(layers, side):
    net = models.NLayerDiscriminator(3, 2, layers)
    assert net(torch.randn(1, 3, 256, 256)).shape == (1, 1, side, side)


@pytest.mark.parametrize("padding_type", ["reflect", "replicate", "zero"])
@pytest.mark.parametrize("use_dropout", [False, True])
def test_blocks_keep_the_size_for_every_padding(padding_type, use_dropout):
    net = models.ResnetGenerator(3, 3, 4, "batch", use_dropout, 1, padding_type)
    assert net(torch.randn(1, 3, 16, 20)).shape == (1, 3, 16, 20)
    kinds = [type(layer).__name__ for layer in net.model[10].conv_block]
    assert ("Dropout" in kinds) == use_dropout
    assert ("ReplicationPad2d" in kinds) == (padding_type == "replicate")
    assert ("ReflectionPad2d" in kinds) == (padding_type == "reflect")


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: models.define_G(3, 3, 64, "resnet_9block"), ValueError, "did you mean 'resnet_9b"),
        (lambda: models.define_D(3, 64, "nlayers"), ValueError, "did you mean 'n_layers'"),
        (lambda: models.ResnetGenerator(3, 3, norm="instanse"), ValueError, "mean 'instance'"),
        (lambda: models.ResnetGenerator(0, 3), ValueError, "input_nc must be at least 1, got 0"),
        (lambda: models.ResnetGenerator(3, 3.0), TypeError, "output_nc must be an int, got float"),
        (lambda: models.ResnetGenerator(3, 3, n_blocks=-1), ValueError, "n_blocks.*got -1"),
        (lambda: models.ResnetGenerator(3, 3, padding_type="wrap"), ValueError, "reflect, repl"),
        (lambda: models.UnetGenerator(3, 3, 4), ValueError, "num_downs must be at least 5, got 4"),
        (lambda: models.NLayerDiscriminator(3, n_layers=-1), ValueError, "n_layers.*got -1"),
        (lambda: models.NLayerDiscriminator(3, True), TypeError, "ndf must be an int, got bool"),
        (lambda: models.PixelDiscriminator(3, norm="layer"), ValueError, "instance, batch, none"),
        (lambda: models.init_weights(nn.Conv2d(1, 1, 1), "xavie"), ValueError, "mean 'xavier'"),
        (lambda: models.init_weights(nn.Conv2d(1, 1, 1), "normal", 1e999), ValueError, "finite"),
    ],
)
def test_wrong_arguments_are_named_with_what_was_expected(build, error, message):
    with pytest.raises(error, match=message):
        build()
