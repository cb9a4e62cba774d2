# SPDX-License-Identifier: MIT
"""What a resumed run must refuse, and what it must say: how it differs from the saved one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cyclegan_fast.errors import CheckpointError
from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.rank_state import own_pools, pooled
from cyclegan_fast.training.runtime import fingerprint

if TYPE_CHECKING:
    from cyclegan_fast.training.trainer import Trainer

ARCHITECTURE = (
    "netG", "ngf", "netD", "ndf", "n_layers_D", "norm", "dropout", "input_nc", "output_nc"
)  # fmt: skip
# Options that may change from start to start of one and the same run.
_FREE = {
    "continue_train", "checkpoints_dir", "name", "num_threads", "max_steps", "print_freq",
    "display_freq", "save_latest_freq", "save_epoch_freq", "save_by_iter", "save_format",
    "keep_last", "keep_every", "cuda_graph",
}  # fmt: skip


def check_architecture(path: Path, saved: Mapping[str, Any], config: TrainConfig) -> None:
    """Refuse a save of other networks than the options ask for.

    Raises:
        CheckpointError: saying what it holds, what was asked for, and the options that fit.
    """
    wanted = config.to_dict()
    other = [name for name in ARCHITECTURE if saved.get(name) != wanted[name]]
    if other:
        holds = ", ".join(f"{name} {saved.get(name)}" for name in other)
        asked = ", ".join(f"{name} {wanted[name]}" for name in other)
        options = " ".join(_option(name, saved.get(name)) for name in other)
        raise CheckpointError(
            f"{path}: holds {holds}, and this run asks for {asked}. Use {options}, or another "
            "--name for a new run."
        )


def differences(state: Mapping[str, Any], trainer: Trainer) -> list[str]:
    """Return lines on why the run will not be the one that was saved, or nothing."""
    saved, ours = state["config"], trainer.config.to_dict()
    notes = []
    changed = [
        f"{name} {saved[name]} -> {value}"
        for name, value in ours.items()
        if name not in _FREE and name in saved and saved[name] != value
    ]
    if changed:
        notes.append(f"options changed since the save: {', '.join(changed)}")
    if state["steps_per_epoch"] != trainer.steps_per_epoch:
        notes.append(
            f"an epoch had {state['steps_per_epoch']} steps and now has "
            f"{trainer.steps_per_epoch}: the data changed, or the pictures of a step on all ranks, "
            "and the epoch is counted anew"
        )
    here, there = fingerprint(trainer.device), state["fingerprint"]
    moved = [
        f"{name} {there.get(name)} -> {here.get(name)}"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name)
    ]
    if state["precision"] != trainer.precision.name:
        moved.append(f"precision {state['precision']} -> {trainer.precision.name}")
    if moved:
        notes.append(f"not bit-exact with the run before, because of: {', '.join(moved)}")
    return notes


def dealt(saved: int, pools: Mapping[str, Tensor], trainer: Trainer) -> list[str]:
    """Return a line on the pools of a save made by another number of ranks, or nothing."""
    count = trainer.ranks.count if trainer.ranks else 1
    if saved == count:
        return []
    held, kept = pooled(pools), 0
    for rank in range(count):
        kept += pooled(own_pools(pools, saved, rank, count, trainer.config.pool_size))
    left = f", {held - kept} did not fit" if kept < held else ""
    return [
        f"the save is of {saved} rank{'s' * (saved > 1)}, and the run goes on with {count}: "
        f"{kept} of {held} pooled pictures were dealt out anew{left}"
    ]


def _option(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no_{name}"
    return f"--{name} {value}"
