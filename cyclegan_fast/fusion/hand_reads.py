# SPDX-License-Identifier: MIT
"""What a convolution's backward reads, of one run, of several, and of several layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cyclegan_fast.fusion.hand_memory import beside, whole
from cyclegan_fast.fusion.steps import ConvStep
from cyclegan_fast.ops.reflect_conv2d.beside_norm import Normalised, NormGradient


class Loaded(NamedTuple):
    """A norm's result that nobody has written: the convolution that reads it makes it.

    Attributes:
        x: the norm's input.
        norm: what is done to it.
        pad: pixels mirrored on each side then.
    """

    x: Tensor
    norm: Normalised
    pad: int


class Masked(NamedTuple):
    """A gradient of a norm's input that nobody has written: the convolution before makes it.

    Attributes:
        dz: the gradient at the norm's own result.
        norm: what is done to it.
    """

    dz: Tensor
    norm: NormGradient

    def of(self, pictures: slice) -> Masked:
        """Return that of some pictures."""
        return Masked(self.dz[pictures], _some(self.norm, pictures))


class Kept(NamedTuple):
    """What a convolution leaves for its backward.

    Attributes:
        x: its input, or what the norm before it would have read.
        y: its result where its act is a tanh, else None.
        loaded: the norm that it does while it loads x, if it does.
        takes_norms: it does the norms beside it while it loads, wherever the plan lets it.
    """

    x: Tensor
    y: Tensor | None
    loaded: Loaded | None
    takes_norms: bool


class Read(NamedTuple):
    """What the gradient of a weight is taken of.

    Attributes:
        step: as the run has done it.
        x: the convolution's input, or its norm's.
        y: the result where its act is a tanh, else None.
        grad_y: gradient of the result, or dz of the norm behind.
        norm: the norm before, done while x is loaded; or None.
        of_norm: the norm behind, whose backward is done while grad_y is loaded; or None.
        pad: pixels that the norm before mirrors on each side while x is loaded.
    """

    step: ConvStep
    x: Tensor
    y: Tensor | None
    grad_y: Tensor
    norm: Normalised | None = None
    of_norm: NormGradient | None = None
    pad: int = 0


def of_run(step: ConvStep, kept: Kept, gradient: Tensor | Masked, pictures: slice) -> Read:
    """Return what is read of some pictures of a run."""
    y = None if kept.y is None else kept.y[pictures]
    of_norm = None
    if isinstance(gradient, Masked):
        gradient, of_norm = gradient.of(pictures)
    else:
        gradient = gradient[pictures]
    read = Read(step, kept.x[pictures], y, gradient, of_norm=of_norm)
    if kept.loaded is None:
        return read
    return read._replace(norm=_some(kept.loaded.norm, pictures), pad=kept.loaded.pad)


def of_runs(reads: Sequence[Read]) -> Read:
    """Return what runs of one layer have read as one."""
    ys = [read.y for read in reads if read.y is not None]
    return reads[0]._replace(
        x=whole([read.x for read in reads]),
        y=whole(ys) if ys else None,
        grad_y=whole([read.grad_y for read in reads]),
        norm=_joined([read.norm for read in reads if read.norm is not None]),
        of_norm=_joined([read.of_norm for read in reads if read.of_norm is not None]),
    )


def of_layers(reads: Sequence[Read]) -> Read | None:
    """Return what layers that are alike have read as one, if it lies so in memory."""
    norms = [read.norm for read in reads if read.norm is not None]
    of_norms = [read.of_norm for read in reads if read.of_norm is not None]
    alike = all(len(some) in (0, len(reads)) for some in (norms, of_norms))
    if not alike or any(read.y is not None for read in reads):
        return None
    images = [[read.x for read in reads], [read.grad_y for read in reads]]
    for some in (norms, of_norms):
        images += [[getattr(n, name) for n in some] for name in _of_images(some)]
    if any(beside(tensors) is None for tensors in images):
        return None
    norm, of_norm = _joined(norms), _joined(of_norms)
    if norms:
        weights, biases = _stacked([n.weight for n in norms]), _stacked([n.bias for n in norms])
        norm = norm._replace(weight=weights, bias=biases)
    if of_norms:
        of_norm = of_norm._replace(weight=_stacked([n.weight for n in of_norms]))
    x, grad_y = whole(images[0]), whole(images[1])
    return reads[0]._replace(x=x, grad_y=grad_y, norm=norm, of_norm=of_norm)


def _of_images(norms: Sequence[Any]) -> list[str]:
    """Fields of a norm that have a row for each picture."""
    fields = norms[0]._fields if norms else ()
    return [name for name in fields if name in ("x", "mean", "rstd", "sums")]


def _some(norm: Any, pictures: slice) -> Any:
    return norm._replace(**{name: getattr(norm, name)[pictures] for name in _of_images([norm])})


def _joined(norms: Sequence[Any]) -> Any:
    """Return the norms of several runs or layers as one; None of none."""
    if not norms:
        return None
    fields = {name: whole([getattr(n, name) for n in norms]) for name in _of_images(norms)}
    return norms[0]._replace(**fields)


def _stacked(given: Sequence[Tensor | None]) -> Tensor | None:
    there = [tensor for tensor in given if tensor is not None]
    return torch.stack(there) if there else None
