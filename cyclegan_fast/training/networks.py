# SPDX-License-Identifier: MIT
"""The four networks of a run, built from its options."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import nn

from cyclegan_fast import models
from cyclegan_fast.training.config import TrainConfig


@dataclass(frozen=True)
class Networks:
    """Upstream's names: G_A translates A to B, D_A judges domain B; G_B and D_B the reverse."""

    G_A: nn.Module
    G_B: nn.Module
    D_A: nn.Module
    D_B: nn.Module

    def items(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield (name, network) in upstream's order."""
        for field in fields(self):
            yield field.name, getattr(self, field.name)

    def parameters(self, *names: str) -> list[tuple[str, nn.Parameter]]:
        """Return the named parameters of some networks, as ("G_A.model.1.weight", ...)."""
        return [
            (f"{name}.{key}", parameter)
            for name in names
            for key, parameter in getattr(self, name).named_parameters()
        ]

    @property
    def generators(self) -> tuple[nn.Module, nn.Module]:
        """G_A and G_B."""
        return self.G_A, self.G_B

    @property
    def discriminators(self) -> tuple[nn.Module, nn.Module]:
        """D_A and D_B."""
        return self.D_A, self.D_B

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return next(self.G_A.parameters()).dtype


def build(config: TrainConfig) -> Networks:
    """Build and initialise the four networks on the CPU, a pure function of the options.

    Args:
        config: netG, netD, n_layers_D, input_nc, output_nc, ngf, ndf, norm, dropout, init_type,
            init_gain and seed. PyTorch's global generator is left as it was.

    Returns:
        Plain networks, not yet accelerated.
    """
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(config.seed)
    try:
        return Networks(
            G_A=_generator(config, config.input_nc, config.output_nc),
            G_B=_generator(config, config.output_nc, config.input_nc),
            D_A=_discriminator(config, config.output_nc),
            D_B=_discriminator(config, config.input_nc),
        )
    finally:
        torch.default_generator.set_state(state)


def _generator(config: TrainConfig, input_nc: int, output_nc: int) -> nn.Module:
    shape = (input_nc, output_nc)
    rest = (config.norm, config.dropout)
    if config.netG.startswith("resnet_"):
        blocks = int(config.netG.removeprefix("resnet_").removesuffix("blocks"))
        net: nn.Module = models.ResnetGenerator(*shape, config.ngf, *rest, n_blocks=blocks)
    else:
        downs = int(config.netG.removeprefix("unet_")).bit_length() - 1
        net = models.UnetGenerator(*shape, downs, config.ngf, *rest)
    return models.init_weights(net, config.init_type, config.init_gain)


def _discriminator(config: TrainConfig, input_nc: int) -> nn.Module:
    return models.define_D(
        input_nc,
        config.ndf,
        config.netD,
        config.n_layers_D,
        config.norm,
        config.init_type,
        config.init_gain,
    )


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Take no gradients of these networks' weights inside the block; then as it was before."""
    thawed = [
        parameter
        for network in networks
        for parameter in network.parameters()
        if parameter.requires_grad
    ]
    for parameter in thawed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in thawed:
            parameter.requires_grad_(True)
