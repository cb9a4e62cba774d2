# SPDX-License-Identifier: MIT
"""reflect_conv2d by the device's own library: our padding kernel, then cuDNN or oneDNN.

The padded copy is written in x's layout by whichever back end of reflect_pad2d can serve, compiled
first; with padding 0 there is none. It is not kept for backward, which pads again where it needs
the copy (for the weight's gradient alone): a read and a write of an image, against an image more
in memory from forward to backward.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.reflect_conv2d import convolution, thin, winograd
from cyclegan_fast.ops.reflect_pad2d import reflect_pad2d_reference

aten = torch.ops.aten
_PAD = "reflect_pad2d"
_SHORT_ROW = 5  # results


def convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, stride: int, tanh: bool
) -> Tensor:
    """Return the convolution of the padded x, in the library's layout."""
    if _misread(x, weight, padding, stride):
        wide_bias = None if bias is None else bias.float()
        y = convolved(x.float(), weight.float(), wide_bias, padding, stride, tanh)
        return y.to(x.dtype)
    padded = _padded(x, padding)
    if thin.few_results(padded, weight, stride):
        y = thin.convolved(padded, weight, bias)
    else:
        y = convolution.convolution(padded, weight, bias, stride)
    return torch.tanh_(y) if tanh else y


def gradients(
    grad_y: Tensor,
    y: Tensor | None,
    x: Tensor,
    weight: Tensor,
    padding: int,
    stride: int,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of x, weight and bias that are asked for, in the library's layouts.

    y is forward's result where that was a tanh's, else None.
    """
    if _misread(x, weight, padding, stride):
        wide_y = None if y is None else y.float()
        of_x, of_weight, of_bias = (
            None if gradient is None else gradient.to(x.dtype)
            for gradient in gradients(
                grad_y.float(), wide_y, x.float(), weight.float(), padding, stride, needs
            )
        )
        return of_x, of_weight, of_bias
    if y is not None:
        grad_y = aten.tanh_backward(grad_y, y)
    # The gradient of x reads no image, only its shape and layout.
    padded = _padded(x, padding) if needs[1] else _empty_padded(x, padding)
    of_padded, of_weight, of_bias = _of_padded(grad_y, padded, weight, stride, needs)
    of_x = None if of_padded is None else folded(of_padded, x, padding)
    return of_x, of_weight, of_bias


def _of_padded(
    grad_y: Tensor, padded: Tensor, weight: Tensor, stride: int, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    if thin.few_results(padded, weight, stride):
        return thin.gradients(grad_y, padded, weight, needs)
    of_x = of_weight = None
    if needs[0] and thin.few_channels(padded, weight, stride):
        of_x = thin.gradient_of_few_channels(grad_y, padded, weight)
    if needs[1:] == (True, False) and winograd.serves(padded, weight, stride):
        of_weight = winograd.weight_gradient(grad_y, padded)
    left = (needs[0] and of_x is None, needs[1] and of_weight is None, needs[2])
    made = convolution.gradients(grad_y, padded, weight, left, stride)
    return made[0] if left[0] else of_x, made[1] if left[1] else of_weight, made[2]


def _misread(x: Tensor, weight: Tensor, padding: int, stride: int) -> bool:
    """Whether oneDNN might read past its own buffer, which in 32 bits it does not.

    With the matrix instructions of a CPU (AMX) its strided convolutions of 16-bit numbers return
    what lay in memory, up to 3.12 at least (uxlfoundation/oneDNN pull request 5494, and
    pytorch/pytorch issue 169688): where the stride reaches the kernel's side, and in the shortest
    rows. Neither is a layer of a CycleGAN at the size of a picture, and the answer is right.
    """
    if x.device.type != "cpu" or x.dtype.itemsize != 2 or stride == 1:
        return False
    height, width = weight.shape[2:]
    row = (x.shape[3] + 2 * padding - width) // stride + 1
    return stride >= min(height, width) or row < _SHORT_ROW


def copy_padded(x: Tensor, padding: int, y: Tensor) -> None:
    """Write x, padded by reflection and in y's dtype, into y.

    Args:
        x: [N, C, H, W] in any strides.
        padding: pixels on each side.
        y: [N, C, H + 2 padding, W + 2 padding], contiguous or channels_last, written.

    Raises:
        ValueError: the image is too small to be mirrored so far.
    """
    _common.check_pad("reflect_conv2d", padding, x.shape[2], x.shape[3])
    name = _pad_backend(x)
    if name == "reference" or (x.dtype == torch.float64) != (y.dtype == torch.float64):
        y.copy_(reflect_pad2d_reference(x, padding))
    elif x.numel():
        _common.kernels(_PAD, name).reflect_pad2d_copy(x, padding, y)


def _padded(x: Tensor, padding: int) -> Tensor:
    if padding == 0:
        return x
    name = _pad_backend(x)
    if name == "reference":
        with torch.autocast(x.device.type, enabled=False):  # on a CPU it would pad in float32
            return reflect_pad2d_reference(x, padding)
    padded = _empty_padded(x, padding)
    _common.kernels(_PAD, name).reflect_pad2d_fwd(x, padding, padded)
    return padded


def folded(grad_padded: Tensor, x: Tensor, padding: int) -> Tensor:
    """Return the adjoint of padding x: each pixel takes the gradients of all its mirror images."""
    if padding == 0:
        return grad_padded
    grad_padded = grad_padded.contiguous(memory_format=_common.memory_format(x))
    name = _pad_backend(x)
    if name == "reference":
        return aten.reflection_pad2d_backward(grad_padded, x, [padding] * 4)
    grad_x = torch.empty_like(x)
    _common.kernels(_PAD, name).reflect_pad2d_bwd(grad_padded, padding, grad_x)
    return grad_x


def _pad_backend(x: Tensor) -> str:
    for name in _common.PREFERENCE[x.device.type]:
        if backend.why_not(_PAD, name, x.device.type, x.dtype) is None:
            return name
    return "reference"


def _empty_padded(x: Tensor, padding: int) -> Tensor:
    n, c, h, w = x.shape
    return torch.empty(
        (n, c, h + 2 * padding, w + 2 * padding),
        dtype=x.dtype,
        device=x.device,
        memory_format=_common.memory_format(x),
    )
