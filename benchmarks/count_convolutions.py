# SPDX-License-Identifier: MIT
"""For count_launches.py: what a convolution that the dispatcher sees asks of a GPU, by parts."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from cyclegan_fast.ops.reflect_conv2d import table
from cyclegan_fast.ops.reflect_conv2d.layers import Layer


def size(tensor: Tensor) -> int:
    """Bytes of memory behind a tensor: an expanded one has less than its elements."""
    if any(stride == 0 for stride in tensor.stride()):
        return tensor.untyped_storage().nbytes()
    return tensor.numel() * tensor.element_size()


def reflect_conv2d(args, result) -> Iterator[tuple[str, str, int]]:
    """Yield (group, part, bytes) of what the library path launches.

    Triton's one kernel reads and writes the same, unpadded.
    """
    x, weight, bias, padding, stride, act, _channels_last, policy = args
    native = table.choose("forward", policy, Layer(x, weight, padding, stride)) == "library"
    padded = _padded_size(x, padding)
    if padding and native:
        yield "pads", "reflect_conv2d pad", size(x) + padded
    read = padded if native else size(x)
    biased = 0 if bias is None else size(bias)
    yield "convolutions", "fprop", read + size(weight) + biased + size(result)
    if act == "tanh" and native:
        yield "other", "tanh", 2 * size(result)


def reflect_conv2d_backward(args, result) -> Iterator[tuple[str, str, int]]:
    """Yield (group, part, bytes) of the op's backward, likewise."""
    grad_y, y, x, weight, padding, stride, needs_x, needs_weight, needs_bias, policy = args
    grad_x, grad_weight, grad_bias = result
    layer = Layer(x, weight, padding, stride)
    native = table.choose("gradient_of_weight", policy, layer) == "library"
    padded = _padded_size(x, padding) if native else size(x)
    if y is not None and native:
        yield "other", "tanh_backward", 3 * size(grad_y)
    read = size(grad_y) + (0 if y is None or native else size(y))
    if needs_x:
        yield "convolutions", "dgrad", read + size(weight) + padded
        if padding and native:
            yield "pads", "reflect_conv2d pad backward", padded + size(grad_x)
    if needs_weight:
        if padding and native:
            yield "pads", "reflect_conv2d pad again", size(x) + padded
        yield "convolutions", "wgrad", read + padded + size(grad_weight)
    if needs_bias and (native or not needs_weight):
        yield "convolutions", "gradient of a bias", read + size(grad_bias)
    if not native and (needs_weight or needs_bias):
        yield "convolutions", "sum of splits", size(grad_weight) + size(grad_bias)


def _padded_size(x: Tensor, padding: int) -> int:
    n, c, h, w = x.shape
    return n * c * (h + 2 * padding) * (w + 2 * padding) * x.element_size()


def convolution_backward(args, result) -> Iterator[tuple[str, int]]:
    """Yield (part, bytes) of PyTorch's own convolution's backward."""
    grad_y, x, weight = args[:3]
    grad_x, grad_weight, grad_bias = result
    if grad_x is not None:
        yield "dgrad", size(grad_y) + size(weight) + size(grad_x)
    if grad_weight is not None:
        yield "wgrad", size(grad_y) + size(x) + size(grad_weight)
    if grad_bias is not None:
        yield "gradient of a bias", size(grad_y) + size(grad_bias)
