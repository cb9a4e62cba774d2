# SPDX-License-Identifier: MIT
"""What a GPU report consists of: its parts, and their units of work in the order of importance."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import shapes
from records import ROOT

from cyclegan_fast.benchmark.ratios import AS_SHIPPED, UPSTREAM

PARTS = ("tests", "step", "ops", "train")
BENCH = ["-m", "pytest", "-q", "-o", "python_files=bench_*.py", "-o", "python_functions=bench_*"]
# A few tests of every kernel: under the sanitizer each takes some hundred times as long.
SANITIZED = (
    "constant_planes or unaligned_memory or of_one_side or derivative_at_zero"
    " or (reflect_pad2d and shape1)"
)
TOOLS = ("memcheck", "racecheck", "initcheck")
# Contenders whose ratios are the goals: timed in turns in one process, which what a machine does
# meanwhile hits alike. Ours first, which must run; then graphs, which keep their memory; then those
# that show in their turn whether they fit beside the graphs.
DECIDING = (
    "ours bf16, CUDA graph",
    "torch.compile forced NHWC, CUDA graph",
    "plain bf16 channels_last, CUDA graph",
    AS_SHIPPED["cuda"],
    UPSTREAM,
)
# (size, batch) of theirs; the others are timed at the first size alone.
IN_TURNS = ((256, 1), (256, 8), (512, 1), (512, 8))
# Of the others those that decide are first; those whose names hold none of these come last.
FIRST = ("ours bf16, CUDA graph", "forced NHWC", "upstream", "as shipped", "channels_last", "ours")


@dataclass(frozen=True)
class Unit:
    """One piece of work: a process whose end is noted in the record.

    Attributes:
        part: one of PARTS.
        name: unique in its part.
        arguments: of Python.
        tests: it is a run of pytest, whose tests are to be counted.
        tool: a program to run Python under; None where that program was not found.
        fills: it is told with --seconds how long it may take.
        least: seconds without which it is not begun.
        environment: variables beside those of all units.
        spared_by: a unit of the part that has done all of this one's work if it passed, or None.
    """

    part: str
    name: str
    arguments: list[str]
    tests: bool = False
    tool: list[str] | None = field(default_factory=list)
    fills: bool = False
    least: float = 20
    environment: dict[str, str] = field(default_factory=dict)
    spared_by: str | None = None


@dataclass(frozen=True)
class Request:
    """What the report is asked for.

    Attributes:
        device: "cuda", or "cpu" to try the report itself.
        rehearse: tiny shapes.
        upstream: a checkout of pytorch-CycleGAN-and-pix2pix, or None.
        dataroot: a data set to train on, or None for painted seasons.
        runs: gets the folder of a run on that data set.
        ask: runs Python with arguments and returns what it printed.
    """

    device: str
    rehearse: bool
    upstream: Path | None
    dataroot: Path | None
    runs: Path
    ask: Callable[[list[str]], str]


def units(part: str, request: Request) -> list[Unit]:
    """Return the units of a part, the most important first."""
    return {"tests": _tests, "step": _step, "ops": _ops, "train": _train}[part](request)


def _tests(request: Request) -> list[Unit]:
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu"]
    files = gpu_test_files(request.ask)
    if request.rehearse:  # the others run on a CPU as they are, in the ordinary suite
        files = [file for file in files if file.startswith("tests/gpu/")]
    # What only a GPU can show comes before what also runs elsewhere.
    files.sort(key=lambda file: (not file.startswith("tests/gpu/"), file))
    found = [Unit("tests", file, [*pytest, file], tests=True) for file in files]
    program = _sanitizer()
    for tool in TOOLS:
        command = [program, "--tool", tool, "--error-exitcode", "99"] if program else None
        found.append(
            Unit(
                "tests",
                f"compute-sanitizer {tool}",
                [*pytest, "tests/gpu/test_cuda_ops.py", "-k", SANITIZED],
                tests=True,
                tool=command,
                # Each tensor its own allocation: one that is left is one that is noticed.
                environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
            )
        )
    return found


def gpu_test_files(ask: Callable[[list[str]], str]) -> list[str]:
    """Return the files that hold tests marked gpu, as pytest finds them."""
    collect = ["-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-m", "gpu"]
    printed = ask([*collect, "--continue-on-collection-errors", "tests"])
    lines = (line for line in printed.splitlines() if line.startswith("tests/"))
    return sorted({line.split("::")[0] for line in lines if "::" in line})


def _sanitizer() -> str | None:
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    return shutil.which("compute-sanitizer") or shutil.which(home / "bin" / "compute-sanitizer")


def _step(request: Request) -> list[Unit]:
    script = str(ROOT / "benchmarks" / "bench_step.py")
    common = ["--device", request.device, "--peers", "all"]
    if request.upstream:
        common += ["--upstream", str(request.upstream)]
    if request.rehearse:
        common += ["--rounds", "1", "--calls", "1", "--warmup", "1"]
    names = json.loads(request.ask([script, "--list", *common]).splitlines()[-1])
    if request.rehearse:  # torch.compile's modes tell its back end, which is not rehearsed
        names = [name for name in names if not name.endswith(("reduce-overhead", "max-autotune"))]

    def rank(name: str) -> int:
        return next((i for i, part in enumerate(FIRST) if part in name), len(FIRST))

    ranked = sorted(names, key=rank)
    deciding = [name for name in DECIDING if name in names]
    shapes_of_turns = ((32, 1),) if request.rehearse else IN_TURNS
    found = [
        Unit(
            "step",
            _in_turns(size, batch),
            # A longer iteration needs fewer calls; what is left over is for compilers.
            _contenders(script, size, batch, deciding, common + ["--calls", "3"] * (batch > 1)),
            least=20 if request.rehearse else 150,
        )
        for size, batch in shapes_of_turns
        if len(deciding) > 1
    ]
    if request.rehearse:  # one way to run is as good as another: most of a process is its start
        others = [name for name in ranked if not found or name not in deciding]
        found.append(Unit("step", "32 batch 1, others", _contenders(script, 32, 1, others, common)))
    else:
        size = IN_TURNS[0][0]
        found += [
            Unit(
                "step",
                f"batch {batch}, {name}",
                _contenders(script, size, batch, [name], common),
                spared_by=_in_turns(size, batch) if name in deciding else None,
            )
            for batch in (1, 8)
            for name in ranked
        ]
    if request.upstream:
        baseline = [str(ROOT / "benchmarks" / "check_baseline.py"), str(request.upstream)]
        found.append(
            Unit("step", "baseline is upstream's", [*baseline, "--device", request.device])
        )
    if request.device == "cuda":
        profile = [str(ROOT / "benchmarks" / "profile_step.py")]
        size = ["--size", "32"] if request.rehearse else []
        found.append(Unit("step", "profile of ours", [*profile, *size]))
    return found


def _in_turns(size: int, batch: int) -> str:
    return f"{size} batch {batch}, in turns"


def _contenders(
    script: str, size: int, batch: int, names: list[str], common: list[str]
) -> list[str]:
    chosen = [argument for name in names for argument in ("--contender", name)]
    return [script, "--size", str(size), "--batch", str(batch), *chosen, *common]


def _ops(request: Request) -> list[Unit]:
    suites = sorted((ROOT / "benchmarks").glob("bench_*.py"))
    suites = [suite for suite in suites if suite.name != "bench_step.py"]

    def bench_options(size: int, batch: int) -> list[str]:
        sizes = ["--bench-size", str(size), "--bench-batch", str(batch)]
        return ["--bench-device", request.device, *sizes]

    if request.rehearse:  # two processes: most of one is its start
        options = bench_options(32, 1)
        halves = {"first 32 batch 1": suites[:1], "others 32 batch 1": suites[1:]}
        return [
            Unit("ops", name, [*BENCH, *map(str, some), *options], tests=True, least=30)
            for name, some in halves.items()
        ]
    found = []
    # Pictures of 256 at batch 1 and 8 first, then larger ones, then the batches between.
    for batch, size in sorted(
        ((batch, size) for batch in shapes.BATCHES for size in shapes.SIZES),
        key=lambda pair: (pair[0] not in (1, 8), pair[1], pair[0]),
    ):
        for suite in suites:
            text = suite.read_text()
            if size != shapes.SIZES[0] and "bench_size" not in text:
                continue  # it has the shapes of 256 alone
            if batch != shapes.BATCHES[0] and "bench_batch" not in text:
                continue  # it knows of no pictures
            name = f"{suite.stem.removeprefix('bench_')} {size} batch {batch}"
            found.append(
                Unit(
                    "ops",
                    name,
                    [*BENCH, str(suite), *bench_options(size, batch)],
                    tests=True,
                    least=30,
                )
            )
    return found


def _train(request: Request) -> list[Unit]:
    script = [str(ROOT / "benchmarks" / "train_run.py"), "--device", request.device]
    if request.rehearse:
        script += ["--size", "32", "--pictures", "4", "--steps", "6", "--tiny"]
    name = "seasons"
    if request.dataroot:
        name = request.dataroot.name
        script += ["--dataroot", str(request.dataroot), "--runs", str(request.runs)]
    return [Unit("train", name, script, fills=True, least=5 if request.rehearse else 60)]
