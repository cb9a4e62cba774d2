# SPDX-License-Identifier: MIT
"""What people do to a network after it was accelerated, each as a function of the network."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from cyclegan_fast import models


def network() -> nn.Module:
    torch.manual_seed(1)
    net = models.ResnetGenerator(3, 3, 4, n_blocks=2)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.1, 0.3)
    return net.double()


X = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(8))


def replace_the_head(net):
    torch.manual_seed(3)
    net.model[19] = nn.Conv2d(4, 2, 5).double()


def replace_a_norm_by_an_affine_one(net):
    net.model[5] = nn.InstanceNorm2d(8, affine=True).double()
    nn.init.constant_(net.model[5].weight, 2.0)


def append_a_layer(net):
    net.model.append(nn.ReLU())


def delete_a_layer(net):
    del net.model[20]


def drop_an_optional_layer(net):
    net.model[6] = nn.Identity()


def change_eps(net):
    net.model[8].eps = 0.5


def change_a_pad(net):
    net.model[10].conv_block[0].padding = (2, 2, 2, 2)
    net.model[10].conv_block[4].padding = (0, 0, 0, 0)


def change_an_activation(net):
    net.model[14] = nn.LeakyReLU(0.3)


def change_a_slope(net):
    change_an_activation(net)
    net(X)
    net.model[14].negative_slope = 0.6


def hook_a_fused_layer(net):
    net.model[2].register_forward_hook(lambda module, args, result: result * 1.5)


def hook_a_fused_layer_before(net):
    net.model[3].register_forward_pre_hook(lambda module, args: (args[0] + 0.25,))


def hook_a_pad(net):
    net.model[10].conv_block[0].register_forward_hook(lambda module, args, result: result + 1)


def hook_a_block(net):
    net.model[10].register_forward_hook(lambda module, args, result: 2 * result)


def hook_a_container(net):
    net.model.register_forward_pre_hook(lambda module, args: (args[0] * 2,))


def hook_a_convolution(net):
    net.model[4].register_forward_hook(lambda module, args, result: result.abs())


def hook_a_gradient(net):
    net.model[10].conv_block[6].register_full_backward_hook(lambda module, gx, gy: (gx[0] * 3,))


def replace_a_forward_on_an_instance(net):
    net.model[3].forward = torch.tanh
    net.model[11].forward = lambda x: x * 0.5


def replace_the_forward_of_a_class(net):
    class Block(type(net.model[10])):
        pass

    net.model[10].__class__ = Block
    net(X)
    Block.forward = lambda self, x: 0.5 * x + self.conv_block(x)


def track_statistics(net):
    net.model[5] = nn.InstanceNorm2d(8, track_running_stats=True).double()


def parametrize(net):
    torch.manual_seed(7)
    parametrizations.weight_norm(net.model[1])
    parametrizations.spectral_norm(net.model[4])


def reparametrize_by_hooks(net):
    torch.manual_seed(7)
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(net.model[1])
    nn.utils.spectral_norm(net.model[10].conv_block[1])


def remove_a_bias(net):
    net.model[19].bias = None
    net.model[4].bias = None


def add_a_bias(net):
    net.model[19].bias = None
    net(X)
    net.model[19].bias = nn.Parameter(torch.full((3,), 0.7, dtype=torch.float64))


def new_parameters(net):
    net.model[1].weight = nn.Parameter(torch.randn(4, 3, 7, 7, dtype=torch.float64))
    net.model[19].weight.data = net.model[19].weight.data * 2
    net.load_state_dict({name: value * 0.9 for name, value in net.state_dict().items()})


def freeze(net):
    net.requires_grad_(False)
    net.model[19].weight.requires_grad_(True)


CHANGES = [
    replace_the_head,
    replace_a_norm_by_an_affine_one,
    append_a_layer,
    delete_a_layer,
    drop_an_optional_layer,
    change_eps,
    change_a_pad,
    change_an_activation,
    change_a_slope,
    hook_a_fused_layer,
    hook_a_fused_layer_before,
    hook_a_pad,
    hook_a_block,
    hook_a_container,
    hook_a_convolution,
    hook_a_gradient,
    replace_a_forward_on_an_instance,
    replace_the_forward_of_a_class,
    track_statistics,
    parametrize,
    reparametrize_by_hooks,
    remove_a_bias,
    add_a_bias,
    new_parameters,
    freeze,
]
