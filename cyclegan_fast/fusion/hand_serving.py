# SPDX-License-Identifier: MIT
"""By which implementation a walk by hand has a convolution computed, as the table says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cyclegan_fast import backend
from cyclegan_fast.fusion.hand_reads import Loaded, Read
from cyclegan_fast.fusion.hand_steps import Tools
from cyclegan_fast.fusion.steps import ConvStep
from cyclegan_fast.fusion.walk import Modules
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.instance_norm_act.autograd import STEM as NORM
from cyclegan_fast.ops.reflect_conv2d.layers import Layer
from cyclegan_fast.ops.reflect_conv2d.table import choose, may_choose, takes_norms

# The implementation that does norms while it loads in all directions.
LOADING = "implicit"


def wanted(tools: Tools, step: ConvStep) -> tuple[bool, bool]:
    """Whether anybody asks for the gradients of a convolution's weight, and of its bias."""
    module: Any = tools.modules[step.module]
    bias = module.bias if step.use_bias else None
    return module.weight.requires_grad, bias is not None and bias.requires_grad


def serving_weight(tools: Tools, read: Read, *, weight: bool = True) -> tuple[str, Layer | None]:
    """Return the implementation of a weight's gradient, and what it computes if not the library.

    Args:
        tools: as every step's.
        read: what the gradient is taken of.
        weight: read it, which may round the whole of it, and not only its sizes.
    """
    if read.norm is not None or read.of_norm is not None:
        return LOADING, layer_of(tools, read.step, read.x, read.pad, read=weight)
    return serving(tools, read.step, read.x, "gradient_of_weight", None, read=weight)


def loads_norms(tools: Tools, step: ConvStep, x: Tensor, pad: int) -> bool:
    """Whether a convolution does the norms beside it while it loads.

    Args:
        tools: as every step's.
        step: of the plan.
        x: like the input of the norm before it, or of the convolution where there is none.
        pad: pixels that this norm mirrors on each side.
    """
    layer = layer_of(tools, step, x, pad, read=False)
    return layer is not None and takes_norms(layer) is not None


def loading(layer: Layer | None) -> str:
    """Return the implementation of a layer that does the norms beside it, but its weight's."""
    return (None if layer is None else takes_norms(layer)) or LOADING


def by_library(tools: Tools, step: ConvStep, x: Tensor) -> bool:
    """Whether the device's library makes a convolution of x, and the gradient of its weight."""
    return all(
        serving(tools, step, x, direction, None, read=False)[1] is None
        for direction in ("forward", "gradient_of_weight")
    )


def may_launch(modules: Modules) -> bool:
    """Whether kernels of Triton's may make the convolutions of a network where it is."""
    found = (p for module in modules.values() for p in module.parameters(recurse=False))
    parameter = next(found, None)
    return parameter is not None and may_choose(parameter.device, parameter.dtype)


def finishes(x: Tensor) -> bool:
    """Whether the norm of x can begin with what a convolution has left: in channels_last alone."""
    if _common.memory_format(x) != torch.channels_last:
        return False
    return x.device.type == "cuda" or backend.resolve(NORM, x.device.type, x.dtype) == "triton"


def serving(
    tools: Tools,
    step: ConvStep,
    x: Tensor,
    direction: str,
    loaded: Loaded | None,
    *,
    read: bool = True,
) -> tuple[str, Layer | None]:
    """Return the implementation that serves, and what it computes if not the library.

    Args:
        tools: as every step's.
        step: of the plan.
        x: its image, or its norm's.
        direction: one of layers.DIRECTIONS.
        loaded: the norm that is done while x is loaded, if one is; forward alone.
        read: the weight, and not only its sizes.
    """
    if loaded is not None:
        layer = layer_of(tools, step, x, loaded.pad, read=read)
        return loading(layer), layer
    layer = layer_of(tools, step, x, 0, read=False)
    name = "library" if layer is None else choose(direction, backend.policy(), layer)
    if layer is None or name == "library":
        return "library", None
    # Read here and not for the table, which looks at sizes: reading may round the whole weight.
    return name, layer_of(tools, step, x, 0) if read else layer


def layer_of(
    tools: Tools, step: ConvStep, x: Tensor, pad: int, *, read: bool = True
) -> Layer | None:
    """Return what a step computes, or None if it is PyTorch's alone.

    Args:
        tools: as every step's.
        step: of the plan.
        x: its image.
        pad: pixels that are mirrored on each side for the norm that has made the image.
        read: the weight, and not only its sizes.
    """
    module: Any = tools.modules[step.module]
    weight = _common.dense(tools.read(module.weight)) if read else module.weight
    if step.served:
        if pad and step.pad:
            return None
        return Layer(x, weight, pad or step.pad, module.stride[0])
    even = all(len(set(pair)) == 1 for pair in (module.stride, module.padding))
    if pad or not even or set(module.dilation) != {1} or module.groups != 1:
        return None
    if module.transposed and not _within_strides(module):
        return None
    kind = "transposed" if module.transposed else "zeros"
    return Layer(x, weight, module.padding[0], module.stride[0], kind)


def _within_strides(module: nn.ConvTranspose2d) -> bool:
    """Whether the result is no larger than the stride times the input."""
    stride, padding = int(module.stride[0]), int(module.padding[0])
    return all(
        more <= stride + 2 * padding - kernel
        for more, kernel in zip(module.output_padding, module.kernel_size, strict=True)
    )


def inside(x: Tensor, pad: int) -> Tensor:
    """Return an image without so many pixels on each side."""
    return x[:, :, pad : x.shape[2] - pad, pad : x.shape[3] - pad] if pad else x
