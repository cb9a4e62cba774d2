# SPDX-License-Identifier: MIT
"""Networks to be walked by hand, and the comparison of a walk with autograd."""

from __future__ import annotations

import copy

import torch
from torch import nn

from cyclegan_fast import accelerate, models
from cyclegan_fast.fusion import by_hand
from cyclegan_fast.fusion.hand import HandWalk, alone

FORMATS = [torch.contiguous_format, torch.channels_last]


class Affine(nn.Module):
    """A shared convolution, norms with parameters, a sum read twice, and other activations."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.InstanceNorm2d(4, affine=True)
        self.same = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        self.second = nn.InstanceNorm2d(4, affine=True)
        self.up = nn.ConvTranspose2d(4, 2, 3, stride=2, output_padding=1, groups=2)
        self.relu, self.leaky = nn.ReLU(), nn.LeakyReLU(0.3)
        self.sigmoid, self.tanh = nn.Sigmoid(), nn.Tanh()

    def forward(self, x):
        y = self.relu(self.norm(self.leaky(self.first(x))))
        z = self.second(self.same(y)) + y
        return self.tanh(self.up(self.sigmoid(self.same(z))))


def affine_resnet() -> nn.Module:
    """A generator whose norms have parameters."""
    net = models.ResnetGenerator(3, 3, 4, "instance", False, 2)
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.InstanceNorm2d):
                setattr(module, name, nn.InstanceNorm2d(child.num_features, affine=True))
    return net


def network(kind: str) -> nn.Module:
    torch.manual_seed(3)
    net = {
        "resnet": lambda: models.ResnetGenerator(3, 3, 4, "instance", False, 2),
        "affine resnet": affine_resnet,
        "zero padding": lambda: models.ResnetGenerator(3, 3, 4, "instance", False, 2, "zero"),
        "patch": lambda: models.NLayerDiscriminator(3, 4, 2),
        "pixel": lambda: models.PixelDiscriminator(3, 4),
        "affine": Affine,
        "norm first": lambda: nn.Sequential(nn.InstanceNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3)),
    }[kind]()
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.05, 0.4)
    return net.double()


KINDS = ["resnet", "zero padding", "patch", "pixel", "affine", "norm first"]


def walk_of(net, x, images: int, *, together: bool = True, again: bool = False) -> HandWalk:
    found = by_hand(net, x, x.dtype, tanhless=False)
    assert not isinstance(found, str), found
    return HandWalk(*found, lambda p: p.detach(), None, images, together=together, again=again)


def pictures(*sizes, n=1, dtype=torch.float64):
    torch.manual_seed(9)
    return [torch.randn(n, 3, *size, dtype=dtype) + 0.4 for size in sizes]


def by_autograd(net, parts, upstream):
    """What each part makes, its pictures' gradient, and the gradients of the parameters."""
    net.zero_grad()
    results, of_pictures = [], []
    for part, gradient in zip(parts, upstream, strict=True):
        net.requires_grad_(part.weights)
        x = part.x.detach().clone().requires_grad_()
        y = net(x)
        y.backward(gradient)
        results.append(y.detach())
        of_pictures.append(x.grad if part.picture else None)
    net.requires_grad_(True)
    return results, of_pictures, {name: p.grad for name, p in net.named_parameters()}


def close(ours, truth, name):
    assert ours.shape == truth.shape, name
    bound = 1e-11 * max(1.0, truth.abs().max().item())
    torch.testing.assert_close(ours, truth, rtol=0, atol=bound, msg=f"{name} differs")


def check(plain, net, parts, walk, passes):
    """Walk the parts in passes, forward in order and backward in reverse; compare everything."""
    torch.manual_seed(1)
    made = [alone(walk.forward(parts[some])) for some in passes]
    outputs = [y for each in made for y in each.outputs]
    upstream = [torch.randn_like(y) for y in outputs]
    truth, of_pictures, of_parameters = by_autograd(plain, parts, upstream)
    for i, (y, expected) in enumerate(zip(outputs, truth, strict=True)):
        close(y, expected, f"result {i}")
    net.zero_grad()
    for some, each in reversed(list(zip(passes, made, strict=True))):
        expected = [gradient for gradient in of_pictures[some] if gradient is not None]
        found = alone(walk.backward(each, upstream[some]))
        for i, (ours, of_picture) in enumerate(zip(found, expected, strict=True)):
            close(ours, of_picture, f"gradient of picture {some.start + i}")
    plan = by_hand(net, parts[0].x, parts[0].x.dtype, tanhless=False)
    dead = set() if isinstance(plan, str) else set(plan[0].dead_biases)
    for name, parameter in net.named_parameters():
        if name in dead:
            assert parameter.grad is None
        else:
            close(parameter.grad, of_parameters[name], f"gradient of {name}")


def prepared(kind, memory_format):
    plain = network(kind)
    net = copy.deepcopy(plain).to(memory_format=memory_format)
    last = memory_format == torch.channels_last
    return plain, accelerate(net, memory_format="channels_last" if last else "preserve")
