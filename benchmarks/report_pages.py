# SPDX-License-Identifier: MIT
"""Writes <gpu>.md and <gpu>.png from <gpu>.json: everything that was measured, nothing by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import records  # noqa: F401 - finds the package of this tree

from cyclegan_fast.benchmark.pages import Panel, device_words, step_panels, step_table
from cyclegan_fast.benchmark.pages import draw as drawn

SECTION = re.compile(r"(?P<op>[a-z0-9_]+) (?P<size>\d+) batch (?P<batch>\d+)$")
# What a kernel that only moves memory is held to, and the time below which launches, not bytes,
# are what it costs.
GOAL_X_COPY, LONG_US = 1.18, 20
COPY = "copy kernel, the same bytes"
LARGEST = 12  # kernels of a profile that the page shows


def write(record: Path) -> list[Path]:
    """Write both pages beside the record; return those that were written.

    The drawing is left out where there is no matplotlib.
    """
    content = json.loads(record.read_text())
    page = record.with_suffix(".md")
    _whole(page, markdown(record.stem, content).encode())
    written = [page]
    drawing = draw(content)
    if drawing is not None:
        _whole(record.with_suffix(".png"), drawing)
        written.append(record.with_suffix(".png"))
    return written


def _whole(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def markdown(name: str, content: dict[str, Any]) -> str:
    """Return the page of a record."""
    parts = [f"# {name}", f"Made from {name}.json by benchmarks/report_pages.py."]
    if any(section.startswith(("step ", "train ")) for section in content):
        parts.append(f"![Iterations and ops]({name}.png)")
    for section, record in sorted(content.items()):
        if section.startswith("step "):
            parts.append(step_table(section, record))
        elif section.startswith("train "):
            parts.append(_train(section, record))
    for section, record in sorted(content.items()):
        if section.startswith("profile "):
            parts.append(_profile(section, record))
    parts += _goals(content)
    for section, record in _ops(content):
        parts.append(_op_table(section, record))
    for section, record in sorted(content.items()):
        if section.startswith("convolutions "):
            parts.append(_convolutions(section, record))
    if "report" in content:
        parts.append(_units(content["report"]["units"]))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _train(section: str, record: dict[str, Any]) -> str:
    row = record["rows"]
    peak = row.get("peak_memory_mib")
    told = f", at most {peak} MiB of memory" if peak else ""
    samples = f"\n\n![Samples]({row['sheet']})" if row["sheet"] else ""
    return (
        f"## Training, {section.removeprefix('train ')}\n\n"
        f"{row['iterations_per_s']} iterations/s over {row['steps']} steps in {row['seconds']} s, "
        f"reading, samples and saves included ({row['precision']}, CUDA graph: {row['graph']})"
        f"{told}; {device_words(record['machine'])}.{samples}"
    )


def _profile(section: str, record: dict[str, Any]) -> str:
    rows = record["rows"]
    whole = rows["microseconds"]

    def line(name: str, entry: dict[str, Any]) -> str:
        time = entry["microseconds"]
        return f"| {name} | {entry['launches']:.0f} | {time:.0f} | {time / whole:.1%} |"

    kinds = sorted(rows["kinds"].items(), key=lambda item: -item[1]["microseconds"])
    head = ["| | launches | us | share |", "| --- | ---: | ---: | ---: |"]
    return "\n".join(
        [
            f"## Where an iteration's GPU time goes, {section.removeprefix('profile ')}",
            "",
            f"{whole / 1e3:.2f} ms of kernels, some of them beside others; "
            f"{device_words(record['machine'])}.",
            "",
            *head,
            *(line(kind, entry) for kind, entry in kinds),
            "",
            *head,
            *(line(f"`{_short(entry['name'])}`", entry) for entry in rows["kernels"][:LARGEST]),
        ]
    )


def _short(kernel: str) -> str:
    """A kernel's name without the arguments and the words that all of them share."""
    name = kernel.removeprefix("void ").replace("(anonymous namespace)::", "").split("(")[0]
    return name if len(name) <= 90 else f"{name[:87]}..."


