# SPDX-License-Identifier: MIT
"""How the implicit GEMM's kernels and launchers hand on what a convolution leaves for a norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from cyclegan_fast.ops._triton import of_call, reflected
from cyclegan_fast.ops.reflect_conv2d.beside_norm import NormOfInput
from cyclegan_fast.ops.reflect_conv2d.triton_epilogues import tile_sums

NORM = ("x", "mean", "rstd", "weight", "bias", "skip")


def left(
    moments: Sequence[Tensor | None],
    norms: Sequence[NormOfInput | None],
    chunks: int,
    may_mask: bool = False,
) -> dict[str, object]:
    """Return the kernels' arguments that say what a launch leaves, for all of its calls or none.

    Args:
        moments: of each call, where they are written.
        norms: of each call, the norm that sums are wanted for.
        chunks: of an image.
        may_mask: the kernel can write dz in the place of the gradient.

    Raises:
        ValueError: the chunks are others, the norm's x has another layout, or dz cannot be written.
    """
    norm = norms[0]
    partials = moments if norm is None else [n.partial for n in norms if n is not None]
    if partials[0] is not None and partials[0].shape[1] != chunks:
        raise ValueError(
            f"reflect_conv2d: partial must have {chunks} chunks, got {partials[0].shape[1]}"
        )
    if norm is not None and not norm.x.is_contiguous(memory_format=torch.channels_last):
        raise ValueError("reflect_conv2d: the norm's x must be channels_last for sums of it")
    if norm is not None and norm.masked and (norm.pad or not may_mask):
        raise ValueError(
            "reflect_conv2d: dz can be written by the implicit GEMM alone, and of the norm's own "
            f"plane: masked must come with pad 0, got pad {norm.pad}"
        )
    skip = None if norm is None else norm.skip
    leaves = "" if partials[0] is None else "moments"
    if norm is not None:
        leaves = "masked" if norm.masked else "sums"
    arguments: dict[str, object] = {"partial_ptr": partials[0], "other_partial_ptr": partials[-1]}
    for name in NORM:
        arguments[f"norm_{name}_ptr"] = getattr(norm, name, None)
        arguments[f"other_norm_{name}_ptr"] = getattr(norms[-1], name, None)
    for k, side in enumerate("nchw"):
        arguments[f"skip_stride_{side}"] = 0 if skip is None else skip.stride(k)
    return arguments | {
        "LEAVES": leaves,
        "NORM_PAD": 0 if norm is None else norm.pad,
        "NORM_ACT": 0 if norm is None else norm.act,
        "NORM_SLOPE": 0.0 if norm is None else norm.negative_slope,
    }


@triton.jit
def sums_of_call(
    grad,  # [BLOCK_P, BLOCK_C] float32: gradients of pixels of a padded image
    h,  # [BLOCK_P] their rows
    w,  # [BLOCK_P] their columns
    mask_p,  # [BLOCK_P]
    channel,  # [BLOCK_C] int64
    mask_c,  # [BLOCK_C]
    n,  # int64, which image
    norm,  # the norm's x, mean and rstd
    other_norm,  # the second call's
    options,  # its weight, bias and skip, each of which may be None
    other_options,
    skip_strides,
    channels,
    height,  # padded
    width,
    PAD: tl.constexpr,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
    DTYPE: tl.constexpr,
    MASKED: tl.constexpr = False,
):
    """The sums over a tile of the padded image, and dz, see tile_sums, for this program's call."""
    height, width = height - 2 * PAD, width - 2 * PAD
    own_h, own_w = reflected(h, PAD, height), reflected(w, PAD, width)
    weight_ptr, bias_ptr, skip_ptr = options[0], options[1], options[2]
    if weight_ptr is not None:
        weight_ptr = of_call(weight_ptr, other_options[0])
    if bias_ptr is not None:
        bias_ptr = of_call(bias_ptr, other_options[1])
    if skip_ptr is not None:
        skip_ptr = of_call(skip_ptr, other_options[2]) + n * skip_strides[0]
    return tile_sums(
        grad,
        own_h,
        own_w,
        (own_h + PAD == h) & (own_w + PAD == w),
        mask_p,
        channel,
        mask_c,
        of_call(norm[0], other_norm[0]) + n * channels * height * width,
        skip_ptr,
        of_call(norm[1], other_norm[1]) + n * channels,
        of_call(norm[2], other_norm[2]) + n * channels,
        weight_ptr,
        bias_ptr,
        channels,
        width,
        skip_strides[1],
        skip_strides[2],
        skip_strides[3],
        ACT,
        SLOPE,
        DTYPE,
        MASKED,
    )
