# SPDX-License-Identifier: MIT
"""How a process becomes a rank: torchrun has numbered it in its environment; else it is alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from cyclegan_fast.training.precision import resolve_device
from cyclegan_fast.training.ranks import TIMEOUT, Ranks


def started_by_torchrun() -> bool:
    """Whether this process is one of several, or may be."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def leads() -> bool:
    """Whether this process is the one that prints and writes."""
    return not started_by_torchrun() or os.environ["RANK"] == "0"


@contextmanager
def join(device: str) -> Iterator[Ranks | None]:
    """Join the other processes that torchrun started; they part at the end of the block.

    A process group that the caller has made is used, and stays.

    Args:
        device: config's option. "auto" and "cuda" are the GPU of this rank's number on its machine.

    Returns:
        The ranks; None where there is one process alone.

    Raises:
        ValueError: a device that several ranks cannot have.
        RankLostError: in the block, another rank has ended.
    """
    made = not (dist.is_available() and dist.is_initialized())
    if made and not started_by_torchrun():
        yield None
        return
    chosen = _device(device)
    gpu = chosen.type == "cuda"
    if gpu:
        torch.cuda.set_device(chosen)
    if made:
        dist.init_process_group("nccl" if gpu else "gloo", timeout=TIMEOUT)
    try:
        ranks = Ranks(chosen)
        with ranks.beside.watched():
            yield ranks
            ranks.wait_for_all()
    except BaseException:
        # NCCL may wait for ever for a rank that has gone, and this process is leaving.
        if made and not gpu:
            dist.destroy_process_group()
        raise
    if made:
        dist.destroy_process_group()


def _device(name: str) -> torch.device:
    device = resolve_device(name)
    if device.type == "cpu":
        return device
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.index is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"config: device must be auto, cuda or cpu under torchrun, got {name}: each rank takes "
            "the GPU of its own number. Choose GPUs with CUDA_VISIBLE_DEVICES."
        )
    if local >= torch.cuda.device_count():
        raise ValueError(
            f"config: rank {os.environ.get('RANK', '0')} is number {local} on this machine, which "
            f"has {torch.cuda.device_count()} GPUs. Start one rank for each GPU."
        )
    return torch.device("cuda", local)
