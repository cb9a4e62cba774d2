# SPDX-License-Identifier: MIT
"""The calls that the implementations of reflect_conv2d in Triton take.

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
        norm: of which x is the input; or None: x is read as it is.
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
        of_norm: the norm behind, of which grad_y is dz; or None: grad_y is read as it is.
    """

    grad_y: Tensor
    y: Tensor | None
    weight: Tensor
    grad_x: Tensor
    norm: NormOfInput | None = None
    of_norm: NormGradient | None = None


class OfWeight(NamedTuple):
    """The gradients of a convolution's weight and bias, or of several alike.

    Of L layers all images lie behind each other: those of layer l are ``l N`` to ``(l + 1) N`` of
    L N; grad_weight is [L, C_out, C, KH, KW] then, and grad_bias [L, C_out].

    Attributes:
        grad_y: [N, C_out, OH, OW].
        y: the result where its act was a tanh, else None.
        x: [N, C, H, W].
        grad_weight: [C_out, C, KH, KW], in x's dtype or float32, written; or None.
        grad_bias: [C_out], likewise.
        workspace: float32, of as many elements as the implementation's workspace() says.
        norm: of which x is the input; or None: x is read as it is.
        of_norm: the norm behind, of which grad_y is dz; or None: grad_y is read as it is.
        groups: L.
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
    """A norm's mean and deviation.

    Attributes:
        moments: of the norm's input.
        height: of the plane.
        width: of the plane.
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
    """The two sums of a norm's backward.

    Attributes:
        partial: [N, chunks, 2, C] float32.
        sums: [N, 2, C] float32, written.
    """

    partial: Tensor
    sums: Tensor
