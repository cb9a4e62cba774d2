# SPDX-License-Identifier: MIT
"""For triton_compile.py: the launches of reflect_conv2d's implementations in Triton."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cyclegan_fast.ops.reflect_conv2d import triton_between as between
from cyclegan_fast.ops.reflect_conv2d import triton_factored as factored
from cyclegan_fast.ops.reflect_conv2d import triton_implicit as implicit
from cyclegan_fast.ops.reflect_conv2d import triton_rows as rows
from cyclegan_fast.ops.reflect_conv2d import triton_transposed as transposed
from cyclegan_fast.ops.reflect_conv2d.beside_norm import (
    Moments,
    Normalised,
    NormGradient,
    NormOfInput,
)
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight

Launch = tuple[str, Callable[[], None]]


def launches(
    dtype: torch.dtype, layout: Any, *, wide_only: bool, few: bool = False
) -> Iterator[Launch]:
    """Yield what each launch is for, and a call that makes it.

    Args:
        dtype: of the images.
        layout: of the images.
        wide_only: leave out the layers that have few channels on one side.
        few: one call of the implicit GEMM alone, without norms.
    """
    yield from _convolution_launches(dtype, layout, wide_only)
    if few:
        return
    yield from _layer_launches(dtype, layout)
    if layout is torch.channels_last:
        yield from _on_load_launches(dtype)
        yield from _rows_launches(dtype)
        yield from _factored_launches(dtype)


def _convolution_launches(dtype: torch.dtype, layout: Any, wide_only: bool) -> Iterator[Launch]:
    # Channels in and out, kernel, padding, stride, with tanh: trunk, down, first and last layer.
    cases = [(256, 256, 3, 0, 1, False), (64, 128, 3, 1, 2, False)]
    cases += [] if wide_only else [(3, 64, 7, 3, 1, False), (64, 3, 7, 0, 1, True)]
    for channels, out_channels, side, padding, stride, tanh in cases:
        x = image(dtype, layout, 1, channels, 64)
        weight = image(dtype, layout, out_channels, channels, side)
        y = image(dtype, layout, 1, out_channels, (64 + 2 * padding - side) // stride + 1)
        bias = torch.empty(out_channels, dtype=dtype) if tanh else None
        work = torch.empty(implicit.workspace(y.shape, weight.shape))
        what = f"{channels} to {out_channels}, {side}x{side}, padding {padding}, stride {stride}"
        forward = [Forward(x, weight, bias, y)]
        yield what, partial(implicit.forward, forward, padding, stride, tanh)
        made = y if tanh else None
        of_input = [OfInput(y, made, weight, x)]
        yield what, partial(implicit.gradient_of_input, of_input, padding, stride)
        of_weight = [OfWeight(y, made, x, weight, bias, work)]
        yield what, partial(implicit.gradient_of_weight, of_weight, padding, stride)


# Channels in and out, kernel, side, padding, stride, zeros, transposed: the generator's trunk, a
# layer down and one up; the discriminator's by 2 and by 1.
LAYERS = (
    (256, 256, 3, 66, 0, 1, False, False),
    (64, 128, 3, 256, 1, 2, True, False),
    (128, 64, 3, 128, 1, 2, True, True),
    (64, 128, 4, 128, 1, 2, True, False),
    (256, 512, 4, 32, 1, 1, True, False),
)


def _layer_launches(dtype: torch.dtype, layout: Any) -> Iterator[Launch]:
    """Two networks in a launch, beside their norms where the layout is theirs."""
    for case in LAYERS:
        yield from _one_layers_launches(dtype, layout, *case)


def _one_layers_launches(
    dtype: torch.dtype,
    layout: Any,
    channels: int,
    out_channels: int,
    kernel: int,
    side: int,
    padding: int,
    stride: int,
    zeros: bool,
    up: bool,
) -> Iterator[Launch]:
    module: Any = transposed if up else implicit
    options = {} if up else {"zeros": zeros}
    out_side = stride * side if up else (side + 2 * padding - kernel) // stride + 1
    x = image(dtype, layout, 1, channels, side)
    y = image(dtype, layout, 1, out_channels, out_side)
    channels_of_weight = (channels, out_channels) if up else (out_channels, channels)
    weight = image(dtype, layout, *channels_of_weight, kernel)
    sizes = x.shape, weight.shape, padding, stride
    moments = torch.empty(1, module.moments_cover(*sizes)[0], 3, out_channels)
    pad = 1 if padding == 0 else 0
    made = image(dtype, torch.channels_last, 1, channels, side - 2 * pad)
    statistic = torch.empty(1, channels)
    partial_sums = torch.empty(1, module.sums_chunks(*sizes), 2, channels)
    norm = NormOfInput(
        made, statistic, statistic, None, None, 1, 0.0, pad, made if pad else None, partial_sums
    )
    work = torch.empty(module.workspace(y.shape, weight.shape))
    bias = torch.empty(out_channels, dtype=dtype)
    what = f"two, {channels} to {out_channels}, {kernel}x{kernel}, padding {padding}"
    what += f", stride {stride}" + ", zeros" * zeros + ", transposed" * up
    beside = layout is torch.channels_last
    forward = [Forward(x, weight, bias, y, moments if beside else None)] * 2
    yield what, partial(module.forward, forward, padding, stride, False, **options)
    of_input = [OfInput(y, None, weight, x, norm if beside else None)] * 2
    yield what, partial(module.gradient_of_input, of_input, padding, stride, **options)
    of_weight = [OfWeight(y, None, x, weight.float(), bias.float(), work)] * 2
    yield what, partial(module.gradient_of_weight, of_weight, padding, stride, **options)


def _on_load_launches(dtype: torch.dtype) -> Iterator[Launch]:
    """The same layers with the norms beside them applied on load; and the generator's end."""
    for channels, out_channels, kernel, side, padding, stride, zeros, up in (
        (256, 256, 3, 64, 1, 1, False, False),
        *LAYERS[1:],
        (64, 3, 7, 256, 3, 1, False, False),
    ):
        module: Any = transposed if up else implicit
        options = {} if up else {"zeros": zeros}
        out_side = stride * side if up else (side + 2 * padding - kernel) // stride + 1
        x = image(dtype, torch.channels_last, 2, channels, side)
        y = image(dtype, torch.channels_last, 2, out_channels, out_side)
        channels_of_weight = (channels, out_channels) if up else (out_channels, channels)
        weight = image(torch.float32, torch.channels_last, *channels_of_weight, kernel)
        sizes, tanh = (x.shape, weight.shape, padding, stride), kernel == 7
        given, out_given = torch.empty(2, channels), torch.empty(2, out_channels)
        # As weights and biases of two layers in a launch, or of one.
        act = 2 if kernel == 4 else 1
        norm = Normalised(given, given, given, given, act, 0.2)
        of_norm = NormGradient(y, out_given, out_given, out_given, torch.empty(2, 2, out_channels))
        one = norm._replace(weight=given[0], bias=given[0])
        of_one = None if tanh else of_norm._replace(weight=out_given[0])
        moments = torch.empty(2, module.moments_cover(*sizes)[0], 3, out_channels)
        sums = torch.empty(2, module.sums_chunks(*sizes), 2, channels)
        before = NormOfInput(x, *norm[:2], *one[2:], 0, None, sums, masked=True)
        what = f"on load, {channels} to {out_channels}, {kernel}x{kernel}, padding {padding}"
        what += f", stride {stride}" + ", zeros" * zeros + ", transposed" * up
        how, small = (padding, stride), weight.to(dtype)
        forward = Forward(x, small, None, y, None if tanh else moments, one)
        yield what, partial(module.forward, [forward] * 2, *how, tanh, **options)
        made = y if tanh else None
        of_input = OfInput(y, made, small, x, before, of_one)
        yield what, partial(module.gradient_of_input, [of_input] * 2, *how, **options)
        work = torch.empty(module.workspace(y.shape, weight.shape))
        of_weight = OfWeight(y, made, x, weight, None, work, one, of_one)
        yield what, partial(module.gradient_of_weight, [of_weight] * 2, *how, **options)
        if channels == out_channels:
            sizes = (2, *weight.shape), (weight.numel(), *weight.stride())
            work = torch.empty(module.workspace(y.shape, weight.shape, 2))
            of_both = OfWeight(
                y, None, x, torch.empty_strided(*sizes), None, work, norm, of_norm, groups=2
            )
            both = f"{what}, two layers"
            yield both, partial(module.gradient_of_weight, [of_both] * 2, *how, **options)
    for chunks in (1, 33):
        given, moments, sums = (torch.empty(1, *s, 256) for s in ((), (chunks, 3), (chunks, 2)))
        cover = between.Statistics(Moments(moments, 128, 64), 64, 64, 1e-5, given, given)
        what = f"{chunks} chunks"
        yield what, partial(between.statistics, [cover] * 2)
        yield what, partial(between.sums, [between.Sums(sums, torch.empty(1, 2, 256))] * 2)


