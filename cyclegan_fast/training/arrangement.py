# SPDX-License-Identifier: MIT
"""How the passes of a step are arranged; what each makes is the same in every arrangement.

Together: a network takes two pictures of one size as a batch, the one to be translated with the one
to be left alone, the real one with the generated one. Instance norm treats every picture by itself,
so this is exact. There are fewer and larger launches, and one weight gradient for two.

Joined: networks whose plans can be walked by hand take the weight gradients of all their passes at
once, and what follows of that: see walked.py.

Side by side: at batch 1 a convolution of the generator fills half of a large GPU. The generators do
not need each other for most of a step, so each has a stream, and the captured graph has two
branches. Autograd runs each backward on the stream of its forward, so the backward branches too. A
network never changes its stream: autocast's 16-bit copies of its weights are made, used and freed
on one. Pictures do change it, and are named to the allocator where they do.

Dropout, batch norm and whatever else keeps a buffer see in which order and with which others
pictures come: with them the passes go one by one in upstream's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from cyclegan_fast.training.config import TrainConfig

# Where the largest outputs of a layer leave the cache of a large GPU, more pictures at once gain
# nothing. At 256 x 256 in bf16 the paper's generator makes 8 MB per picture.
CACHED_BYTES = 25e6


class Arrangement:
    """Which passes of a step run together, and where.

    Args:
        device: of the step.
        ordered: the order of the passes is part of the result, see `is_ordered`.
        merge: let pictures of one size go through a network together; not where ordered.
        by_hand: walk networks by hand, and so join weight gradients; not where ordered.
        pair: let walks side by side give their norms to the device together, see beside.py.
        branches: let a GPU do side by side what does not need each other; on a GPU alone, and not
            where ordered.
        checkpoint: run residual blocks forward again in backward, see `HandWalk`.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        ordered: bool,
        merge: bool,
        by_hand: bool,
        pair: bool,
        branches: bool = False,
        checkpoint: bool = False,
    ) -> None:
        self.ordered = ordered
        self.merge = merge
        self.by_hand = by_hand
        self.pair = pair
        self.checkpoint = checkpoint
        self._side = torch.cuda.Stream(device) if branches else None
        self._last = torch.cuda.Stream(device) if branches else None

    def both(
        self, net: Callable[[Tensor], Tensor], first: Tensor, second: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return net(first) and net(second)."""
        if not self.merge or first.shape != second.shape:
            return net(first), net(second)
        made = net(torch.cat([first, second]))
        return made.split(len(first))  # its backward is one copy, that of two slices four

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

    @contextmanager
    def meanwhile(self) -> Iterator[None]:
        """Run the block beside all that follows it, up to `finish`; it sees all that came before.

        What it reads must not be written, nor what it writes be used or freed, before `finish`.
        """
        if self._last is None:
            yield
            return
        self._last.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._last):
            yield

    def finish(self) -> None:
        """Let what follows see what was done meanwhile."""
        if self._last is not None:
            torch.cuda.current_stream().wait_stream(self._last)

    def join(self, *tensors: Tensor | None) -> None:
        """Let what follows see both branches.

        Args:
            tensors: made in the second branch and used after this, likewise.
        """
        if self._side is None:
            return
        main = torch.cuda.current_stream()
        main.wait_stream(self._side)
        for tensor in tensors:
            if tensor is not None:
                tensor.record_stream(main)


def resolve_merge(
    config: TrainConfig, device: torch.device, itemsize: int, *, ordered: bool
) -> bool:
    """Whether pictures are to go through a network together.

    Args:
        config: merge; for auto, batch_size, ngf and crop_size too.
        device: of the step.
        itemsize: bytes per activation.
        ordered: see `is_ordered`.

    Raises:
        ValueError: merge is "on", and the networks forbid it.
    """
    if config.merge == "on" and ordered:
        raise ValueError(
            "config: merge is on, but dropout, batch norm and buffers see which pictures come "
            "together. Use --merge auto."
        )
    if config.merge != "auto":
        return config.merge == "on"
    largest = 2 * config.batch_size * config.ngf * config.crop_size**2 * itemsize
    return not ordered and (device.type == "cpu" or largest <= CACHED_BYTES)


def resolve_join(config: TrainConfig, *, merge: bool, ordered: bool) -> bool:
    """Whether weight gradients are taken once in a step.

    Args:
        config: join.
        merge: as resolved.
        ordered: see `is_ordered`.

    Raises:
        ValueError: join is "on", and the networks forbid it.
    """
    _check_order("join", config.join, ordered=ordered)
    return config.join == "on" or (config.join == "auto" and merge)


def resolve_pair(config: TrainConfig, device: torch.device, *, join: bool) -> bool:
    """Whether the norms of the two generators, and of the two discriminators, go in pairs.

    Args:
        config: pair.
        device: of the step. On a CPU nothing is gained by it.
        join: as resolved.

    Raises:
        ValueError: pair is "on", and join is off.
    """
    if config.pair == "on" and not join:
        raise ValueError(
            "config: pair is on, but norms go in pairs only where weight gradients are joined. Use "
            "--join on, or --pair auto."
        )
    return config.pair == "on" or (config.pair == "auto" and join and device.type == "cuda")


def resolve_branches(config: TrainConfig, device: torch.device, *, ordered: bool) -> bool:
    """Whether a GPU does side by side what does not need each other.

    Args:
        config: branches.
        device: of the step.
        ordered: see `is_ordered`.

    Raises:
        ValueError: branches is "on", and the device or the networks forbid it.
    """
    if config.branches == "on" and device.type != "cuda":
        raise ValueError(
            "config: branches is on, but a CPU does one thing after another. Use --branches auto."
        )
    _check_order("branches", config.branches, ordered=ordered)
    return config.branches != "off" and device.type == "cuda" and not ordered


def _check_order(option: str, value: str, *, ordered: bool) -> None:
    if value == "on" and ordered:
        raise ValueError(
            f"config: {option} is on, but dropout, batch norm and buffers see the order of the "
            f"passes. Use --{option} auto."
        )


def resolve_checkpoint(config: TrainConfig, *, ordered: bool) -> bool:
    """Whether residual blocks are run forward again in backward.

    It is never chosen by itself: weight gradients are summed in another order with it, and what a
    run computes is not to depend on how much memory others have left.

    Args:
        config: checkpoint.
        ordered: see `is_ordered`.

    Raises:
        ValueError: checkpoint is "blocks", and the networks forbid it.
    """
    if config.checkpoint == "blocks" and ordered:
        raise ValueError(
            "config: checkpoint is blocks, but dropout, batch norm and buffers would see the "
            "second run of a block. Use --checkpoint off, and a smaller --batch_size or "
            "--crop_size where memory does not suffice."
        )
    return config.checkpoint == "blocks"


def is_ordered(networks: Iterable[nn.Module]) -> bool:
    """Whether the order of the passes is part of the result.

    So it is with dropout, with batch norm, and where there is a buffer, which a pass may write:
    running statistics, the vectors of a spectral norm.
    """
    kinds = (_BatchNorm, _DropoutNd)
    return any(
        isinstance(module, kinds) or any(True for _ in module.buffers(recurse=False))
        for net in networks
        for module in net.modules()
    )
