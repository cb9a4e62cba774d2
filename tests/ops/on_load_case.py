# SPDX-License-Identifier: MIT
"""Launchers of a convolution in Triton that apply norms while they load, compared with float64.

A norm's statistics and sums are operands: truth takes them as they are given, in float64. That they
belong to an image is seen where a whole link is compared, in test_conv_on_load.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from conv_raw import Layer, check_moments, nan_like
from numerics import assert_within_budget
from torch import Tensor

from cyclegan_fast.ops.reflect_conv2d import triton_implicit, triton_transposed
from cyclegan_fast.ops.reflect_conv2d.beside_norm import Normalised, NormGradient, NormOfInput
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight

SLOPE = 0.2
WIDE = (torch.float64, torch.float32)  # truth, and eager before it rounds


def planes(statistic: Tensor, wide: torch.dtype) -> Tensor:
    """[N, C] beside images."""
    return statistic.to(wide)[..., None, None]


def of_images(value: Tensor | None, n: int, wide: torch.dtype, otherwise: float) -> Tensor:
    """A weight or bias, [C] or [groups, C], beside n images."""
    if value is None:
        return torch.full((1, 1, 1, 1), otherwise, dtype=wide)
    value = value.reshape(-1, value.shape[-1])
    return planes(value.repeat_interleave(n // len(value), 0), wide)


def activated(z: Tensor, act: int) -> Tensor:
    return (z, z.relu(), F.leaky_relu(z, SLOPE))[act]


def rounded(value: Tensor, dtype: torch.dtype) -> Tensor:
    """What eager has between two ops; truth is never rounded."""
    return value if value.dtype == torch.float64 else value.to(dtype).float()


def normalised(x: Tensor, norm: Normalised, wide: torch.dtype) -> Tensor:
    scale = planes(norm.rstd, wide) * of_images(norm.weight, len(x), wide, 1)
    z = (x.to(wide) - planes(norm.mean, wide)) * scale + of_images(norm.bias, len(x), wide, 0)
    return rounded(activated(z, norm.act), x.dtype)


def gradient(dz: Tensor, norm: NormGradient, wide: torch.dtype) -> Tensor:
    rstd, count = planes(norm.rstd, wide), dz.shape[2] * dz.shape[3]
    xhat = (norm.x.to(wide) - planes(norm.mean, wide)) * rstd
    s0, s1 = (planes(norm.sums[:, k], wide) / count for k in (0, 1))
    scale = rstd * of_images(norm.weight, len(dz), wide, 1)
    return rounded(scale * (dz.to(wide) - s0 - xhat * s1), dz.dtype)


@dataclass
class OnLoad(Layer):
    """A layer between norms.

    Attributes:
        centre: what the images that are normalised lie about.
        groups: layers, of the weight's gradient.
    """

    centre: float = 0.3
    groups: int = 1

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = x.double()
        var = values.var((2, 3), correction=0)
        return values.mean((2, 3)).float(), (var + 1e-5).rsqrt().float()

    def affine(self, seed: int, channels: int) -> Tensor:
        """A weight and a bias, of each group one."""
        drawn = self.drawn(seed, 2 * self.groups, channels, 1, 1).flatten(1).float()
        drawn = drawn.view(2, self.groups, channels)
        return drawn if self.groups > 1 else drawn[:, 0]

    def far(self, seed: int, *shape: int, layout=None) -> Tensor:
        values = self.drawn(seed, *shape, layout=layout).double() + (self.centre - 0.3)
        return values.to(self.dtype)

    def before(self, network: int, x: Tensor, act=1, affine=False) -> Normalised:
        weight, bias = self.affine(60 + network, x.shape[1])
        options = (weight, bias) if affine else (None, None)
        return Normalised(*self.statistics(x), *options, act, SLOPE)

    def behind(self, network: int, dz: Tensor, affine=False) -> NormGradient:
        x = self.far(80 + network, *dz.shape)
        mean, rstd = self.statistics(x)
        xhat = (x.double() - planes(mean, torch.float64)) * planes(rstd, torch.float64)
        sums = torch.stack([dz.double().sum((2, 3)), (dz.double() * xhat).sum((2, 3))], 1)
        weight = self.affine(90 + network, dz.shape[1])[0]
        return NormGradient(x, mean, rstd, weight if affine else None, sums.float())

    def images(self, network: int) -> tuple[Tensor, Tensor]:
        """The input, about `centre`, and a weight."""
        return self.far(network, *self.shape), self.operands(network)[1]

    def check_forward(self, act=1, affine=False, bias=False, tanh=False, moments=False):
        calls, cover = [], None
        for network in range(2):
            x, weight = self.images(network)
            y = self.result(x, weight)
            offset = self.drawn(20 + network, 1, y.shape[1], 1, 1).flatten() if bias else None
            partial = None
            if moments:
                cover = self._cover("moments_cover")
                partial = torch.full((len(x), cover[0], 3, y.shape[1]), torch.nan)
            norm = self.before(network, x, act, affine)
            calls.append(Forward(x, weight, offset, y, partial, norm))
        arguments = (self.padding, self.stride, tanh)
        self._alone_and_together("forward", calls, arguments, ("y", "moments"))
        for call in calls:
            made = []
            for wide in WIDE:
                y = self.linear(normalised(call.x, call.norm, wide), call.weight.to(wide))
                y = y + (0 if call.bias is None else call.bias.to(wide)[:, None, None])
                made.append(y.tanh() if tanh else y)
            assert_within_budget(call.y, made[1].to(self.dtype), made[0], "y")
            if moments:
                check_moments(call.y, call.moments, *cover[1:])
        return calls

    def check_gradient_of_input(self, affine=False, on_load=True, norm=None):
        """norm: options of the norm that has made x, whose dz is written in grad_x."""
        calls = []
        for network in range(2):
            x, weight = self.images(network)
            dz = self.drawn(30 + network, *self.result(x, weight).shape)
            grad_x = nan_like(x, self.dtype, self.layout)
            given = None
            if norm is not None:
                given = self._norm(network, **norm)._replace(masked=True, negative_slope=SLOPE)
            of_norm = self.behind(network, dz, affine) if on_load else None
            calls.append(OfInput(dz, None, weight, grad_x, given, of_norm))
        self._alone_and_together(
            "gradient_of_input", calls, (self.padding, self.stride), ("grad_x", "norm.partial")
        )
        for call in calls:
            made = []
            for wide in WIDE:
                g = call.grad_y.to(wide)
                if on_load:
                    g = gradient(call.grad_y, call.of_norm, wide)
                of_x = self._gradients(g, None, call.grad_x, call.weight, wide)[0]
                made.append(of_x if norm is None else masked(of_x, call.norm))
            assert_within_budget(call.grad_x, made[1].to(self.dtype), made[0], "grad_x")
            if norm is not None:
                check_sums_of_dz(call.grad_x, call.norm)
        return calls

    def weight_call(self, network, needs, before, behind, dtype=None, tanh=False) -> OfWeight:
        x, weight = self.images(network)
        dz = self.drawn(30 + network, *self.result(x, weight).shape)
        y = self.drawn(40 + network, *dz.shape).sin() if tanh else None
        dtype = dtype or self.dtype
        grad_weight = torch.full((self.groups, weight.numel()), torch.nan, dtype=dtype)
        grad_weight = grad_weight.as_strided(
            (self.groups, *weight.shape), (weight.numel(), *weight.stride())
        )
        grad_bias = torch.full((self.groups, dz.shape[1]), torch.nan, dtype=dtype)
        if self.groups == 1:
            grad_weight, grad_bias = grad_weight[0], grad_bias[0]
        size = self.module.workspace(dz.shape, weight.shape, self.groups)
        return OfWeight(
            dz,
            y,
            x,
            grad_weight if needs[0] else None,
            grad_bias if needs[1] else None,
            torch.full((size,), torch.nan),
            None if before is None else self.before(network, x, **before),
            None if behind is None else self.behind(network, dz, **behind),
            self.groups,
        )

    def check_gradient_of_weight(
        self, needs=(True, True), before=None, behind=None, dtype=None, tanh=False
    ):
        """before and behind: options of the norms, None: there is none."""
        calls = [
            self.weight_call(network, needs, before, behind, dtype, tanh) for network in range(2)
        ]
        names = ("grad_weight", "grad_bias")
        self._alone_and_together("gradient_of_weight", calls, (self.padding, self.stride), names)
        for call, network in zip(calls, range(2), strict=True):
            weight = self.images(network)[1]
            found = [self._weights(call, weight, wide) for wide in WIDE]
            for name, truth, eager in zip(names, *found, strict=True):
                ours = getattr(call, name)
                if ours is not None:
                    assert_within_budget(ours, eager.to(ours.dtype), truth, name)
        return calls

    def _weights(self, call: OfWeight, weight: Tensor, wide: torch.dtype) -> list[Tensor]:
        """The gradients of weight and bias, of all groups together as they lie."""
        x = call.x.to(wide) if call.norm is None else normalised(call.x, call.norm, wide)
        g = call.grad_y.to(wide)
        if call.y is not None:
            g = rounded(g * (1 - call.y.to(wide) ** 2), self.dtype)
        if call.of_norm is not None:
            g = gradient(call.grad_y, call.of_norm, wide)
        found = [
            self._gradients(*parts, weight, wide)[1:]
            for parts in (
                (own_g, None, own_x)
                for own_g, own_x in zip(g.chunk(call.groups), x.chunk(call.groups), strict=True)
            )
        ]
        if call.groups == 1:
            return list(found[0])
        return [torch.stack(each) for each in zip(*found, strict=True)]


def masked(of_x: Tensor, norm: NormOfInput) -> Tensor:
    """Dz of the gradient of a norm's result."""
    wide = of_x.dtype
    z = (norm.x.to(wide) - planes(norm.mean, wide)) * planes(norm.rstd, wide)
    z = z * of_images(norm.weight, len(of_x), wide, 1) + of_images(norm.bias, len(of_x), wide, 0)
    z.requires_grad_()
    total = of_x if norm.skip is None else of_x + norm.skip.to(wide)
    return torch.autograd.grad(activated(z, norm.act), z, total)[0]


