# SPDX-License-Identifier: MIT
"""Find the generator's file in a folder: a run of ours, one of its saves, or upstream's."""

from __future__ import annotations

import re
from pathlib import Path

from cyclegan_fast.errors import WeightsError, printable

NETWORK = {"AtoB": "G_A", "BtoA": "G_B"}


def generator_file(folder: Path, direction: str) -> Path:
    """Return the weights file of one direction's generator.

    Args:
        folder: a run's or a save's folder, or upstream's ``checkpoints/NAME``.
        direction: "AtoB" or "BtoA".

    Raises:
        WeightsError: none is there; the message shows what is.
    """
    file = _upstream(folder, NETWORK[direction])
    if file is not None:
        return file
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    found = ", ".join(printable(n) for n in names[:8]) + (", ..." if len(names) > 8 else "")
    raise WeightsError(
        f"{printable(folder)}: no generator for {direction} in it. Expected was a run's folder, or "
        f"latest_net_{NETWORK[direction]}.pth; found there: {found or 'nothing'}. Give the weights "
        "file itself if it has another name."
    )


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
