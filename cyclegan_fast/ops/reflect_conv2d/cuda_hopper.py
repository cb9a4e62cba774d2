# SPDX-License-Identifier: MIT
"""reflect_conv2d in CUDA C++ for compute capability 9.0, of 3x3 and images that are padded already.

As over rows (triton_rows.py), an image is a matrix of which a tap reads other rows. Here a tile's
pixels come to shared memory once for all nine taps: see csrc/ops/reflect_conv2d_hopper.cu; for the
gradient of the weight once for three: reflect_conv2d_hopper_weight.cu. `auto` does not take it
before a record shows it to be the fastest.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cyclegan_fast import _extension
from cyclegan_fast.ops.reflect_conv2d.beside_norm import MOST_CHUNKS
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight

CAPABILITY = (9, 0)
DEPTH = 64  # channels summed over at a time
# Tiles of so many positions, and the widest image of which one's pixels fit into shared memory; of
# 256, beside four taps' filters.
WIDEST = {128: 512, 256: 127}
PROGRAMS = 132  # multiprocessors of an H100
# Of a tile whose mirror images are added to what they show, and the narrowest image of such.
FOLDED_STEP, LEAST_FOLDED = 126, 10
MOST_PIXELS = 1 << 30  # they are counted in 32 bits
STEP = 64  # pixels of a result's row, over which the weight's gradient sums at a time
# Of a weight's gradient: blocks that are wanted of one call, half of the multiprocessors, since two
# networks' are one launch; and the fewest steps of a split, whose sum takes as long to be written
# and read.
WEIGHT_PROGRAMS, LEAST_STEPS = 66, 4

ops: Any = torch.ops.cyclegan_fast_C


class Tile(NamedTuple):
    """How a launch is cut: a block makes positions x columns of a result at a time, and a chunk."""

    positions: int
    columns: int
    each: int  # positions of a chunk


class Split(NamedTuple):
    """How a layer's gradient of the weight is cut: `columns` of x to a block, steps of a split."""

    columns: int
    each: int
    splits: int


def why_not(x: Tensor, weight: Tensor, padding: int, stride: int) -> str | None:
    """Return why a call is not served, or None."""
    if padding:
        return "the image must be padded already"
    return _why_not(x, weight, stride)


def why_not_loading(x: Tensor, weight: Tensor, padding: int, stride: int) -> str | None:
    """Return why a call with norms on load, of the image or its gradient, is not served, or None.

    Args:
        x: what the norm before reads.
        weight: of the convolution.
        padding: pixels of that norm's result that are mirrored on each side.
        stride: of the convolution.
    """
    if padding != 1:
        return "a norm's result is padded by 1 while it is loaded"
    if x.shape[3] < LEAST_FOLDED:
        return f"x must be at least {LEAST_FOLDED} pixels wide"
    return _why_not(x, weight, stride, border=1)


def _why_not(x: Tensor, weight: Tensor, stride: int, border: int = 0) -> str | None:
    reason = _why_not_on(x.device)
    if reason is not None:
        return reason
    if stride != 1 or weight.shape[2:] != (3, 3):
        return "the kernel must be 3x3 and the stride 1"
    if x.dtype not in (torch.float16, torch.bfloat16):
        return f"{x.dtype} is not served"
    if any(side % DEPTH for side in weight.shape[:2]):
        return f"channels must be multiples of {DEPTH}"
    if not all(t.permute(0, 2, 3, 1).is_contiguous() for t in (x, weight)):
        return "x and weight must be dense in channels_last"
    if x.shape[3] + 2 * border > WIDEST[128]:
        return f"x must be at most {WIDEST[128]} pixels wide, its border counted"
    if x.numel() // x.shape[1] >= MOST_PIXELS:
        return f"x must have fewer than {MOST_PIXELS} pixels"
    return None


