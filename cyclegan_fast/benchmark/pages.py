# SPDX-License-Identifier: MIT
"""A record of whole iterations as a table and as a drawing; needs no PyTorch.

A record is {"step SIZE batch BATCH": {"machine": facts, "rows": rows of measure.py}}.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cyclegan_fast.benchmark.ratios import why_no_ratio

# What rows of later records have beside those of earlier ones.
_LATER = {"share_of_floor": "of the floor", "launches": "launches"}


def step_table(section: str, record: dict[str, Any], *, full: bool = False) -> str:
    """Return a Markdown table: every contender, fastest first, with its ratio to ours.

    Where upstream was measured and our plain iteration is not as fast, the reason stands under the
    table instead. Rows that were timed beside fewer others than the rest are told from them.

    Args:
        section: its name in the record.
        record: machine and rows.
        full: with images per second, share of the floor and launches.
    """
    rows = sorted(record["rows"], key=lambda row: row["milliseconds"]["median"])
    machine = record["machine"]
    size, batch, *rest = section.removeprefix("step ").replace("batch ", "").split(maxsplit=2)
    batch = " ".join([batch, *rest])
    # On a GPU ours has one precision; on a CPU each precision of ours is a row of its own.
    best = min(
        (row["milliseconds"]["median"] for row in rows if row["contender"].startswith("ours")),
        default=None,
    )
    doubt = why_no_ratio(rows)
    beside = max((row.get("beside", 0) for row in rows), default=0)
    heads = ["", "ms", "of our fastest", "TFLOP/s", "peak MiB"]
    heads += ["images/s", *_LATER.values()] if full else []
    lines = [
        f"One iteration, {size} x {size}, batch {batch}, {device_words(machine)}:",
        "",
        f"| {' | '.join(heads)} |".replace("|  |", "| |"),
        f"| --- |{' ---: |' * (len(heads) - 1)}",
    ]
    for row in rows:
        median = row["milliseconds"]["median"]
        name = row["contender"]
        shown = f"**{name}**" if name.startswith("ours") else name
        cells = [
            shown if row.get("beside", 0) == beside else f"{shown} (timed apart)",
            f"{median:.2f}",
            f"{median / best:.2f}x" if best and not doubt else "-",
            row["tflop_per_s"],
            row["peak_memory_mib"] or "-",
        ]
        cells += [row["images_per_s"], *(row.get(key) or "-" for key in _LATER)] if full else []
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", doubt] if doubt else []
    return "\n".join(lines) + "\n"


def device_words(machine: dict[str, Any]) -> str:
    """Return the provenance of a record in a line."""
    device = machine.get("gpu") or f"{machine['processor']}, {machine['threads']} threads"
    return (
        f"{device}, torch {machine['torch']}, "
        f"commit {machine['commit'][:12]}, {machine['date'][:10]}"
    )


def first_line(error: BaseException) -> str:
    """Return what an error says, in a line that a record can hold."""
    text = str(error).strip() or type(error).__name__
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}"


@dataclass(frozen=True)
class Panel:
    """One set of bars.

    Attributes:
        title: above it.
        bars: name and value of each, from the top.
        line: a value to mark, or None.
    """

    title: str
    bars: Sequence[tuple[str, float]]
    line: float | None = None


def step_panels(content: dict[str, Any]) -> list[Panel]:
    """Return a panel for each whole iteration of a record."""
    return [
        Panel(
            f"One iteration: {section.removeprefix('step ')} (ms)",
            [(row["contender"], row["milliseconds"]["median"]) for row in record["rows"]],
        )
        for section, record in sorted(content.items())
        if section.startswith("step ")
    ]


def draw(panels: Sequence[Panel]) -> bytes | None:
    """Return the panels as PNG; None without matplotlib, or where there is none to draw."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: F401
        from matplotlib.figure import Figure
    except ImportError:
        return None
    if not panels:
        return None
    heights = [max(len(panel.bars), 3) for panel in panels]
    figure = Figure(figsize=(11, 1.5 + 0.28 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, axis in zip(panels, axes, strict=True):
        _bars(axis, panel)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    return drawn.getvalue()


def _bars(axis: Any, panel: Panel) -> None:
    """Horizontal bars, ours in another colour, each with its figure."""
    names, values = [name for name, _ in panel.bars], [value for _, value in panel.bars]
    colours = ["tab:orange" if name.startswith("ours") else "tab:blue" for name in names]
    bars = axis.barh(range(len(names)), values, color=colours)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.invert_yaxis()
    axis.bar_label(bars, labels=[f"{value:.2f}" for value in values], fontsize=7, padding=2)
    axis.set_title(panel.title, fontsize=9, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    if panel.line is not None:
        axis.axvline(panel.line, color="black", linewidth=0.8)
