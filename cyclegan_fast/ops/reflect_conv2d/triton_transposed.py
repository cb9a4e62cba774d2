# SPDX-License-Identifier: MIT
"""The transposed convolution in Triton, over the kernels of the implicit GEMM.

It is the gradient of a convolution padded by zeros, whose weight [C_in, C_out, KH, KW] it has: its
forward is that one's gradient of the input, and conversely. Its result is stride times as large as
x, as nn.ConvTranspose2d's with an output_padding of stride + 2 padding - kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cyclegan_fast.ops.reflect_conv2d import triton_implicit as implicit
from cyclegan_fast.ops.reflect_conv2d import triton_implicit_tiles as cut
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight


def why_not(x: Tensor, weight: Tensor, padding: int, stride: int) -> str | None:
    """Return why a call cannot be served, or None."""
    for side in weight.shape[2:]:
        if not 0 <= stride + 2 * padding - side < stride:
            return f"its result is not {stride} times as large as x"
    return implicit.why_not(x, weight, padding, stride)


def forward(calls: Sequence[Forward], padding: int, stride: int, tanh: bool) -> None:
    """Write each call's y, and its moments; weight is [C_in, C_out, KH, KW].

    Raises:
        ValueError: of a tanh, which has no kernel here.
    """
    _without_tanh(tanh)
    implicit.gather(
        [OfInput(call.x, None, call.weight, call.y) for call in calls],
        [call.norm for call in calls],
        [call.bias for call in calls],
        [call.moments for call in calls],
        padding,
        stride,
        zeros=True,
    )


def gradient_of_input(calls: Sequence[OfInput], padding: int, stride: int) -> None:
    """Write each call's grad_x, and the sums of the norm that has made x."""
    _without_tanh(calls[0].y is not None)
    implicit.convolve(
        [Forward(call.grad_y, call.weight, None, call.grad_x) for call in calls],
        [call.of_norm for call in calls],
        [call.norm for call in calls],
        padding,
        stride,
        tanh=False,
        zeros=True,
    )


def gradient_of_weight(calls: Sequence[OfWeight], padding: int, stride: int) -> None:
    """Write each call's grad_weight and grad_bias, those that are not None."""
    _without_tanh(calls[0].y is not None)
    norms, of_norms = [call.norm for call in calls], [call.of_norm for call in calls]
    if calls[0].grad_weight is not None:
        implicit.correlate(
            [call._replace(grad_y=call.x, x=call.grad_y, grad_bias=None) for call in calls],
            norms,
            of_norms,
            padding,
            stride,
            zeros=True,
        )
    if calls[0].grad_bias is not None:
        # No tap of the convolution passes over all of grad_y, which is its image.
        of_bias = [call._replace(x=call.grad_y, grad_weight=None) for call in calls]
        implicit.correlate(of_bias, of_norms, [None] * len(calls), 0, 1, zeros=False)


def workspace(out_shape: torch.Size, weight_shape: torch.Size, groups: int = 1) -> int:
    """Return the float32 elements that one call of gradient_of_weight needs; as implicit's."""
    of_bias = implicit.workspace(out_shape, cut.of_bias(out_shape), groups)
    return max(of_bias, _most_splits(out_shape, weight_shape, groups) * weight_shape.numel())


def weight_launches(out_shape: torch.Size, weight_shape: torch.Size, groups: int = 1) -> int:
    """Return the launches of the weight's gradient, the bias's not counted; as implicit's."""
    return 1 + (_most_splits(out_shape, weight_shape, groups) > 0)


def _most_splits(out_shape: torch.Size, weight_shape: torch.Size, groups: int) -> int:
    """Return the splits that would do for all groups, or 0 where there is one for each."""
    # Summed over x's pixels, which are no more than those of the result.
    splits = max(
        cut.most_splits(out_shape, weight_shape, tiles, groups) for tiles in cut.TILES.values()
    )
    return groups * splits if splits > 1 else 0


def moments_cover(
    x_shape: torch.Size, weight_shape: torch.Size, padding: int, stride: int
) -> tuple[int, int, int]:
    """Return the chunks of an image's moments, positions in each, and positions in a row."""
    height, width = stride * x_shape[2], stride * x_shape[3]
    chunks, rows = cut.chunks_of_rows(height, width, stride)
    return chunks, rows * stride * width, width


def sums_chunks(x_shape: torch.Size, weight_shape: torch.Size, padding: int, stride: int) -> int:
    """Return the chunks of the sums over an image's gradient."""
    return cut.chunks_of_positions(x_shape[2] * x_shape[3])[0]


def _without_tanh(tanh: bool) -> None:
    if tanh:
        raise ValueError("a transposed convolution in Triton has no tanh")
