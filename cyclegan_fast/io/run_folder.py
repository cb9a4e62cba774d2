# SPDX-License-Identifier: MIT
"""Find a generator in a folder: a run of ours, one of its saves, or upstream's checkpoints."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cyclegan_fast.errors import CheckpointError, WeightsError, printable

NETWORK = {"AtoB": "G_A", "BtoA": "G_B"}


@dataclass(frozen=True)
class Found:
    """A generator in a folder.

    Attributes:
        path: the save's folder, or upstream's file.
        tensors: its weights if they had to be read to be verified; None for upstream's file.
        notes: what the user should know, in words.
    """

    path: Path
    tensors: dict[str, Tensor] | None = None
    notes: tuple[str, ...] = ()


def find(folder: Path, direction: str) -> Found:
    """Find one direction's generator.

    Args:
        folder: a run's or a save's folder, or upstream's ``checkpoints/NAME``.
        direction: "AtoB" or "BtoA", A and B being the run's folders.

    Returns:
        The newest save that is intact; of upstream's files the latest, else the highest epoch.

    Raises:
        WeightsError: none is there, and the message shows what is; or every save is damaged.
    """
    damaged: list[str] = []
    for save in _saves(folder):
        try:
            return _read(save, direction, damaged)
        except CheckpointError as error:
            damaged.append(str(error))
    if damaged:
        raise WeightsError(f"{printable(folder)}: no save in it is intact: {'; '.join(damaged)}")
    file = _upstream(folder, NETWORK[direction])
    if file is not None:
        return Found(file)
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    found = ", ".join(printable(n) for n in names[:8]) + (", ..." if len(names) > 8 else "")
    raise WeightsError(
        f"{printable(folder)}: no generator for {direction} in it. Expected was a run's folder, or "
        f"latest_net_{NETWORK[direction]}.pth; found there: {found or 'nothing'}. Give the weights "
        "file itself if it has another name."
    )


def _saves(folder: Path) -> list[Path]:
    """Return the saves to try: the folder itself if it is one, else the run's, newest first."""
    from cyclegan_fast.training import checkpoint, manifest

    if (folder / manifest.NAME).is_file():
        return [folder]
    lasting = [path for path in folder.glob("epoch-*") if path.name[6:].isdigit()]
    steps = [path for _, path in checkpoint.saves(folder)]
    return steps + sorted(lasting, key=lambda path: int(path.name[6:]), reverse=True)


def _read(save: Path, direction: str, damaged: list[str]) -> Found:
    from cyclegan_fast.training import checkpoint

    notes = list(damaged)
    network = NETWORK[direction]
    try:
        state = json.loads((save / "state.json").read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{save}: state.json is damaged") from error
    if state["config"].get("direction") == "BtoA":
        # Such a run gave its networks the folders in exchange: its G_A reads folder B.
        network = {"G_A": "G_B", "G_B": "G_A"}[network]
        notes.append(f"trained with --direction BtoA: {direction} is its {network}")
    # Verifies every file of the save, state.json among them.
    return Found(save, checkpoint.read_weights(save, network), tuple(notes))


def _upstream(folder: Path, network: str) -> Path | None:
    """Return upstream's newest file: latest, else the highest epoch; latest_net_G.pth serves both.

    Upstream's published generators are named without a direction: each folder holds one.
    """
    for name in (f"latest_net_{network}.pth", "latest_net_G.pth"):
        if (folder / name).is_file():
            return folder / name
    numbered = [
        (int(match[1]), path)
        for path in folder.iterdir()
        if (match := re.fullmatch(rf"(?:iter_)?(\d+)_net_{network}\.pth", path.name))
    ]
    return max(numbered)[1] if numbered else None
