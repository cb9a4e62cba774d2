# SPDX-License-Identifier: MIT
"""Timing and provenance for every benchmark.

Contenders are timed interleaved, round by round, so that a slow moment of the machine hits all of
them. On a GPU a kernel-level contender is a CUDA graph of many calls over rotated operands that
together exceed the L2 cache, replayed and divided: neither the host nor a warm cache is in the
figure. A result is a dict of plain values; `write` adds machine, versions, commit and date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from records import RESULTS, commit, open_record

from cyclegan_fast.benchmark.machine import facts
from cyclegan_fast.benchmark.pages import first_line
from cyclegan_fast.benchmark.timing import copy_gb_per_s, interleaved

# Of other modules, for the benchmarks.
__all__ = ["RESULTS", "commit", "copy_gb_per_s", "first_line", "interleaved"]


def rotating(function: Callable[..., object], operands: Sequence[Sequence], device: str):
    """Make a contender of one call per set of operands, and the number of calls it makes.

    Args:
        function: called with each set in turn.
        operands: sets of operands; on a GPU give enough of them to exceed the L2 cache.
        device: "cpu" or "cuda".

    Returns:
        (contender, calls per contender call).
    """

    def all_sets() -> None:
        for operand in operands:
            function(*operand)

    if device == "cpu":
        return all_sets, len(operands)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(2):
            all_sets()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        all_sets()
    return graph.replay, len(operands)


def machine(device: str) -> dict[str, object]:
    """Everything that a figure depends on, with the commit of this tree."""
    return facts(device, commit())


def file_for(device: str) -> Path:
    """results/cpu.json, or results/<gpu>.json by the GPU's name."""
    if device == "cpu":
        return RESULTS / "cpu.json"
    name = torch.cuda.get_device_name(0).lower().replace("nvidia", "").strip()
    return RESULTS / f"{name.replace(' ', '-')}.json"


def write(section: str, device: str, rows: object, path: Path | None = None) -> Path:
    """Replace one section of the device's result file, with this machine's facts beside it.

    Args:
        section: e.g. "instance_norm_act" or "step".
        device: "cpu" or "cuda".
        rows: JSON-serialisable results.
        path: another file than the device's own.

    Returns:
        The file written.
    """
    path = path or file_for(device)
    with open_record(path) as content:
        content[section] = {"machine": machine(device), "rows": rows}
    return path


def merge(section: str, device: str, rows: list[dict], *, key: str, rank: str = "") -> Path:
    """Put rows into a section of the device's result file, beside those of the same commit.

    A section tells of one commit: with the first row of another one it begins anew.

    Args:
        section: e.g. "step 256 batch 1".
        device: "cpu" or "cuda".
        rows: JSON-serialisable results.
        key: what tells rows apart; a row replaces an earlier one that has the same value there.
        rank: a number in rows, if any; one does not replace an earlier one where it is higher.

    Returns:
        The file written.
    """
    path, here = file_for(device), machine(device)
    same = ("commit", "torch", "triton", "processor", "gpu", "driver")
    with open_record(path) as content:
        before = content.get(section)
        if before and all(before["machine"].get(name) == here.get(name) for name in same):
            ranks = {row.get(key): row.get(rank, 0) for row in before["rows"]}
            rows = [row for row in rows if row.get(rank, 0) >= ranks.get(row[key], 0)]
            replaced = {row[key] for row in rows}
            rows = [row for row in before["rows"] if row.get(key) not in replaced] + rows
        content[section] = {"machine": here, "rows": rows}
    return path


if __name__ == "__main__":  # for gpu_report.py, which runs without PyTorch itself
    where = sys.argv[1]
    told = {"machine": machine(where), "file": file_for(where).name, "capability": None}
    if where == "cuda":
        told["capability"] = ".".join(map(str, torch.cuda.get_device_capability(0)))
    json.dump(told, sys.stdout)