def _goals(content: dict[str, Any]) -> list[str]:
    """How far the kernels that only move memory are from a copy of the same bytes, op by op."""
    lines = []
    for section, record in _ops(content):
        rows = [row for row in record["rows"] if COPY in row["microseconds"]]
        if not rows or section.startswith("reflect_conv2d"):
            continue
        times = [row["microseconds"] for row in rows]
        long = [t["ours"] / t[COPY] for t in times if t[COPY] >= LONG_US]
        short = [t["ours"] - t[COPY] for t in times if t[COPY] < LONG_US]
        over = [
            [t[peer] / t["ours"] for t in times if peer in t] for peer in ("eager", "torch.compile")
        ]
        ranges = " | ".join(_range(values) for values in (long, short, *over))
        lines.append(f"| {section} | {len(rows)} | {ranges} |")
    if not lines:
        return []
    return [
        "## Against a copy of the same bytes\n\n"
        "Ours, smallest to largest of the cases below. The goal is "
        f"{GOAL_X_COPY} times the copy kernel where that takes {LONG_US} us or more, one launch "
        "more than it where it takes less, and at least 3 times eager's speed and 1.3 times "
        "torch.compile's. What is missing, and the next step: "
        "[docs/speed.md](../../docs/speed.md).",
        "| | cases | times the copy, long | us over the copy, short | times eager's speed | "
        "times torch.compile's |\n| --- | ---: | ---: | ---: | ---: | ---: |\n" + "\n".join(lines),
    ]


def _range(values: list[float]) -> str:
    if not values:
        return "-"
    low, high = (f"{value:.2f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} - {high}"


def _ops(content: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Sections of ops, by op, size and batch as numbers."""
    found = [(match, record) for s, record in content.items() if (match := SECTION.match(s))]
    others = ("step", "train", "profile", "convolutions")
    found = [(m, record) for m, record in found if m["op"] not in others]
    found.sort(key=lambda item: (item[0]["op"], int(item[0]["size"]), int(item[0]["batch"])))
    return [(match.string, record) for match, record in found]


def _op_table(section: str, record: dict[str, Any]) -> str:
    rows = record["rows"]
    names = sorted({name for row in rows for name in row["microseconds"]}, key=_rank)
    lines = [
        f"## {section}",
        "",
        f"Microseconds; {device_words(record['machine'])}.",
        "",
        f"| | {' | '.join(names)} | bytes | GB/s | share of copy | cache |",
        f"| --- |{' ---: |' * (len(names) + 3)} --- |",
    ]
    for row in rows:
        times = " | ".join(str(row["microseconds"].get(name, "-")) for name in names)
        share = row.get("share_of_copy", round(1 / row["x_copy"], 3) if row["x_copy"] else "-")
        lines.append(
            f"| {row['case']}, {row['direction']} | {times} | {row['bytes']} | {row['gb_per_s']} | "
            f"{share} | {row.get('cache', '-')} |"
        )
    return "\n".join(lines)


def _convolutions(section: str, record: dict[str, Any]) -> str:
    rows = record["rows"]
    names = sorted({name for row in rows for name in row["microseconds"]})
    lines = [
        f"## {section}",
        "",
        f"Microseconds (share of a large product's rate); {device_words(record['machine'])}.",
        "",
        f"| | {' | '.join(names)} |",
        f"| --- |{' ---: |' * len(names)}",
    ]
    for row in rows:
        cells = [
            f"{row['microseconds'][name]} ({row['share_of_product'][name]:.2f})"
            if name in row["microseconds"]
            else "-"
            for name in names
        ]
        lines.append(f"| {row['case']}, {row['direction']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rank(name: str) -> tuple[int, str]:
    order = ("ours", "copy")
    return (next((i for i, part in enumerate(order) if name.startswith(part)), 9), name)


def _units(units: dict[str, Any]) -> str:
    lines = ["## What was run", "", "| | | s | commit |", "| --- | --- | ---: | --- |"]
    errors = []
    for name, entry in sorted(units.items()):
        told = entry["status"]
        if tests := entry.get("tests"):
            told += f": {tests['passed']} passed, {tests['failed']} failed"
            told += f", {tests['skipped']} skipped" if tests["skipped"] else ""
        lines.append(f"| {name} | {told} | {entry['seconds']:.0f} | {entry['commit'][:12]} |")
        if entry["status"] == "failed":
            failures = "\n".join(entry.get("tests", {}).get("failures", []))
            errors.append(f"### {name}\n\n```\n{failures or entry['error'][-1000:]}\n```")
    return "\n\n".join(["\n".join(lines), *errors])


def draw(content: dict[str, Any]) -> bytes | None:
    """Return the drawing as PNG; None without matplotlib, or where nothing was measured."""
    panels = step_panels(content)
    ops = [
        (f"{row['case']}, {row['direction']}", 1 / row["x_copy"])
        for section, record in _ops(content)
        if re.search(r" (256|32) batch 1$", section)
        for row in record["rows"]
        if row["x_copy"]
    ]
    if ops:
        panels.append(Panel("Share of a copy of the same bytes, batch 1", ops, line=1.0))
    return drawn(panels)
