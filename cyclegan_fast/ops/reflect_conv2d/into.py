# SPDX-License-Identifier: MIT
"""Convolutions into memory that is there, by kernels of ours: their calls, see ops/_into.py.

They are those of reflect_conv2d, and those with zeros around the image and the transposed ones,
which Triton's kernels serve where the table says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.reflect_conv2d.beside_norm import (
    Moments,
    Normalised,
    NormGradient,
    NormOfInput,
)
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight
from cyclegan_fast.ops.reflect_conv2d.layers import Layer
from cyclegan_fast.ops.reflect_conv2d.table import BACKEND_OF, STEM, implementation

Operands = Forward | OfInput | OfWeight


@dataclass(frozen=True)
class Call:
    """One direction of a layer, with all of its memory.

    Attributes:
        direction: one of layers.DIRECTIONS.
        name: one of table.LAUNCHED.
        layer: what is computed.
        operands: what is read and written.
        tanh: of the result.
    """

    direction: str
    name: str
    layer: Layer
    operands: Operands
    tanh: bool = False

    def alike(self, other: Any) -> bool:
        """Whether both can be one launch."""
        return (
            isinstance(other, Call)
            and (self.direction, self.name, self.tanh) == (other.direction, other.name, other.tanh)
            and self.layer.key(self.direction) == other.layer.key(self.direction)
            and alike(self.operands, other.operands)
        )

    def do(self, *beside: Call) -> None:
        """Do the call, and the one beside it in the same launches."""
        launch([self, *beside])
        stem = STEM if self.direction == "forward" else f"{STEM}_backward"
        for _ in (self, *beside):
            backend.count(stem, BACKEND_OF[self.name])


def launch(calls: Sequence[Call]) -> None:
    """Launch one call, or two that are alike."""
    call = calls[0]
    layer = call.layer
    how: dict[str, Any] = {"padding": layer.padding, "stride": layer.stride}
    if call.direction == "forward":
        how["tanh"] = call.tanh
    if layer.kind == "zeros":
        how["zeros"] = True
    kernels = implementation(call.name, layer.kind)
    getattr(kernels, call.direction)([each.operands for each in calls], **how)


def forward_call(
    name: str,
    layer: Layer,
    bias: Tensor | None,
    y: Tensor,
    *,
    tanh: bool,
    with_moments: bool,
    norm: Normalised | None = None,
) -> tuple[Call, Moments | None]:
    """Return the call that writes a layer's result.

    Args:
        name: of the implementation.
        layer: what is computed.
        bias: [C_out] or None.
        y: [N, C_out, OH, OW], written.
        tanh: of the result.
        with_moments: leave y's, for the norm that reads it; y is channels_last then.
        norm: of which layer.x is the input; or None: it is read as it is.
    """
    moments = None
    if with_moments:
        chunks, each, pitch = _kernels(name, layer).moments_cover(*_sizes(layer), **_zeros(layer))
        partial = _partial(y, chunks, 3)
        moments = Moments(partial, each, pitch)
    operands = Forward(layer.x, layer.weight, bias, y, moments and moments.partial, norm)
    return Call("forward", name, layer, operands, tanh), moments


def input_call(
    name: str,
    layer: Layer,
    grad_y: Tensor,
    y: Tensor | None,
    grad_x: Tensor,
    norm: NormOfInput | None,
    of_norm: NormGradient | None = None,
) -> Call:
    """Return the call that writes the gradient of a layer's input.

    Args:
        name: of the implementation.
        layer: what is computed.
        grad_y: of the result.
        y: the result where its act is a tanh, else None.
        grad_x: like layer.x, written.
        norm: the norm that has made layer.x, with memory from :func:`sums_of`; or None.
        of_norm: the norm behind, of which grad_y is dz; or None: it is read as it is.
    """
    operands = OfInput(grad_y, y, layer.weight, grad_x, norm, of_norm)
    return Call("gradient_of_input", name, layer, operands)


def sums_of(name: str, layer: Layer) -> Tensor:
    """Return memory for the sums that the gradient of a layer's input leaves by chunks."""
    chunks = _kernels(name, layer).sums_chunks(*_sizes(layer), **_zeros(layer))
    return _partial(layer.x, chunks, 2)


def weight_call(
    name: str,
    layer: Layer,
    grad_y: Tensor,
    y: Tensor | None,
    *,
    weight: bool,
    bias: bool,
    norm: Normalised | None = None,
    of_norm: NormGradient | None = None,
    groups: int = 1,
) -> tuple[Call, Tensor | None, Tensor | None]:
    """Return the call that writes the gradients of a layer's weight and bias, and those.

    They are float32, as they were added up, and of several layers [groups, ...]. The sizes of a
    layer's gradients are its weight's.

    Args:
        name: of the implementation.
        layer: what is computed; of several, x has the images of all, and weight is one of theirs.
        grad_y: of the result.
        y: the result where its act is a tanh, else None.
        weight: its gradient is wanted.
        bias: its gradient is wanted.
        norm: of which layer.x is the input; or None: it is read as it is.
        of_norm: the norm behind, of which grad_y is dz; or None: it is read as it is.
        groups: layers whose images lie behind each other.
    """
    like = layer.weight
    channels = like.shape[layer.kind == "transposed"]
    of_weight = of_bias = None
    if weight:
        # Each layer's is dense, behind the one before.
        shape = (groups * like.shape[0], *like.shape[1:])
        layout = _common.memory_format(like)
        of_weight = torch.empty(
            shape, dtype=torch.float32, device=like.device, memory_format=layout
        )
    if bias:
        of_bias = like.new_empty((groups * channels,), dtype=torch.float32)
    size = _kernels(name, layer).workspace(grad_y.shape, like.shape, groups)
    workspace = like.new_empty((size,), dtype=torch.float32)
    if groups > 1:
        of_weight = None if of_weight is None else of_weight.view(groups, *like.shape)
        of_bias = None if of_bias is None else of_bias.view(groups, channels)
    operands = OfWeight(
        grad_y, y, layer.x, of_weight, of_bias, workspace, norm, of_norm, groups=groups
    )
    return Call("gradient_of_weight", name, layer, operands), of_weight, of_bias


def _kernels(name: str, layer: Layer) -> Any:
    return implementation(name, layer.kind)


def _sizes(layer: Layer) -> tuple[Any, ...]:
    return layer.x.shape, layer.weight.shape, layer.padding, layer.stride


def _zeros(layer: Layer) -> dict[str, bool]:
    return {"zeros": True} if layer.kind == "zeros" else {}


def _partial(like: Tensor, chunks: int, rows: int) -> Tensor:
    n, channels = like.shape[:2]
    return like.new_empty((n, chunks, rows, channels), dtype=torch.float32)


def alike(a: Any, b: Any) -> bool:
    """Whether operands have the same sizes, dtypes and layouts, and leave out the same."""
    for ours, theirs in zip(a, b, strict=True):
        if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
            mine, other = ((t.shape, t.stride(), t.dtype, t.device) for t in (ours, theirs))
            if mine != other:
                return False
        elif isinstance(ours, tuple) and isinstance(theirs, tuple):
            if type(ours) is not type(theirs) or not alike(ours, theirs):
                return False
        elif isinstance(ours, Tensor) or isinstance(theirs, Tensor) or ours != theirs:
            return False
    return True
