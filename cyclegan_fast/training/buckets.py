# SPDX-License-Identifier: MIT
"""Gradients of all ranks averaged in a few flat buffers, where a captured step finds them again.

One all-reduce per gradient would cost a launch and the network's latency each, some hundred times
a step. While one bucket travels, the next one is filled.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cyclegan_fast.training.ranks import Ranks

# Bytes of a bucket; a larger gradient has one to itself. What PyTorch's DDP takes: large enough for
# the network's bandwidth, small enough to overlap.
LIMIT = 25 * 2**20


class Bucket(NamedTuple):
    """Gradients side by side in one buffer."""

    flat: Tensor
    views: list[Tensor]  # of flat, each as its parameter lies in memory
    parameters: list[nn.Parameter]


class Buckets:
    """Averages the gradients of some parameters over the ranks.

    Buffers are made at the first call and stay: a captured step has their addresses.

    Args:
        ranks: of the run.
        parameters: the same on every rank, in order.
    """

    def __init__(self, ranks: Ranks, parameters: list[nn.Parameter]) -> None:
        self._ranks = ranks
        self._parameters = parameters
        self._made: dict[tuple[int, ...], list[Bucket]] = {}

    def average(self) -> None:
        """Replace every gradient by its mean over the ranks, weighted with their shares."""
        moved = tuple(i for i, p in enumerate(self._parameters) if p.grad is not None)
        if moved not in self._made:
            self._made[moved] = self._make([self._parameters[i] for i in moved])
        buckets = self._made[moved]
        waits = []
        for bucket in buckets:
            gradients = [p.grad for p in bucket.parameters if p.grad is not None]
            torch._foreach_copy_(bucket.views, gradients)
            waits.append(self._ranks.begin_mean(bucket.flat))
        for wait in waits:
            wait()
        for bucket in buckets:
            for parameter, view in zip(bucket.parameters, bucket.views, strict=True):
                parameter.grad = view

    def _make(self, parameters: list[nn.Parameter]) -> list[Bucket]:
        groups: list[list[nn.Parameter]] = []
        for dtype in dict.fromkeys(p.dtype for p in parameters):
            room = 0
            for parameter in (p for p in parameters if p.dtype == dtype):
                if parameter.nbytes > room:
                    groups.append([])
                    room = LIMIT
                groups[-1].append(parameter)
                room -= parameter.nbytes
        return [_bucket(group) for group in groups]


def _bucket(parameters: list[nn.Parameter]) -> Bucket:
    sizes = [p.numel() for p in parameters]
    flat = parameters[0].new_empty(sum(sizes))
    views, offset = [], 0
    for parameter, size in zip(parameters, sizes, strict=True):
        # The strides of the parameter, without gaps: then a gradient is copied as one piece.
        strides = torch.empty_like(parameter, device="meta").stride()
        views.append(flat.as_strided(parameter.shape, strides, offset))
        offset += size
    return Bucket(flat, views, parameters)
