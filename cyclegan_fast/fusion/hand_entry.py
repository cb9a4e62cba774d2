# SPDX-License-Identifier: MIT
"""The pictures of a run by hand: how they are put in, and their gradient taken out."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from cyclegan_fast.fusion.hand_norm import Place
from cyclegan_fast.fusion.hand_runs import Run
from cyclegan_fast.fusion.hand_serving import by_library
from cyclegan_fast.fusion.hand_steps import Tools
from cyclegan_fast.fusion.neighbours import Neighbours
from cyclegan_fast.fusion.steps import Plan
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.reflect_conv2d.library import copy_padded, folded


def enter(
    tools: Tools,
    plan: Plan,
    neighbours: Neighbours,
    run: Run,
    place: Place,
    padded: dict[torch.Size, int],
) -> Tensor:
    """Return a run's pictures as one tensor, in the network's layout and dtype.

    Where the first convolution is the device's library's, which wants a padded picture, they are
    padded while they are copied; the run's step is one without padding then.

    Args:
        tools: as every step's.
        plan: the network's.
        neighbours: in the plan.
        run: whose parts are put in.
        place: where.
        padded: pixels around pictures, by their size: asked once, so that all runs of a step have
            the same, whose pictures may be more or fewer.
    """
    x = run.parts[0].x
    channels_last = plan.memory_format == "channels_last" or (
        x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    dtype = tools.half or x.dtype
    c, h, w = x.shape[1:]
    if neighbours.entry is not None:
        step = neighbours.convolution(neighbours.entry)
        if x.shape[1:] not in padded:
            size = (sum(run.sizes), c, h, w)
            like = torch.empty(size, dtype=dtype, device=x.device, memory_format=layout)
            padded[x.shape[1:]] = step.pad if by_library(tools, step, like) else 0
            del like
        if padded[x.shape[1:]]:
            run.steps[neighbours.entry] = replace(step, pad=0)
    pad = padded.get(x.shape[1:], 0)
    whole = place((c, h + 2 * pad, w + 2 * pad), dtype, x.device, layout)
    for part, own in zip(run.parts, whole.split(run.sizes), strict=True):
        if pad:
            copy_padded(part.x, pad, own)
        else:
            own.copy_(part.x)
    return whole


def of_pictures(run: Run, gradient: Tensor) -> Tensor:
    """Return the gradient of a run's pictures from that of what :func:`enter` has put in."""
    size = (len(gradient), *run.parts[0].x.shape[1:])
    if gradient.shape == size:
        return gradient
    layout = _common.memory_format(gradient)
    like = torch.empty(size, dtype=gradient.dtype, device=gradient.device, memory_format=layout)
    return folded(gradient, like, (gradient.shape[2] - size[2]) // 2)
