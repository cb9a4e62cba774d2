# SPDX-License-Identifier: MIT
"""Timing and provenance for every benchmark.

Contenders are timed interleaved, round by round, so that a slow moment of the machine hits all of
them. On a GPU a kernel-level contender is a CUDA graph of many calls over rotated operands that
together exceed the L2 cache, replayed and divided: neither the host nor a warm cache is in the
figure. A result is a dict of plain values; `write` adds machine, versions, commit and date.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from records import RESULTS, commit, first_line, open_record, run

import cyclegan_fast

__all__ = ["RESULTS", "commit", "first_line"]  # of records.py, for the benchmarks


def seconds(function: Callable[[], object], calls: int, device: str) -> float:
    """Wall or device seconds of one call, averaged over `calls` in a row."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / calls
    begin = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - begin) / calls


def interleaved(
    contenders: dict[str, Callable[[], object]],
    device: str,
    *,
    rounds: int = 9,
    calls: int = 1,
    warmup: int = 2,
) -> dict[str, dict[str, float]]:
    """Time contenders in turns.

    Args:
        contenders: name -> a call to time.
        device: "cpu" or "cuda".
        rounds: how often each contender has its turn.
        calls: calls per turn.
        warmup: untimed calls of each contender before the first round.

    Returns:
        name -> {"median", "min", "max"} in seconds per call.
    """
    for function in contenders.values():
        for _ in range(warmup):
            function()
    if device == "cuda":
        torch.cuda.synchronize()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, function in contenders.items():
            times[name].append(seconds(function, calls, device))
    return {
        name: {"median": statistics.median(t), "min": min(t), "max": max(t)}
        for name, t in times.items()
    }


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


def copy_gb_per_s(device: str) -> float:
    """What a plain copy of memory, far larger than any cache, reaches now: read and written."""
    size = 2**28 if device == "cuda" else 2**26
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    times = interleaved({"copy": lambda: target.copy_(source)}, device, rounds=5, calls=4)
    return round(2 * size / times["copy"]["median"] / 1e9, 1)


def machine(device: str) -> dict[str, object]:
    """Everything that a figure depends on: processor or GPU, versions, commit, threads."""
    facts: dict[str, object] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "cyclegan_fast": cyclegan_fast.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    try:
        import triton

        facts["triton"] = triton.__version__
    except ImportError:
        facts["triton"] = None
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "gpu": properties.name,
            "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver(),
        }
    return facts


def processor() -> str:
    """The processor's model name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _driver() -> str | None:
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return run(query).splitlines()[0]
    except (OSError, subprocess.CalledProcessError):
        return None


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


def merge(section: str, device: str, rows: list[dict], *, key: str) -> Path:
    """Put rows into a section of the device's result file, beside those of the same commit.

    A section tells of one commit: with the first row of another one it begins anew.

    Args:
        section: e.g. "step 256 batch 1".
        device: "cpu" or "cuda".
        rows: JSON-serialisable results.
        key: what tells rows apart; a row replaces an earlier one that has the same value there.

    Returns:
        The file written.
    """
    path, facts = file_for(device), machine(device)
    same = ("commit", "torch", "triton", "processor", "gpu", "driver")
    with open_record(path) as content:
        before = content.get(section)
        if before and all(before["machine"].get(name) == facts.get(name) for name in same):
            replaced = {row[key] for row in rows}
            rows = [row for row in before["rows"] if row.get(key) not in replaced] + rows
        content[section] = {"machine": facts, "rows": rows}
    return path


if __name__ == "__main__":  # for gpu_report.py, which runs without PyTorch itself
    where = sys.argv[1]
    facts = {"machine": machine(where), "file": file_for(where).name, "capability": None}
    if where == "cuda":
        facts["capability"] = ".".join(map(str, torch.cuda.get_device_capability(0)))
    json.dump(facts, sys.stdout)
