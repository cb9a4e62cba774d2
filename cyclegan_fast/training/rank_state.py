# SPDX-License-Identifier: MIT
"""What each rank has of its own, its pools and generators, in the one save of a run.

Rank 0's tensors have the names they have in a run of one process; those of rank r begin with
"rank<r>/". Weights, moments and losses are the same on every rank and are written once.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from cyclegan_fast.training.trainer import Trainer

Tensors = Mapping[str, Tensor]
_POOLS = ("fake_A", "fake_B")


def collect(trainer: Trainer) -> dict[str, Any]:
    """Return a trainer's state with what the other ranks have, on rank 0; each rank must call it.

    Returns:
        `Trainer.state_dict`, and in its values "ranks", their number, if there are several.
    """
    state = trainer.state_dict()
    ranks = trainer.ranks
    if ranks is None or ranks.count == 1:
        return state
    own = {
        "pools": {name: tensor.cpu() for name, tensor in state["tensors"]["pools"].items()},
        "run": {
            name: tensor
            for name, tensor in state["tensors"]["run"].items()
            if name.startswith("generator/")
        },
    }
    for rank, theirs in enumerate(ranks.at_first(own) or []):
        for part, tensors in theirs.items():
            if rank:
                state["tensors"][part] |= {f"rank{rank}/{n}": t for n, t in tensors.items()}
    state["values"]["ranks"] = ranks.count
    return state


def own_generators(run: Tensors, rank: int) -> dict[str, Tensor]:
    """Return the states of a rank's generators by "cpu" and "cuda"; none of a rank not saved."""
    prefix = f"{_prefix(rank)}generator/"
    return {name.removeprefix(prefix): t for name, t in run.items() if name.startswith(prefix)}


def own_pools(pools: Tensors, saved: int, rank: int, count: int, size: int) -> dict[str, Tensor]:
    """Return the pooled pictures of one rank.

    Where the number of ranks has changed, the pictures of all are dealt out anew, one to each rank
    in turn, the oldest places first; what does not fit is left out.

    Args:
        pools: of the save.
        saved: ranks at the save.
        rank: in [0, count).
        count: ranks now.
        size: pictures a pool may hold.
    """
    of_saved = [_of_rank(pools, number) for number in range(saved)]
    if saved == count:
        return of_saved[rank]
    dealt: dict[str, Tensor] = {}
    for pool in _POOLS:
        places = zip_longest(*(_pictures(theirs, pool) for theirs in of_saved))
        joined = [picture for place in places for picture in place if picture is not None]
        own = joined[rank::count][:size]
        if not own:
            continue
        if any(f"{pool}/pictures" in theirs for theirs in of_saved):
            dealt[f"{pool}/pictures"] = torch.stack(own)
        else:
            dealt |= {f"{pool}/{row:05d}": picture for row, picture in enumerate(own)}
    return dealt


def pooled(pools: Tensors) -> int:
    """Return how many pictures a save's pools hold."""
    return sum(len(t) if name.endswith("/pictures") else 1 for name, t in pools.items())


def _prefix(rank: int) -> str:
    return f"rank{rank}/" if rank else ""


def _of_rank(pools: Tensors, rank: int) -> dict[str, Tensor]:
    prefix = _prefix(rank)
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in pools.items()
        if name.startswith(tuple(f"{prefix}{pool}/" for pool in _POOLS))
    }


def _pictures(pools: Tensors, pool: str) -> list[Tensor]:
    stacked = pools.get(f"{pool}/pictures")
    if stacked is not None:
        return list(stacked)
    return [pools[name] for name in sorted(pools) if name.startswith(f"{pool}/")]