def _rows_launches(dtype: torch.dtype) -> Iterator[Launch]:
    """The trunk of one network with a bias, and of two with their norms, by one tile and by more.

    And the discriminator's last but one layer, whose result is blocks of several rows; and a layer
    with a tanh, which is no network's of ours.
    """
    cases = [(1, 256, 66, 3, ""), (2, 256, 66, 3, "norms"), (2, 256, 130, 3, "norms")]
    cases += [(1, 512, 34, 4, ""), (1, 256, 66, 3, "tanh")]
    for calls, channels, size, side, form in cases:
        norms, tanh = form == "norms", form == "tanh"
        x = image(dtype, torch.channels_last, 1, channels, size)
        weight = image(dtype, torch.channels_last, channels, channels, side)
        y = image(dtype, torch.channels_last, 1, channels, size - side + 1)
        bias = None if norms else torch.empty(channels, dtype=dtype)
        sizes = (x.shape, weight.shape, 0, 1)
        moments = torch.empty(1, rows.moments_cover(*sizes)[0], 3, channels) if norms else None
        norm = None
        if norms:
            inner = image(dtype, torch.channels_last, 1, channels, size - 2)
            each, sums = (
                torch.empty(1, channels),
                torch.empty(1, rows.sums_chunks(*sizes), 2, channels),
            )
            norm = NormOfInput(inner, each, each, each[0], each[0], 1, 0.2, 1, inner, sums)
        work = torch.empty(rows.workspace(y.shape, weight.shape))
        made = y if tanh else None
        of_weight = OfWeight(y, made, x, weight.float(), bias, work)
        what = f"rows, {calls} of {channels} channels, {side}x{side}, {size}x{size} {form}"
        yield (
            what,
            partial(rows.forward, [Forward(x, weight, bias, y, moments)] * calls, 0, 1, tanh),
        )
        of_input = OfInput(y, made, weight, x, norm)
        yield what, partial(rows.gradient_of_input, [of_input] * calls, 0, 1)
        yield what, partial(rows.gradient_of_weight, [of_weight] * calls, 0, 1)
    yield from _trunks_launches(dtype)