def moments_cover(
    x_shape: Sequence[int], weight_shape: Sequence[int], padding: int, stride: int
) -> tuple[int, int, int]:
    """Return chunks, each and pitch of the moments of one image, see beside_norm.Moments."""
    height, width = (side + 2 * padding for side in x_shape[2:])
    positions = (height - 2) * width
    each = _tile(x_shape[0], positions, width, weight_shape[0], chunked=True).each
    return -(-positions // each), each, width


def forward(calls: Sequence[Forward], padding: int, stride: int, tanh: bool) -> None:
    """Write the convolutions, and their moments where they are asked for.

    With a norm on load, and with it alone, padding is 1: of the normalised image.
    """
    x, weight, bias, y, moments, norms = zip(*calls, strict=True)
    n, channels, height, width = y[0].shape
    tile = _tile(n, height * (width + 2), width + 2, channels, chunked=moments[0] is not None)
    if norms[0] is not None:
        # The loaders of a large tile have no registers for it.
        tile = tile._replace(positions=128)
    if padding != (norms[0] is not None):
        raise ValueError(
            f"reflect_conv2d: padding must be 1 with a norm on load and 0 without, got {padding}"
        )
    names = ("mean", "rstd", "weight", "bias")
    of_norms = [[getattr(norm, name, None) for norm in norms] for name in names]
    act, slope = (0, 0.0) if norms[0] is None else (norms[0].act, norms[0].negative_slope)
    left = [_or_empty(each, x[0]) for each in moments]
    ops.reflect_conv2d_hopper_fwd(x, weight, bias, *of_norms, act, slope, tanh, *tile, y, left)


def sums_chunks(
    x_shape: Sequence[int], weight_shape: Sequence[int], padding: int, stride: int
) -> int:
    """Return the chunks of an image's sums, see beside_norm.NormOfInput."""
    n, channels, height, width = x_shape
    pitch = width + 2 * padding
    tile = _tile(n, height * pitch, pitch, channels, chunked=True, folded=padding > 0)
    return -(-height * pitch // tile.each)


def gradient_of_input(calls: Sequence[OfInput], padding: int, stride: int) -> None:
    """Write the images' gradients, and the sums of the norm before where they are asked for.

    With padding 1 the border's gradient is added to what it shows; a norm's backward is applied to
    what is loaded and written then alone.
    """
    grad_y, y, weight, grad_x, norms, behind = zip(*calls, strict=True)
    n, channels, height, width = grad_x[0].shape
    norm, folded = norms[0], padding > 0
    masked = norm is not None and norm.masked
    pad = 0 if norm is None else norm.pad
    if padding > 1 or (folded and pad) or (not folded and (masked or behind[0] is not None)):
        raise ValueError(
            "reflect_conv2d: padding must be 0 or 1, and with a norm's backward on load or a "
            f"masked gradient 1 and the norm's pad 0, got padding {padding} and pad {pad}"
        )
    pitch = width + 2 * padding
    tile = _tile(n, height * pitch, pitch, channels, chunked=norm is not None, folded=folded)
    of_behind = [
        [getattr(each, name, None) for each in behind]
        for name in ("x", "mean", "rstd", "weight", "sums")
    ]
    of_norms = [
        [getattr(each, name, None) for each in norms]
        for name in ("x", "mean", "rstd", "weight", "bias", "skip")
    ]
    act, slope = (0, 0.0) if norm is None else (norm.act, norm.negative_slope)
    left = [_or_empty(getattr(each, "partial", None), grad_x[0]) for each in norms]
    ops.reflect_conv2d_hopper_bwd(
        grad_y,
        y,
        weight,
        *tile,
        *of_behind,
        folded,
        *of_norms,
        act,
        slope,
        pad or padding,
        masked,
        grad_x,
        left,
    )


def workspace(out_shape: Sequence[int], weight_shape: Sequence[int], groups: int = 1) -> int:
    """Return the float32 elements that a call of gradient_of_weight needs.

    Args:
        out_shape: of grad_y, with the images of all groups.
        weight_shape: of one layer's.
        groups: layers, see calls.OfWeight.
    """
    splits = _split(out_shape, weight_shape[1], groups).splits
    out_channels, channels = weight_shape[:2]
    return 0 if splits == 1 else splits * groups * out_channels * (channels * 9 + 1)


def gradient_of_weight(calls: Sequence[OfWeight], padding: int, stride: int) -> None:
    """Write the gradients of the weights and the biases that are not None."""
    grad_y, y, x, grad_weight, grad_bias, work, norms, of_norms, groups = zip(*calls, strict=True)
    if any(norm is not None for norm in (*norms, *of_norms)):
        raise ValueError(
            "reflect_conv2d: 'hopper' applies no norm to what a weight's gradient loads; "
            "use 'implicit'"
        )
    if len(x[0]) % groups[0]:
        raise ValueError(
            f"reflect_conv2d: groups must have as many images each, got {len(x[0])} images for "
            f"{groups[0]} groups: lay the layers' images one behind another"
        )
    split = _split(grad_y[0].shape, x[0].shape[1], groups[0])
    # Of several layers: filters of one, then of the next.
    of_weight, of_bias = (
        [
            _or_empty(g if g is None or groups[0] == 1 else g.flatten(0, 1), like)
            for g, like in zip(of_calls, x, strict=True)
        ]
        for of_calls in (grad_weight, grad_bias)
    )
    ops.reflect_conv2d_hopper_bwd_weight(
        grad_y, y, x, groups[0], split.columns, split.each, of_weight, of_bias, work
    )


def _split(out_shape: Sequence[int], channels: int, groups: int) -> Split:
    """Return how a layer's sum is cut; out_shape is of all the layers, channels of x."""
    n, out_channels, height, width = out_shape
    columns = 128 if channels % 128 == 0 else 64
    # A block has 128 filters and three taps.
    programs = groups * 3 * -(-out_channels // 128) * (channels // columns)
    steps = n // groups * height * -(-width // STEP)
    splits = max(1, min(WEIGHT_PROGRAMS // programs, steps // LEAST_STEPS))
    each = -(-steps // splits)
    return Split(columns, each, -(-steps // each))


def _tile(
    n: int, positions: int, width: int, channels: int, chunked: bool, folded: bool = False
) -> Tile:
    """Return how a launch on n images is cut, by their sizes alone.

    Args:
        n: images of one call; a second call has as many.
        positions: of an image's result, at the pitch of the padded image.
        width: that pitch.
        channels: of the result.
        chunked: something is left by chunks, of which there must be few.
        folded: the gradient of the padded image is added to that of the image.
    """
    columns = 128 if channels % 128 == 0 else 64
    # Twice the positions read the filters half as often, if there is work enough for all.
    units = n * -(-positions // 256) * (channels // columns)
    wide = columns == 128 and width <= WIDEST[256] and units >= PROGRAMS and not folded
    size = 256 if wide else 128
    step = FOLDED_STEP if folded else size
    tiles = -(-positions // step)
    return Tile(size, columns, step * (-(-tiles // MOST_CHUNKS) if chunked else 1))


@functools.cache
def _why_not_on(device: torch.device) -> str | None:
    if device.type != "cuda":
        return "it is made for GPUs of compute capability 9.0"
    capability = torch.cuda.get_device_capability(device)
    if capability != CAPABILITY:
        return f"it is made for compute capability 9.0, and this GPU's is {capability}"
    if not _extension.cuda_available():
        return _extension.why_not_cuda()
    built_for: Any = _extension.build_info()["cuda_architectures"]
    if not any(each.startswith("90a") for each in built_for):
        return "the package was built without it: TORCH_CUDA_ARCH_LIST named no 9.0"
    return None


def _or_empty(left: Tensor | None, like: Tensor) -> Tensor:
    """Return what stands for none: PyTorch cannot follow lists of what may be written."""
    return like.new_empty((0,)) if left is None else left
