# SPDX-License-Identifier: MIT
"""The two directions of a step side by side: one stream each on a GPU, one after the other else.

At batch 1 a convolution of the generator fills half of a large GPU. The two generators do not need
each other for most of a step, so each has a stream, and the captured graph has two branches.
Autograd runs each backward on the stream of its forward, so the backward branches too.

A network never changes its stream: autocast's 16-bit copies of its weights are made, used and freed
on one. Pictures do change it, and are named to the allocator where they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


class Branches:
    """Where the second direction runs.

    Args:
        device: of the step; without a GPU there is one stream.
        networks: of the step; with dropout or batch norm the order of the passes is part of the
            result, and there is one stream too.
    """

    def __init__(self, device: torch.device, networks: Iterable[nn.Module]) -> None:
        ordered = (_BatchNorm, _DropoutNd)
        stateful = any(isinstance(m, ordered) for net in networks for m in net.modules())
        parallel = device.type == "cuda" and not stateful
        self._side = torch.cuda.Stream(device) if parallel else None

    @property
    def parallel(self) -> bool:
        """Whether there are two streams."""
        return self._side is not None

    @contextmanager
    def second(self, *tensors: Tensor) -> Iterator[None]:
        """Run the block beside what follows it, up to `join`; it sees all that came before.

        Args:
            tensors: made in the main branch and used in the block; the allocator must not hand
                their memory out while the second branch may still read it.
        """
        if self._side is None:
            yield
            return
        self._side.wait_stream(torch.cuda.current_stream())
        for tensor in tensors:
            tensor.record_stream(self._side)
        with torch.cuda.stream(self._side):
            yield

    def join(self, *tensors: Tensor) -> None:
        """Let what follows see both branches.

        Args:
            tensors: made in the second branch and used after this, likewise.
        """
        if self._side is None:
            return
        main = torch.cuda.current_stream()
        main.wait_stream(self._side)
        for tensor in tensors:
            tensor.record_stream(main)