def _trunks_launches(dtype: torch.dtype) -> Iterator[Launch]:
    """The gradients of a generator's trunk in one launch, which writes them: one network, two."""
    x, y = (image(dtype, torch.channels_last, 18, 256, size) for size in (66, 64))
    weights = torch.empty(18, 256, 3, 3, 256).permute(0, 1, 4, 2, 3)
    work = torch.empty(rows.workspace(y.shape, weights.shape[1:], 18))
    for calls in (1, 2):
        of_weight = OfWeight(y, None, x, weights, None, work, groups=18)
        what = f"rows, {calls} of 18 layers of 256 channels, 3x3, 66x66"
        yield what, partial(rows.gradient_of_weight, [of_weight] * calls, 0, 1)


def _factored_launches(dtype: torch.dtype) -> Iterator[Launch]:
    """The generator's ends, of one network and of two: of an image as it comes, and padded."""
    layout = torch.channels_last
    for channels, out_channels in ((3, 64), (64, 3)):
        first = channels < out_channels
        for calls, padding, tanh in ((1, 3, False), (2, 0, True)):
            x = image(dtype, layout, 1, channels, 256 if padding else 262)
            weight = image(dtype, layout, out_channels, channels, 7)
            y = image(dtype, layout, 1, out_channels, 256)
            bias, statistic = torch.empty(out_channels, dtype=dtype), torch.empty(1, 64)
            sizes = x.shape, weight.shape, padding, 1
            moments = torch.empty(1, factored.moments_cover(*sizes)[0], 3, out_channels)
            partial_sums = torch.empty(1, factored.sums_chunks(*sizes), 2, channels)
            made = image(dtype, layout, 1, 64, 256)
            norm = NormOfInput(
                made, statistic, statistic, None, None, 1, 0.0, 3, None, partial_sums
            )
            work = torch.empty(factored.workspace(y.shape, weight.shape))
            what = f"{channels} to {out_channels}, 7x7, padding {padding}, {calls} calls"
            forward = [Forward(x, weight, bias, y, moments if first else None)] * calls
            yield what, partial(factored.forward, forward, padding, 1, tanh)
            act = y if tanh else None
            of_input = [OfInput(y, act, weight, x, None if first or padding else norm)] * calls
            yield what, partial(factored.gradient_of_input, of_input, padding, 1)
            of_weight = [OfWeight(y, act, x, weight, bias, work)] * calls
            yield what, partial(factored.gradient_of_weight, of_weight, padding, 1)


def image(dtype: torch.dtype, layout: Any, n: int, c: int, size: int) -> Tensor:
    """Return an image of n x c planes of size x size pixels."""
    return torch.empty(n, c, size, size, dtype=dtype).contiguous(memory_format=layout)
