# SPDX-License-Identifier: MIT
"""How the implicit GEMM's kernels load a tile of an image, with what stands between it and them.

A tile is loaded as it is ("raw"), times the derivative of a tanh ("tanh"), normalised and activated
("normalised", beside_norm.Normalised), or as the backward of a norm ("gradient",
beside_norm.NormGradient). What lies outside the image is zero in any case.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from cyclegan_fast.ops._triton import of_call
from cyclegan_fast.ops.instance_norm_act.triton_fwd import activated
from cyclegan_fast.ops.reflect_conv2d.beside_norm import Normalised, NormGradient

Loaded = Normalised | NormGradient | None
STATISTICS = ("mean", "rstd", "weight", "bias", "sums")


def on_load(
    name: str,
    images: Sequence[Tensor],
    norms: Sequence[Loaded],
    acts: Sequence[Tensor | None],
    groups: int = 1,
) -> dict[str, object]:
    """Return a kernel's arguments that say how one of its images is loaded, for all of its calls.

    Args:
        name: of the image among the arguments.
        images: of each call, what is loaded.
        norms: of each call, what is applied to it.
        acts: of each call, the result of the tanh whose derivative is applied to it.
        groups: layers that share a launch, an equal part of the images each one's.

    Raises:
        ValueError: sizes, dtypes or layouts do not fit, or a norm stands beside a tanh.
    """
    for image, norm, act in zip(images, norms, acts, strict=True):
        if norm is not None:
            _check(image, norm, act, groups)
    norm, other = norms[0], norms[-1]
    form = {Normalised: "normalised", NormGradient: "gradient"}.get(type(norm), "raw")
    beside = [
        act if n is None else getattr(n, "x", None) for n, act in zip(norms, acts, strict=True)
    ]
    arguments: dict[str, object] = {
        f"{name}_beside_ptr": beside[0],
        f"other_{name}_beside_ptr": beside[-1],
        f"{name.upper()}_FORM": form if acts[0] is None else "tanh",
        f"{name.upper()}_ACT": getattr(norm, "act", 0),
        f"{name.upper()}_SLOPE": getattr(norm, "negative_slope", 0.0),
    }
    for statistic in STATISTICS:
        arguments[f"{name}_{statistic}_ptr"] = getattr(norm, statistic, None)
        arguments[f"other_{name}_{statistic}_ptr"] = getattr(other, statistic, None)
    return arguments


def _check(image: Tensor, norm: Normalised | NormGradient, act: Tensor | None, groups: int) -> None:
    """Raise unless a norm can be applied to an image that is loaded."""
    if act is not None:
        raise ValueError(
            "reflect_conv2d: no norm stands behind a tanh: give of_norm or y, not both"
        )
    n, channels = image.shape[:2]
    shapes = {"mean": (n, channels), "rstd": (n, channels), "sums": (n, 2, channels)}
    for name in STATISTICS:
        value = getattr(norm, name, None)
        if value is None:
            continue
        wanted = shapes.get(name, (groups, channels))
        fits = value.shape == wanted or (groups == 1 and value.shape == wanted[1:] == (channels,))
        if not fits or value.dtype != torch.float32 or not value.is_contiguous():
            raise ValueError(
                f"reflect_conv2d: {name} of the norm applied on load must be float32 "
                f"{list(wanted)}, dense, got {value.dtype} {list(value.shape)}"
            )
    # In the other layout offsets take registers that this needs: the weight's gradient would spill.
    if not _channels_last(image):
        raise ValueError(
            "reflect_conv2d: a norm is applied on load to images in channels_last alone, got "
            f"strides {image.stride()}: use .contiguous(memory_format=torch.channels_last)"
        )
    if isinstance(norm, NormGradient):
        x = norm.x
        if x.shape != image.shape or x.dtype != image.dtype or not _channels_last(x):
            raise ValueError(
                f"reflect_conv2d: the norm's x must have grad_y's sizes, dtype and layout, got "
                f"{x.dtype} {list(x.shape)} beside {image.dtype} {list(image.shape)}"
            )


def _channels_last(image: Tensor) -> bool:
    return image.is_contiguous(memory_format=torch.channels_last)


@triton.jit
def load_tile(
    image_ptr,  # of this program's call
    beside_ptr,  # the same offsets in y of a tanh, or in the norm's x; or None
    source,  # [BLOCK_P, BLOCK_C] int64 offsets from both
    mask,  # [BLOCK_P, BLOCK_C] what lies in the image
    n,  # int64, which image, if a norm is applied
    channel,  # [BLOCK_C]
    mask_c,  # [BLOCK_C]
    channels,
    pixels,  # of the image
    group,  # which layer
    norm,  # float32 mean, rstd, weight, bias and sums, each of which may be None
    other_norm,  # the second call's
    FORM: tl.constexpr,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
):
    """A tile of an image, in the dtype that tensor cores multiply."""
    if FORM == "tanh":
        value = derivative(image_ptr, beside_ptr, source, mask, True)
    else:
        value = tl.load(image_ptr + source, mask=mask, other=0)
    if FORM == "normalised" or FORM == "gradient":
        channel = channel.to(tl.int64)
        statistic = n * channels + channel
        mean = tl.load(of_call(norm[0], other_norm[0]) + statistic, mask=mask_c, other=0)
        scale = tl.load(of_call(norm[1], other_norm[1]) + statistic, mask=mask_c, other=0)
        rstd = scale
        own = group * channels + channel
        if norm[2] is not None:
            scale = rstd * tl.load(of_call(norm[2], other_norm[2]) + own, mask=mask_c, other=0)
        if FORM == "normalised":
            bias = tl.zeros_like(scale)
            if norm[3] is not None:
                bias = tl.load(of_call(norm[3], other_norm[3]) + own, mask=mask_c, other=0)
            d = value.to(tl.float32) - mean[None, :]
            # As instance_norm_act's kernels write it, so that both ways read the same bits.
            made = activated(d * scale[None, :] + bias[None, :], ACT, SLOPE)
        else:
            d = tl.load(beside_ptr + source, mask=mask, other=0).to(tl.float32) - mean[None, :]
            sums_ptr = of_call(norm[4], other_norm[4]) + n * 2 * channels + channel
            count = tl.cast(pixels, tl.float32)
            of_dz = tl.load(sums_ptr, mask=mask_c, other=0) / count
            slope = rstd * (tl.load(sums_ptr + channels, mask=mask_c, other=0) / count)
            made = scale[None, :] * (value.to(tl.float32) - of_dz[None, :] - d * slope[None, :])
        value = tl.where(mask, made, 0).to(image_ptr.dtype.element_ty)
    return value


@triton.jit
def derivative(grad_y_ptr, y_ptr, source, mask, TANH: tl.constexpr):
    """dL/dz of z, of which y is the activation, in the dtype that tensor cores multiply."""
    grad = tl.load(grad_y_ptr + source, mask=mask, other=0)
    if TANH:
        y = tl.load(y_ptr + source, mask=mask, other=0).to(tl.float32)
        grad = (grad.to(tl.float32) * (1 - y * y)).to(grad_y_ptr.dtype.element_ty)
    return grad
