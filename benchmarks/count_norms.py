# SPDX-License-Identifier: MIT
"""For count_launches.py: what a norm that the dispatcher sees asks of a GPU."""

from __future__ import annotations

import torch
from count_convolutions import size
from torch import Tensor

from cyclegan_fast.ops import _common

FORWARD = ("instance_norm_act", "instance_norm_act_fwd")


def launches(name: str, args) -> int:
    """Statistics (or sums) and writing are one launch where nothing lies between them."""
    x = args[0] if name in FORWARD else args[2]
    layout = _common.memory_format(x) == torch.channels_last
    kernels = _common.kernels("instance_norm_act", "native")
    return 2 if kernels.instance_norm_act_workspace(*x.shape, layout, "cuda") else 1


def calls_of_a_pair(args) -> list[list]:
    """Return the arguments of both calls; an empty tensor in a list stands for none."""
    calls = []
    for i in range(2):
        own = [arg[i] if isinstance(arg, (list, tuple)) else arg for arg in args]
        calls.append([None if isinstance(a, Tensor) and not a.numel() else a for a in own])
    return calls


def pair_launches(name: str, calls: list[list]) -> int:
    """Two calls share their launches in channels_last; one is what it is."""
    x = calls[0][0 if name in FORWARD else 2]
    shared = _common.memory_format(x) == torch.channels_last
    return launches(name, calls[0]) * (1 if shared else len(calls))


def read_again(name: str, args, result=None) -> int:
    """What the second stage reads that the first has read: x, and the gradient of the sum.

    One launch finds it in the cache.
    """
    if "norm" not in name or launches(name, args) == 1:
        return 0
    if name in FORWARD:
        return size(args[0])
    if name == "instance_norm_act_bwd":
        grad_y, grad_skip, x = args[:3]
        kept = args[11]
        again = [kept] if kept is not None else [g for g in (grad_y, grad_skip) if g is not None]
        return size(x) + sum(map(size, again))
    if name == "instance_norm_act_backward":
        grad_y, grad_skip, x = args[:3]
        kept = result[1]  # where the first stage has left the sum
        again = [kept] if kept.numel() else [g for g in (grad_y, grad_skip) if g is not None]
        return size(x) + sum(map(size, again))
    return 0
