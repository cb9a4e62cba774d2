# SPDX-License-Identifier: MIT
"""The calls that the implementations of reflect_conv2d with kernels of ours take.

They take one call or two: those of two networks side by side, on operands of the same sizes,
dtypes and layouts, which are one launch then.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from cyclegan_fast.ops.reflect_conv2d.beside_norm import (
    Moments,
    Normalised,
    NormGradient,
    NormOfInput,
)


class Forward(NamedTuple):
    """A convolution.

    Attributes:
        x: [N, C, H, W].
        weight: [C_out, C, KH, KW].
        bias: [C_out] or None.
        y: [N, C_out, OH, OW], written.
        moments: [N, chunks, 3, C_out] float32, written, see beside_norm.Moments; or None.
        norm: what is applied to x while it is loaded; or None.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    y: Tensor
    moments: Tensor | None = None
    norm: Normalised | None = None


class OfInput(NamedTuple):
    """The gradient of a convolution's input.

    Attributes:
        grad_y: [N, C_out, OH, OW].
        y: the result where its act was a tanh, else None.
        weight: [C_out, C, KH, KW].
        grad_x: [N, C, H, W], written.
        norm: the norm that has made x, whose sums are wanted; or None.
        of_norm: what is applied to grad_y while it is loaded; or None. Never beside y.
    """

    grad_y: Tensor
    y: Tensor | None
    weight: Tensor
    grad_x: Tensor
    norm: NormOfInput | None = None
    of_norm: NormGradient | None = None


class OfWeight(NamedTuple):
    """The gradients of a convolution's weight and bias, or of several layers' of the same sizes.

    Attributes:
        grad_y: [N, C_out, OH, OW].
        y: the result where its act was a tanh, else None.
        x: [N, C, H, W].
        grad_weight: [C_out, C, KH, KW], in x's dtype or float32, written; or None.
        grad_bias: [C_out], likewise.
        workspace: float32.
        norm: what is applied to x while it is loaded; or None.
        of_norm: what is applied to grad_y while it is loaded; or None. Never beside y.
        groups: layers. If more than one, an equal part of N is each one's, in their order;
            grad_weight is [groups, C_out, C, KH, KW] and grad_bias [groups, C_out], one layer's
            gradient, dense, behind the other's.
    """

    grad_y: Tensor
    y: Tensor | None
    x: Tensor
    grad_weight: Tensor | None
    grad_bias: Tensor | None
    workspace: Tensor
    norm: Normalised | None = None
    of_norm: NormGradient | None = None
    groups: int = 1


class Statistics(NamedTuple):
    """Mean and rstd of a convolution's result.

    Attributes:
        moments: by chunks of each image, see beside_norm.Moments.
        height: of the result.
        width: of the result.
        eps: added to the variance.
        mean: [N, C] float32, written.
        rstd: [N, C] float32, written.
    """

    moments: Moments
    height: int
    width: int
    eps: float
    mean: Tensor
    rstd: Tensor


class Sums(NamedTuple):
    """Both sums over each plane, see beside_norm.NormOfInput.

    Attributes:
        partial: [N, chunks, 2, C] float32.
        sums: [N, 2, C] float32, written.
    """

    partial: Tensor
    sums: Tensor
