# SPDX-License-Identifier: MIT
"""A network up to its tanh, and 16-bit weights read instead of cast."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from cyclegan_fast import fusion, models
from cyclegan_fast.fusion.half_weights import HalfWeights


def generator() -> nn.Module:
    torch.manual_seed(0)
    return models.ResnetGenerator(3, 3, 8, n_blocks=1)


def test_before_tanh_is_the_network_without_it():
    net, x = fusion.accelerate(generator()), torch.randn(2, 3, 16, 16)
    assert fusion.ends_in_tanh(net, x)
    z = fusion.before_tanh(net, x)
    assert torch.equal(z.tanh(), net(x)) and z.abs().max() > 0
    parameters = list(net.parameters())
    upstream = torch.randn_like(z)
    ours = torch.autograd.grad(z.tanh(), parameters, upstream, allow_unused=True)
    plain = torch.autograd.grad(net(x), parameters, upstream, allow_unused=True)
    for a, b in zip(ours, plain, strict=True):
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b))


class TwiceRead(nn.Module):
    """Its tanh makes the result, but something else reads what the tanh takes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.tanh = nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3), nn.Tanh()

    def forward(self, x):
        z = self.norm(self.conv(x))
        return self.tanh(z), z


def without_acceleration(net: nn.Module) -> nn.Module:
    return fusion.restore(net)


def with_a_hook_on_the_network(net: nn.Module) -> nn.Module:
    net.register_forward_hook(lambda *_: None)
    return net


def with_a_hook_on_the_tanh(net: nn.Module) -> nn.Module:
    net.model[-1].register_forward_hook(lambda *_: None)
    return net


def with_zeros_for_dead_biases(net: nn.Module) -> nn.Module:
    return fusion.accelerate(net, dead_bias_grad="zero")


def with_another_end(net: nn.Module) -> nn.Module:
    net.model[-1] = nn.Sigmoid()
    return fusion.accelerate(net)


@pytest.mark.parametrize(
    "change",
    [
        without_acceleration,
        with_a_hook_on_the_network,
        with_a_hook_on_the_tanh,
        with_zeros_for_dead_biases,
        with_another_end,
        lambda _net: fusion.accelerate(TwiceRead()),
    ],
)
def test_what_must_run_whole_is_not_cut(change):
    net, x = change(fusion.accelerate(generator())), torch.randn(1, 3, 16, 16)
    assert not fusion.ends_in_tanh(net, x)
    with pytest.raises(ValueError, match="ask ends_in_tanh first"):
        fusion.before_tanh(net, x)


def test_the_weights_of_convolutions_that_count():
    net = fusion.accelerate(generator())
    found = {id(p) for p in fusion.convolution_parameters(net)}
    names = {name for name, p in net.named_parameters() if id(p) in found}
    kinds = nn.Conv2d | nn.ConvTranspose2d
    convolutions = [name for name, m in net.named_modules() if isinstance(m, kinds)]
    # Behind every convolution but the last stands a norm, which takes its bias away.
    assert names == {f"{name}.weight" for name in convolutions} | {f"{convolutions[-1]}.bias"}
    assert fusion.convolution_parameters(generator()) == []


def halves_of(net: nn.Module) -> tuple[HalfWeights, dict[nn.Parameter, torch.Tensor]]:
    copies = {p: p.detach().bfloat16() for p in fusion.convolution_parameters(net)}
    return HalfWeights(copies), copies


def run(net: nn.Module, *pictures: torch.Tensor, halves: HalfWeights | None = None):
    """A pass for each picture under autocast, and the gradients of their sum."""
    with torch.autocast("cpu", torch.bfloat16), halves.used() if halves else nullcontext():
        y = sum(net(x) for x in pictures)
    net.zero_grad()
    y.float().square().mean().backward()
    return y.detach(), {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def test_copies_give_the_bits_that_autocast_gives():
    net, x = fusion.accelerate(generator()), torch.randn(1, 3, 16, 16)
    halves, copies = halves_of(net)
    y, gradients = run(net, x, halves=halves)
    expected, expected_gradients = run(net, x)
    assert torch.equal(y, expected) and set(gradients) == set(expected_gradients)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        assert torch.equal(gradient, expected_gradients[name]), name
    # They are read: another copy makes another picture. Outside the block they are not.
    next(iter(copies.values())).mul_(2)
    assert not torch.equal(run(net, x, halves=halves)[0], expected)
    assert torch.equal(run(net, x)[0], expected)


def test_gradients_of_two_passes_are_added_in_sixteen_bits():
    net, x = fusion.accelerate(generator()), torch.randn(1, 3, 16, 16)
    y, gradients = run(net, x, x.flip(3), halves=halves_of(net)[0])
    expected, expected_gradients = run(net, x, x.flip(3))
    assert torch.equal(y, expected)
    for name, gradient in gradients.items():
        # One rounding of each pass's gradient, and one of the sum.
        bound = 3 * 2**-8 * expected_gradients[name].abs().max().item()
        assert (gradient - expected_gradients[name]).abs().max() <= bound, name


def test_a_changed_weight_is_copied_anew():
    net, x = fusion.accelerate(generator()), torch.randn(1, 3, 16, 16)
    halves, copies = halves_of(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
    assert torch.equal(run(net, x, halves=halves)[0], run(net, x)[0])
    assert all(torch.equal(copy, p.bfloat16()) for p, copy in copies.items())


def test_what_was_written_with_its_weight_is_not_copied():
    net = fusion.accelerate(generator())
    halves, copies = halves_of(net)
    parameter = next(iter(copies))
    with torch.no_grad():
        parameter.add_(1)
    halves.written([parameter])
    before = copies[parameter].clone()
    halves.refresh()
    assert torch.equal(copies[parameter], before)


def test_other_networks_are_left_alone_inside_the_block():
    net, other = fusion.accelerate(generator()), fusion.accelerate(generator())
    x = torch.randn(1, 3, 16, 16)
    halves, copies = halves_of(net)
    for copy in copies.values():
        copy.zero_()
    with halves.used():
        torch.testing.assert_close(other(x), generator()(x))
