# SPDX-License-Identifier: MIT
"""The goals of the iteration, and how far the records are from them; needs no PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import records  # noqa: F401 - finds the package of this tree

from cyclegan_fast.benchmark.ratios import AS_SHIPPED, UPSTREAM, why_no_ratio

# Beginnings of contenders' names; the best of them counts. "Upstream" is its own code and our plain
# iteration alike, where both were measured and agree.
OURS = ("ours bf16, CUDA graph",)
COMPILED = ("torch.compile",)
SHIPPED = (UPSTREAM, *AS_SHIPPED.values())
FP32, FP32_OURS = ("plain fp32",), ("ours fp32",)
BF16, BF16_OURS = ("plain bf16",), ("ours bf16",)
ANY_OURS = ("ours",)
DATA = "vangogh2photo"
# What bench_convolutions.py measures beside the ways that a training can take.
PEERS_OF_A_LAYER = ("library, contiguous", "torch.compile")

Record = dict[str, Any]


class Reached(NamedTuple):
    """What a record says to a goal: a value, or why there is none; and what keeps it unproven."""

    value: float | str
    machine: dict[str, Any]
    note: str = ""


class Goal(NamedTuple):
    """What is to be reached.

    Attributes:
        words: what is measured.
        bound: "at most" or "at least".
        target: the goal; None where a value is to be written down and no more.
        reach: content of a record -> what it says, nothing where it says nothing.
        on: "gpu" or "cpu", where it was recorded.
    """

    words: str
    bound: str
    target: float | None
    reach: Callable[[Record], Iterator[Reached]]
    on: str = "gpu"


def time_of(batch: int) -> Callable[[Record], Iterator[Reached]]:
    """Ours, milliseconds at 256 x 256."""

    def reach(content: Record) -> Iterator[Reached]:
        for record in _steps(content, batch):
            for value in _values(record, OURS, _milliseconds):
                yield Reached(value, record["machine"])

    return reach


def ratio(
    batch: int, peers: tuple[str, ...], ours: tuple[str, ...] = OURS, *, memory: bool = False
) -> Callable[[Record], Iterator[Reached]]:
    """Times that ours is faster than the best peer, or its memory over the least of the peers'.

    Only rows of one section are compared, and none where upstream refutes our plain baseline.
    """
    read = _mebibytes if memory else _milliseconds

    def reach(content: Record) -> Iterator[Reached]:
        for record in _steps(content, batch):
            its, theirs = (_values(record, names, read) for names in (ours, peers))
            if not its or not theirs:
                continue
            value = min(its) / min(theirs) if memory else min(theirs) / min(its)
            lacking = UPSTREAM in peers and not _values(record, (UPSTREAM,), read)
            note = " (of the plain iteration: upstream not measured beside)" if lacking else ""
            yield Reached(why_no_ratio(record["rows"]) or value, record["machine"], note)

    return reach


def share_in_trunk(content: Record) -> Iterator[Reached]:
    """Share of a large product's rate in the trunk's slowest direction, two images, bfloat16."""
    record = content.get("convolutions 256 batch 1")
    if record is None:
        return
    best = [
        max(
            share for name, share in row["share_of_product"].items() if name not in PEERS_OF_A_LAYER
        )
        for row in record["rows"]
        if row["case"].startswith("trunk, 2 of ") and row["case"].endswith("bfloat16")
    ]
    if best:
        yield Reached(min(best), record["machine"])


def training(content: Record) -> Iterator[Reached]:
    """Iterations per second of a whole training on pictures."""
    for section, record in content.items():
        if section.startswith("train ") and record["rows"].get("data") == DATA:
            yield Reached(record["rows"]["iterations_per_s"], record["machine"])


def launches(content: Record) -> Iterator[Reached]:
    """Counted launches of an iteration at 256 x 256, batch 1."""
    record = content.get("256 batch 1", {"rows": {}})
    if "ours bf16" in record["rows"]:
        yield Reached(record["rows"]["ours bf16"]["launches"], record["machine"])


def _steps(content: Record, batch: int) -> Iterator[Record]:
    name = f"step 256 batch {batch}"
    return (record for s, record in content.items() if s == name or s.startswith(f"{name}, "))


def _values(record: Record, names: tuple[str, ...], read: Callable[[Record], Any]) -> list[float]:
    rows = (row for row in record["rows"] if row["contender"].startswith(names))
    return [value for row in rows if (value := read(row)) is not None]


def _milliseconds(row: Record) -> float:
    return row["milliseconds"]["median"]


def _mebibytes(row: Record) -> float | None:
    return row["peak_memory_mib"]


# Times are for an H100; what other GPUs reached stands beside it.
GOALS = (
    Goal("ms, batch 1", "at most", 6.2, time_of(1)),
    Goal("ms, batch 8", "at most", 40, time_of(8)),
    Goal("ms, batch 1, later", "at most", 4.0, time_of(1)),
    Goal("ms, batch 8, later", "at most", 28, time_of(8)),
    Goal("x upstream's speed", "at least", 4.5, ratio(1, SHIPPED)),
    Goal("x upstream's speed, later", "at least", 7, ratio(1, SHIPPED)),
    Goal("x torch.compile, batch 1", "at least", 1.3, ratio(1, COMPILED)),
    Goal("x torch.compile, batch 1, later", "at least", 2, ratio(1, COMPILED)),
    Goal("x torch.compile, batch 8", "at least", 1, ratio(8, COMPILED)),
    Goal("x upstream's memory, batch 1", "at most", 0.4, ratio(1, SHIPPED, memory=True)),
    Goal("x upstream's memory, batch 8", "at most", 0.4, ratio(8, SHIPPED, memory=True)),
    Goal("x a large product's rate, trunk, two images", "at least", 0.75, share_in_trunk),
    Goal(f"iterations/s of a training on {DATA}", "", None, training),
    Goal("launches, counted, batch 1", "at most", 650, launches, on="cpu"),
    Goal("x plain fp32, ours in fp32, CPU", "at least", 1.35, ratio(1, FP32, FP32_OURS), on="cpu"),
    Goal("x plain bf16, ours in bf16, CPU", "at least", 2, ratio(1, BF16, BF16_OURS), on="cpu"),
    Goal("x upstream's speed, CPU", "at least", 5, ratio(1, SHIPPED, ANY_OURS), on="cpu"),
)


def table(results: Path) -> str:
    """Return Markdown of every goal: what was reached, by which record, and what is missing.

    Args:
        results: folder of the records.
    """
    contents = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    lines = ["| at 256 x 256 | goal | reached | gap | record |", "| --- | --- | --- | --- | --- |"]
    for goal in GOALS:
        target = "-" if goal.target is None else f"{goal.bound} {goal.target:g}"
        found = [best for content in contents if (best := _best(goal, content)) is not None]
        for reached in found:
            value = reached.value
            told = f"{value:.2f}" if isinstance(value, float) else str(value)
            told += reached.note
            missing = gap(goal, value)
            missing = "unproven" if reached.note and missing == "reached" else missing
            cells = (goal.words, target, told, missing, _provenance(reached.machine))
            lines.append(f"| {' | '.join(cells)} |")
        if not found:
            lines.append(f"| {goal.words} | {target} | no record | - | - |")
    return "\n".join(lines) + "\n"


def _best(goal: Goal, content: Record) -> Reached | None:
    """The best of a record's values; a reason only where there is no value."""
    found = [r for r in goal.reach(content) if ("gpu" in r.machine) == (goal.on == "gpu")]
    values = [reached for reached in found if not isinstance(reached.value, str)]
    if not values:
        return found[0] if found else None
    return (min if goal.bound == "at most" else max)(values, key=lambda reached: reached.value)


def gap(goal: Goal, value: float | str) -> str:
    """Return what is missing, in words."""
    if isinstance(value, str) or goal.target is None:
        return "-"
    over = value / goal.target - 1
    if over <= 0 if goal.bound == "at most" else over >= 0:
        return "reached"
    return f"{abs(over):.0%} too {'much' if over > 0 else 'little'}"


def _provenance(machine: dict[str, Any]) -> str:
    """Where and when, in a few words."""
    device = machine.get("gpu") or machine["processor"]
    return f"{device.removeprefix('NVIDIA ')}, {machine['commit'][:12]}, {machine['date'][:10]}"