def check_sums_of_dz(dz: Tensor, norm: NormOfInput) -> None:
    """The chunks' sums against those over the image, of dz as it was stored."""
    dz = dz.double()
    xhat = (norm.x.double() - planes(norm.mean, dz.dtype)) * planes(norm.rstd, dz.dtype)
    for k, terms in ((0, dz), (1, dz * xhat)):
        near = 2e-6 * terms.abs().sum((2, 3)).max().item()
        ours = norm.partial[:, :, k].double().sum(1)
        torch.testing.assert_close(ours, terms.sum((2, 3)), rtol=0, atol=near)


def layer(case, dtype=torch.float32, layout=torch.channels_last, **others) -> OnLoad:
    """A layer of the kind that a case names: (kind, x, weight, padding, stride)."""
    kind, shape, weight_shape, padding, stride = case

    def linear(x, weight):
        if kind == "transposed":
            more = stride + 2 * padding - weight_shape[2]
            return F.conv_transpose2d(x, weight, None, stride, padding, more)
        if kind == "reflect" and padding:
            x = F.pad(x, (padding,) * 4, mode="reflect")
        return F.conv2d(x, weight, stride=stride, padding=padding if kind == "zeros" else 0)

    module = triton_transposed if kind == "transposed" else triton_implicit
    options = {"zeros": True} if kind == "zeros" else {}
    sizes = (shape, weight_shape, padding, stride)
    return OnLoad(module, linear, *sizes, dtype, layout, options, **others)
