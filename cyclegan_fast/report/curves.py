# SPDX-License-Identifier: MIT
"""Draw losses.csv: what happened to each loss, both directions in one panel."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Panel -> (title, columns of losses.csv). The first column is the A to B direction.
PANELS = (
    ("Generators fool discriminators", ("G_A", "G_B")),
    ("Discriminators", ("D_A", "D_B")),
    ("Cycle: there and back", ("cycle_A", "cycle_B")),
    ("Identity", ("idt_A", "idt_B")),
)
_COLOURS = ("#2563a8", "#d9822b")


def read_losses(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a losses.csv; a half-written last line is left out.

    Args:
        path: the file.

    Returns:
        Column name -> float64 [lines].
    """
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    if not rows:
        return {}
    header = rows[0]
    whole = [row for row in rows[1:] if len(row) == len(header)]
    table = np.array([[_number(cell) for cell in row] for row in whole], dtype=np.float64)
    table = table.reshape(len(whole), len(header))
    return {name: table[:, i] for i, name in enumerate(header)}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def smoothed(values: np.ndarray) -> np.ndarray:
    """Return a centred running mean over a twentieth of the points, shorter at both ends."""
    half = max(1, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(np.nan_to_num(values))])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def draw(losses: dict[str, np.ndarray], names: tuple[str, str] = ("A", "B")) -> Figure:
    """Draw four panels: adversarial, discriminators, cycle and identity.

    Args:
        losses: as `read_losses` returns them.
        names: what to call the domains.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    a, b = names
    labels = (f"{a} → {b}", f"{b} → {a}")
    for axis, (title, columns) in zip(axes.flat, PANELS, strict=True):
        for column, colour, label in zip(columns, _COLOURS, labels, strict=True):
            if column in losses and len(losses[column]):
                steps, values = losses["step"], losses[column]
                axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
                axis.plot(steps, smoothed(values), color=colour, linewidth=1.8, label=label)
        axis.set_title(title, fontsize=10, loc="left")
        axis.grid(alpha=0.25, linewidth=0.5)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.set_ylim(bottom=0)
    for axis in axes[1]:
        axis.set_xlabel("step", fontsize=9)
    axes[0, 0].legend(fontsize=8, frameon=False)
    return figure


def image(figure: Figure, kind: str) -> bytes:
    """Return a figure as the bytes of a "png" or "svg" file, the same bytes for the same figure."""
    from matplotlib import rc_context

    stream = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with rc_context({"svg.hashsalt": "cyclegan_fast"}):
        figure.savefig(stream, format=kind, dpi=120, metadata=metadata)
    return stream.getvalue()
