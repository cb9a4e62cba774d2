# SPDX-License-Identifier: MIT
"""What passes between a convolution and the instance norm beside it.

The convolution's kernel leaves what the norm would otherwise read the whole image for, and it may
apply the norm, or the norm's backward, to what it loads: then the norm has no kernel of its own.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

# Of an image, of a norm's own first stage too: each program of the second reads all of them.
MOST_CHUNKS = 64


class Moments(NamedTuple):
    """Moments of a convolution's result, by chunks of each image.

    Positions of an image are counted row by row at `pitch` to a row, of which the result's width
    are pixels; chunk k holds positions `k * each` to `(k + 1) * each`.

    Attributes:
        partial: [N, chunks, 3, C] float32: one of each chunk's pixels, the mean of them all less
            that one, and the sum of squared deviations from the mean; as they are in memory. Less
            a pixel, so that nothing is lost far from zero; of a chunk without pixels, zeros.
        each: positions in a chunk.
        pitch: positions in a row, at least the width.
    """

    partial: Tensor
    each: int
    pitch: int


class NormOfInput(NamedTuple):
    """The norm whose result a convolution has read: what its backward's two sums are taken of.

    The convolution's input is ``reflect_pad(act(instance_norm(x)) + residual, pad)``, and the
    gradient that it makes is of that, padded.

    Attributes:
        x: [N, C, H, W], channels_last, the norm's input.
        mean: [N, C] float32.
        rstd: [N, C] float32.
        weight: [C] float32, or None.
        bias: [C] float32, or None.
        act: 0 none, 1 relu, 2 leaky_relu.
        negative_slope: of leaky_relu.
        pad: pixels mirrored on each side.
        skip: [N, C, H, W] in any strides, the gradient of the unpadded sum that has come another
            way; or None.
        partial: [N, chunks, 2, C] float32, written: sums of dz and of dz xhat of the padded pixels
            of each tile, where dz is the gradient at the activation's input.
        masked: the convolution's gradient of its input is written as dz itself, rounded, and the
            sums are those of the rounded dz, so that what comes of both sums to nothing. pad is 0
            then: the gradient is on the norm's own plane.
    """

    x: Tensor
    mean: Tensor
    rstd: Tensor
    weight: Tensor | None
    bias: Tensor | None
    act: int
    negative_slope: float
    pad: int
    skip: Tensor | None
    partial: Tensor
    masked: bool = False


class Normalised(NamedTuple):
    """The norm before a convolution, applied to x while it is loaded.

    The value read is ``act((x - mean) * (rstd * weight) + bias)``, rounded to x's dtype. That is
    what is padded: by reflection, or by zeros, which are of the normalised image.

    Attributes:
        mean: [N, C] float32.
        rstd: [N, C] float32.
        weight: [C] float32, or [groups, C]; or None.
        bias: likewise.
        act: 0 none, 1 relu, 2 leaky_relu.
        negative_slope: of leaky_relu.
    """

    mean: Tensor
    rstd: Tensor
    weight: Tensor | None
    bias: Tensor | None
    act: int
    negative_slope: float


class NormGradient(NamedTuple):
    """The backward of the norm behind a convolution, applied to grad_y while it is loaded.

    grad_y is dz, the gradient at the activation's input. With P = OH * OW the value read is
    ``rstd * weight * (dz - sums[0] / P - xhat * sums[1] / P)``, rounded to grad_y's dtype.

    Attributes:
        x: [N, C_out, OH, OW], the norm's input, which is the convolution's result; dtype and
            layout of grad_y.
        mean: [N, C_out] float32.
        rstd: [N, C_out] float32.
        weight: [C_out] float32, or [groups, C_out]; or None.
        sums: [N, 2, C_out] float32: over the plane, of dz and of dz xhat.
    """

    x: Tensor
    mean: Tensor
    rstd: Tensor
    weight: Tensor | None
    sums: Tensor
