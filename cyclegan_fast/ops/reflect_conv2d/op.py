# SPDX-License-Identifier: MIT
"""reflect_conv2d: the function users call, and what it accepts."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.reflect_conv2d.autograd import (
    ACTIVATIONS,
    backward,
    forward,
    memory_format,
)
from cyclegan_fast.ops.reflect_conv2d.reference import reflect_conv2d_reference
from cyclegan_fast.ops.reflect_conv2d.table import STEM, served_by


def reflect_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    padding: int,
    stride: int = 1,
    act: str = "none",
) -> Tensor:
    """Convolution of an image padded by reflection, and tanh.

        y[n, o, i, j] = act(bias[o] + sum over c, r, s of
                            weight[o, c, r, s] x[n, c, m(i stride + r - padding, H),
                                                       m(j stride + s - padding, W)])
        m(k, n) = -k for k < 0, 2 (n - 1) - k for k >= n, k between

    Args:
        x: [N, C, H, W] float16, bfloat16, float32 or float64; contiguous or channels_last (any
            other layout is copied once). With padding 0 it may be an image that is padded
            already: nothing is copied, and it is what backward keeps.
        weight: [C_out, C, KH, KW], dtype of x; contiguous or channels_last. No groups, no dilation.
        bias: [C_out], dtype of x, or None for 0.
        padding: pixels mirrored on each side, 0 <= padding < min(H, W).
        stride: pixels from one window to the next, in both directions.
        act: "none" or "tanh".

    Returns:
        [N, C_out, OH, OW] with OH = (H + 2 padding - KH) // stride + 1, OW likewise; dtype of x;
        channels_last if x or weight is, else contiguous (the reference leaves layout to PyTorch).
        Products of 16-bit values are added in float32; those of float32 are TF32 on a GPU where
        torch.backends.cudnn allows it for convolutions.

        Under autocast x, weight and bias are cast as those of torch.nn.functional.conv2d, and
        gradients come in the dtypes they had before.

    Raises:
        TypeError: a dtype that is not floating-point, or dtypes that differ.
        ValueError: wrong rank, shapes that do not fit, unknown act, padding or stride out of range.
        BackendUnavailableError: a back end chosen by name cannot serve.
        DoubleBackwardError: a second derivative was asked of a fused back end.

    Gradients: first order in x, weight and bias; deterministic but for what a library does.

    Which implementation serves is written in a table: see
    :func:`cyclegan_fast.ops.reflect_conv2d.explain`. The zero padding of
    torch.nn.functional.conv2d is another operation, and not this one's.

    Source: the padded convolutions of Johnson, Alahi, Fei-Fei 2016, arXiv:1603.08155, as used by
    Zhu et al. 2017, arXiv:1703.10593, section 7.1.
    """
    _common.check_image(STEM, "x", x)
    if isinstance(weight, Tensor) and (bias is None or isinstance(bias, Tensor)):
        x, weight, bias = _as_autocast(x, weight, bias)
    _check(x, weight, bias, padding, stride, act)
    policy = served_by(x)
    if policy == "reference":
        if not torch.compiler.is_compiling():
            backend.count(STEM, policy)
        return reflect_conv2d_reference(x, weight, bias, padding=padding, stride=stride, act=act)
    layout = layout_of(x, weight)
    return forward(
        x.contiguous(memory_format=layout),
        _common.dense(weight),
        None if bias is None else bias.contiguous(),
        padding,
        stride,
        act,
        layout == torch.channels_last,
        policy,
    )


def gradients(
    grad_y: Tensor,
    y: Tensor | None,
    x: Tensor,
    weight: Tensor,
    *,
    padding: int,
    stride: int,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return those gradients of x, weight and bias that are asked for, without autograd.

    Args:
        grad_y: of the result, [N, C_out, OH, OW].
        y: the result where its act was "tanh", else None.
        x: as the call's; dense.
        weight: as the call's; dense.
        padding: as the call's.
        stride: as the call's.
        needs: which of the three.
    """
    policy = served_by(x)
    grad_y = grad_y.contiguous(memory_format=layout_of(x, weight))
    # What the reference is, autograd would differentiate; the library does the same.
    policy = "native" if policy == "reference" else policy
    found = backward(grad_y, y, x, weight, padding, stride, *needs, policy)
    of_x, of_weight, of_bias = (
        gradient if need else None for gradient, need in zip(found, needs, strict=True)
    )
    return of_x, of_weight, of_bias


def layout_of(x: Tensor, weight: Tensor) -> torch.memory_format:
    """Return the layout that a convolution's images have."""
    return memory_format(_is_channels_last(x) or _is_channels_last(weight))


def _is_channels_last(x: Tensor) -> bool:
    """Return the layout; with one channel both have the same elements, and the strides tell."""
    if _common.memory_format(x) == torch.channels_last:
        return True
    one_channel = x.shape[1] == 1 and x.stride(1) == 1
    return one_channel and x.is_contiguous() and x.shape[2] * x.shape[3] > 1


def _as_autocast(
    x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Cast what autocast would cast for F.conv2d: all but float64."""
    if not torch.is_autocast_enabled(x.device.type):
        return x, weight, bias
    dtype = torch.get_autocast_dtype(x.device.type)

    def cast(t: Tensor) -> Tensor:
        return t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t

    return cast(x), cast(weight), None if bias is None else cast(bias)


def _check(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, stride: int, act: str
) -> None:
    channels, height, width = x.shape[1:]
    if not isinstance(weight, Tensor):
        raise TypeError(
            f"{STEM}: weight must be a tensor [C_out, C, KH, KW], got {type(weight).__name__}"
        )
    _common.check_float(STEM, "weight", weight)
    if weight.dim() != 4 or weight.shape[1] != channels or 0 in weight.shape:
        raise ValueError(
            f"{STEM}: weight must have shape [C_out, C, KH, KW] with C = {channels} and nothing "
            f"empty, got {tuple(weight.shape)}; groups and dilation are not supported"
        )
    if bias is not None:
        if not isinstance(bias, Tensor):
            raise TypeError(f"{STEM}: bias must be a tensor [C_out], got {type(bias).__name__}")
        _common.check_float(STEM, "bias", bias)
        if bias.shape != weight.shape[:1]:
            raise ValueError(
                f"{STEM}: bias must have shape [C_out] = [{weight.shape[0]}], "
                f"got {tuple(bias.shape)}"
            )
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.dtype != x.dtype:
            raise TypeError(f"{STEM}: {name} must have x's dtype {x.dtype}, got {parameter.dtype}")
        if parameter is not None and parameter.device != x.device:
            raise ValueError(
                f"{STEM}: {name} must be on x's device {x.device}, got {parameter.device}"
            )
    _common.check_pad(STEM, padding, height, width, "padding")
    if not isinstance(stride, int) or isinstance(stride, bool):
        raise TypeError(f"{STEM}: stride must be an int, got {type(stride).__name__}")
    if stride < 1:
        raise ValueError(f"{STEM}: stride must be at least 1, got {stride}")
    if act not in ACTIVATIONS:
        raise ValueError(f"{STEM}: act must be one of {', '.join(ACTIVATIONS)}, got {act!r}")
    padded = (height + 2 * padding, width + 2 * padding)
    if padded[0] < weight.shape[2] or padded[1] < weight.shape[3]:
        raise ValueError(
            f"{STEM}: x must be at least as large as the kernel once it is padded, "
            f"{weight.shape[2]} x {weight.shape[3]}, got {padded[0]} x {padded[1]}"
        )
