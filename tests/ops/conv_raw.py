# SPDX-License-Identifier: MIT
"""Launchers of a convolution in Triton on two networks at once, compared with float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from numerics import assert_within_budget
from torch import Tensor

from cyclegan_fast.ops.reflect_conv2d import triton_implicit_tiles as implicit_tiles
from cyclegan_fast.ops.reflect_conv2d import triton_splits
from cyclegan_fast.ops.reflect_conv2d.beside_norm import NormOfInput
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight


def implicit_in_small_tiles(monkeypatch) -> None:
    """Let few pixels and channels need many programs, chunks and splits."""
    for name, value in [
        ("TILES", dict.fromkeys(implicit_tiles.TILES, implicit_tiles.Tiles(16, 16, 16, 4, 1))),
        ("TILE_WIDTH", 4),
        ("PROGRAMS", 24),
        ("MOST_CHUNKS", 3),
    ]:
        monkeypatch.setattr(implicit_tiles, name, value)
    monkeypatch.setattr(triton_splits, "BLOCK", 64)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@dataclass
class Layer:
    """An implementation, and what it is meant to compute."""

    module: Any
    linear: Callable[[Tensor, Tensor], Tensor]  # the convolution without bias, of x and weight
    shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    padding: int
    stride: int
    dtype: torch.dtype
    layout: torch.memory_format
    options: dict[str, Any] = field(default_factory=dict)
    weight_layout: torch.memory_format | None = None
    alone: bool = False  # launch each call alone too, and compare every bit
    centre: float = 0.3

    def drawn(self, seed: int, *shape: int, layout=None) -> Tensor:
        """Numbers that are off centre."""
        return self._drawn(seed, shape, layout, 0.3)

    def _drawn(self, seed: int, shape: Sequence[int], layout, centre: float) -> Tensor:
        # On the device that is the default: of GPU tests the GPU.
        generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
        values = torch.randn(shape, generator=generator, dtype=torch.float64) + centre
        return values.to(self.dtype).contiguous(memory_format=layout or self.layout)

    def operands(self, network: int) -> tuple[Tensor, Tensor]:
        fan = torch.Size(self.weight_shape[1:]).numel()
        weight = self.drawn(
            10 + network, *self.weight_shape, layout=self.weight_layout or self.layout
        )
        return self._drawn(network, self.shape, None, self.centre), weight * (0.5 / fan**0.5)

    def result(self, x: Tensor, weight: Tensor) -> Tensor:
        like = self.linear(x.float(), weight.float())
        return nan_like(like, self.dtype, self.layout)

    def check_forward(self, bias=False, tanh=False, moments=False, shift=0.0):
        calls, cover = [], None
        channels = self.result(*self.operands(0)).shape[1]
        for network in range(2):
            x, weight = self.operands(network)
            y = self.result(x, weight)
            offset = (self.drawn(20 + network, 1, channels, 1, 1).flatten() + shift) * bias
            left = None
            if moments:
                cover = self._cover("moments_cover")
                assert cover[0] <= 64
                left = torch.full((len(x), cover[0], 3, channels), torch.nan)
            calls.append(Forward(x, weight, offset if bias else None, y, left))
        arguments = (self.padding, self.stride, tanh)
        self._alone_and_together("forward", calls, arguments, ("y", "moments"))
        for call in calls:
            offset = 0 if call.bias is None else call.bias.double()[:, None, None]
            truth, eager = (
                self.linear(call.x.to(wide), call.weight.to(wide)) + offset
                for wide in (torch.float64, torch.float32)
            )
            if tanh:
                truth, eager = truth.tanh(), eager.tanh()
            assert_within_budget(call.y, eager.to(self.dtype), truth, "y")
            if moments:
                check_moments(call.y, call.moments, *cover[1:])
        return calls

    def check_gradient_of_input(self, tanh=False, norm=None):
        calls = []
        for network in range(2):
            x, weight = self.operands(network)
            made = self.result(x, weight)
            grad_y = self.drawn(30 + network, *made.shape)
            y = self.drawn(40 + network, *made.shape).sin() if tanh else None
            grad_x = nan_like(x, self.dtype, self.layout)
            given = None if norm is None else self._norm(network, **norm)
            calls.append(OfInput(grad_y, y, weight, grad_x, given))
        self._alone_and_together(
            "gradient_of_input", calls, (self.padding, self.stride), ("grad_x", "norm.partial")
        )
        for call in calls:
            truth, eager = (
                self._gradients(call.grad_y, call.y, call.grad_x, call.weight, wide)[0]
                for wide in (torch.float64, torch.float32)
            )
            assert_within_budget(call.grad_x, eager.to(self.dtype), truth, "grad_x")
            if call.norm is not None:
                check_sums(call.grad_x, call.norm)
        return calls

    def check_gradient_of_weight(self, tanh=False, needs=(True, True), dtype=None, groups=1):
        """Of several layers, if groups: each has its part of the images."""
        calls, of_all = [], {"groups": groups} if groups > 1 else {}
        for network in range(2):
            x, weight = self.operands(network)
            made = self.result(x, weight)
            grad_y = self.drawn(30 + network, *made.shape)
            y = self.drawn(40 + network, *made.shape).sin() if tanh else None
            layout = self.weight_layout or self.layout
            layers = [
                nan_like(weight, dtype or self.dtype, layout),
                torch.full((made.shape[1],), torch.nan, dtype=dtype or self.dtype),
            ]
            if groups > 1:
                layers = [one_behind_another(layer, groups) for layer in layers]
            size = self.module.workspace(made.shape, weight.shape, **of_all)
            wanted = (g if need else None for g, need in zip(layers, needs, strict=True))
            work = torch.full((size,), torch.nan)
            calls.append(OfWeight(grad_y, y, x, *wanted, work, **of_all))
        arguments = (self.padding, self.stride)
        names = ("grad_weight", "grad_bias")
        self._alone_and_together("gradient_of_weight", calls, arguments, names)
        for call, network in zip(calls, range(2), strict=True):
            weight = self.operands(network)[1]
            for one in map(partial(layer_of, call), range(groups)):
                truth, eager = (
                    self._gradients(one.grad_y, one.y, one.x, weight, wide)[1:]
                    for wide in (torch.float64, torch.float32)
                )
                for k, name in enumerate(names):
                    ours = getattr(one, name)
                    if ours is not None:
                        assert_within_budget(ours, eager[k].to(ours.dtype), truth[k], name)
        return calls

    def _alone_and_together(self, function: str, calls, arguments, written) -> None:
        """Launch two calls as one, and see that each alone makes the same bits."""
        launch = getattr(self.module, function)
        launch(calls, *arguments, **self.options)
        for call in calls if self.alone else ():
            together = [_found(call, name) for name in written]
            kept = [None if t is None else t.clone() for t in together]
            for t in together:
                if t is not None:
                    t.fill_(torch.nan)
            launch([call], *arguments, **self.options)
            for t, before, name in zip(together, kept, written, strict=True):
                assert t is None or not t.isnan().any(), name
                assert t is None or torch.equal(t, before), name

    def _gradients(self, grad_y, y, x, weight, wide):
        """Of input, weight and bias; x is read for the weight's alone."""
        x = x.detach().to(wide).nan_to_num().requires_grad_()
        weight = weight.detach().to(wide).requires_grad_()
        grad = grad_y.to(wide)
        if y is not None:
            grad = grad * (1 - y.to(wide) ** 2)
            # Eager's own is of its dtype before it comes to a product, and so is ours.
            grad = grad if wide == torch.float64 else grad.to(self.dtype).to(wide)
        made = torch.autograd.grad(self.linear(x, weight), (x, weight), grad)
        return *made, grad.sum((0, 2, 3))

    def _cover(self, function: str):
        sizes = torch.Size(self.shape), torch.Size(self.weight_shape)
        return getattr(self.module, function)(*sizes, self.padding, self.stride, **self.options)

    def _norm(self, network: int, pad=0, act=1, affine=False, skip=False) -> NormOfInput:
        n, c, h, w = self.shape
        x = self.drawn(50 + network, n, c, h - 2 * pad, w - 2 * pad, layout=torch.channels_last)
        values = x.float()
        mean = values.mean((2, 3))
        rstd = (values.var((2, 3), unbiased=False) + 1e-5).rsqrt()
        weight, bias = self.drawn(60 + network, 2, c, 1, 1).flatten(1).float()
        # A gradient in strides of its own.
        other = self.drawn(70 + network, n, c, h, w)[:, :, pad : h - pad, pad : w - pad]
        chunks = self._cover("sums_chunks")
        assert chunks <= 64
        return NormOfInput(
            x,
            mean,
            rstd,
            weight if affine else None,
            bias if affine else None,
            act,
            0.2,
            pad,
            other if skip else None,
            torch.full((n, chunks, 2, c), torch.nan),
        )


