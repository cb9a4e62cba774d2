# SPDX-License-Identifier: MIT
"""``cyclegan-fast benchmark``: the whole training iteration timed here, ours beside its peers."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from cyclegan_fast.cli.arguments import parse
from cyclegan_fast.cli.failures import FAILED, Failure, UsageError
from cyclegan_fast.errors import printable

ABOUT = """Time the whole training iteration on this machine: ours against plain PyTorch,
torch.compile and an unmodified upstream, in turns, each only after its losses were found equal.

Prints a table per size and batch, and writes benchmark.json and benchmark.png."""
RECORD, DRAWING = "benchmark.json", "benchmark.png"
# Smaller pictures leave the last norm of a discriminator next to no pixels.
SMALLEST = 32


@dataclass(frozen=True)
class BenchmarkOptions:
    """What to time, against what, and where to write it."""

    size: tuple[int, ...] = (256,)
    """Sides of the pictures, in pixels; several are timed one after another."""
    batch: tuple[int, ...] = (1,)
    """Batch sizes, each with each size."""
    against: tuple[Literal["eager", "compile"], ...] = ("eager",)
    """Peers: eager (plain PyTorch: as shipped, bf16, channels_last, in a CUDA graph), compile
    (torch.compile in its modes; on a CPU one of them, and it compiles for minutes)."""
    upstream: Path | None = None
    """Checkout of pytorch-CycleGAN-and-pix2pix, to be timed too, unmodified."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("benchmark")
    """Folder for the record and the drawing."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where there is one."""
    rounds: int = 5
    """Turns of each contender; the median of them counts."""
    calls: int | None = None
    """Iterations per turn (10 on a GPU, one on a CPU)."""
    warmup: int = 2
    """Iterations before the first turn."""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    # PyTorch's profiler, which counts launches, reports its own stages; read as PyTorch is loaded.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    options = parse(BenchmarkOptions, arguments, "benchmark", ABOUT)
    _check(options)
    return benchmark(options)


def _check(options: BenchmarkOptions) -> None:
    from cyclegan_fast.benchmark import upstream

    for name, values, least in (
        ("size", options.size, SMALLEST),
        ("batch", options.batch, 1),
        ("rounds", (options.rounds,), 1),
        ("calls", (options.calls or 1,), 1),
        ("warmup", (options.warmup,), 1),
    ):
        if not values or min(values) < least:
            raise UsageError(f"--{name} must be {least} or more, got {_words(values)}")
    if any(size % 4 for size in options.size):
        raise UsageError(f"--size must be multiples of 4, got {_words(options.size)}")
    if options.upstream is not None and (reason := upstream.why_not(options.upstream)):
        raise UsageError(f"--upstream {reason}")
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {printable(options.out)} must be a folder, and is a file")


def _words(values: tuple[int, ...]) -> str:
    return " ".join(map(str, values)) or "none"


def benchmark(options: BenchmarkOptions) -> int:
    """Time as the options say; prints and writes after each case, returns the exit status."""
    import torch

    from cyclegan_fast.benchmark import machine
    from cyclegan_fast.benchmark.contenders import Case, contenders
    from cyclegan_fast.benchmark.measure import measure
    from cyclegan_fast.benchmark.pages import draw, step_panels, step_table
    from cyclegan_fast.benchmark.ratios import why_no_ratio
    from cyclegan_fast.io.pictures import write_bytes
    from cyclegan_fast.training.precision import resolve_device

    device = resolve_device(options.device).type
    calls = options.calls or (10 if device == "cuda" else 1)
    # Before the long work, so that a folder that cannot be made is known now.
    options.out.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {}
    failed = False
    for size, batch in ((size, batch) for size in options.size for batch in options.batch):
        case = Case(device, size, batch, options.rounds, calls, options.warmup, options.upstream)
        section = f"step {size} batch {batch}"
        print(f"{size} x {size}, batch {batch}, on {device}", flush=True)
        try:
            rows, reasons = measure(contenders(case, options.against), case)
        except torch.OutOfMemoryError as error:
            raise Failure(
                f"size {size}, batch {batch} does not fit in the GPU's memory beside its peers; "
                "take smaller ones, or fewer peers with --against"
            ) from error
        failed = failed or bool(reasons)
        content[section] = {"machine": machine.facts(device), "rows": rows, "failed": reasons}
        if options.upstream is not None:
            content[section]["upstream_commit"] = _commit(options.upstream)
        print(f"\n{step_table(section, content[section], full=True)}")
        if why_no_ratio(rows):
            print("Is the machine busy? More --rounds may settle it.\n")
        write_bytes(options.out / RECORD, (json.dumps(content, indent=1) + "\n").encode())
        drawing = draw(step_panels(content))
        if drawing is not None:
            write_bytes(options.out / DRAWING, drawing)
    print(f"written to {printable(options.out)}")
    return FAILED if failed else 0


def _commit(checkout: Path) -> str:
    from cyclegan_fast.benchmark import upstream

    return upstream.commit(checkout)