def _found(call, name: str) -> Tensor | None:
    for part in name.split("."):
        call = None if call is None else getattr(call, part)
    return call


def one_behind_another(x: Tensor, count: int) -> Tensor:
    """Memory of several tensors like one, whose elements nobody has written."""
    memory = torch.full((count * x.numel(),), torch.nan, dtype=x.dtype)
    return memory.as_strided((count, *x.shape), (x.numel(), *x.stride()))


def layer_of(call: OfWeight, k: int) -> OfWeight:
    """One layer's part of a call of several: views, and no workspace."""
    if call.groups == 1:
        return call
    parts = (None if t is None else t.chunk(call.groups)[k] for t in call[:3])
    written = (None if t is None else t[k] for t in (call.grad_weight, call.grad_bias))
    return OfWeight(*parts, *written, call.workspace[:0])


def nan_like(x: Tensor, dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
    """Memory in which an element that nobody writes is seen."""
    return torch.full(x.shape, torch.nan, dtype=dtype).contiguous(memory_format=layout)


def check_moments(y: Tensor, moments: Tensor, each: int, pitch: int) -> None:
    """Each chunk's pixel, mean and sum of squares against those of its own pixels."""
    n, channels, height, width = y.shape
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    chunk = (row * pitch + column).flatten() // each
    assert chunk.max() < moments.shape[1]
    pixels = y.double().flatten(2)
    for k in range(moments.shape[1]):
        part = pixels[:, :, chunk == k]
        if not part.shape[2]:  # positions beyond the width alone
            assert not moments[:, k].any()
            continue
        origin, mean = moments[:, k, 0].double(), part.mean(2)
        assert (part == origin[..., None]).any(2).all()
        near = 2e-6 * (part.max() - part.min()).item()
        ours = origin + moments[:, k, 1].double()
        torch.testing.assert_close(ours, mean, rtol=0, atol=near)
        m2 = (part - mean[..., None]).square().sum(2)
        near = 1e-5 * m2.max().item()
        torch.testing.assert_close(moments[:, k, 2].double(), m2, rtol=0, atol=near)


def check_sums(grad_x: Tensor, norm: NormOfInput) -> None:
    """The chunks' sums against those over the image, of the gradient as it was stored."""
    xhat = (norm.x.double() - norm.mean.double()[..., None, None]) * norm.rstd.double()[
        ..., None, None
    ]
    z = xhat
    if norm.weight is not None:
        z = z * norm.weight.double()[:, None, None]
    if norm.bias is not None:
        z = z + norm.bias.double()[:, None, None]
    z = z.requires_grad_()
    activation = (lambda t: t, F.relu, lambda t: F.leaky_relu(t, norm.negative_slope))[norm.act]
    a = activation(z)
    padded = F.pad(a, (norm.pad,) * 4, mode="reflect") if norm.pad else a
    loss = (padded * grad_x.double()).sum()
    if norm.skip is not None:
        loss = loss + (a * norm.skip.double()).sum()
    (dz,) = torch.autograd.grad(loss, z)
    for k, terms in ((0, dz), (1, dz * xhat.detach())):
        near = 2e-6 * terms.abs().sum((2, 3)).max().item()
        ours = norm.partial[:, :, k].double().sum(1)
        torch.testing.assert_close(ours, terms.sum((2, 3)), rtol=0, atol=near)
