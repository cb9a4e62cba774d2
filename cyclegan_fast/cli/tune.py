# SPDX-License-Identifier: MIT
"""``cyclegan-fast tune``: measure the convolutions of a training here, and note the fastest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cyclegan_fast.cli.arguments import parse
from cyclegan_fast.cli.failures import Failure, UsageError
from cyclegan_fast.errors import printable

ABOUT = """Measure every implementation of every convolution that a training makes on this GPU, and
write which is the fastest. Trainings on this machine follow the file from then on, in layers of the
sizes that were measured, as long as the GPU, PyTorch, Triton, cuDNN and this package are the same;
remove it and they do not. A second call adds other sizes.

Each is measured by itself; then whole steps are, by the library alone, by the fastest of each
layer, by our kernels alone, and with norms done while the next convolution loads. The fastest step
decides. Takes a few
minutes. Nothing is ever measured otherwise."""
SMALLEST = 32


@dataclass(frozen=True)
class TuneOptions:
    """Which training to measure for, and where to write."""

    size: int = 256
    """Side of the pictures that networks see (--crop_size), in pixels."""
    batch: int = 1
    """Pictures per step (--batch_size)."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Of the convolutions."""
    rounds: int = 9
    """Turns of each implementation; the median of them counts."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """File to write, instead of the one that trainings look for."""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    options = parse(TuneOptions, arguments, "tune", ABOUT)
    for name, value, least in (
        ("size", options.size, SMALLEST),
        ("batch", options.batch, 1),
        ("rounds", options.rounds, 1),
    ):
        if value < least:
            raise UsageError(f"--{name} must be {least} or more, got {value}")
    if options.size % 4:
        raise UsageError(f"--size must be a multiple of 4, got {options.size}")
    return tune(options)


def tune(options: TuneOptions, device_type: str = "cuda") -> int:
    """Measure and write as the options say; returns the exit status."""
    import fcntl

    import torch

    from cyclegan_fast import backend
    from cyclegan_fast.benchmark import tuned_steps, tuning
    from cyclegan_fast.benchmark.ours import OursIteration
    from cyclegan_fast.io.pictures import write_bytes
    from cyclegan_fast.ops.reflect_conv2d import measured
    from cyclegan_fast.training.runtime import configured

    if device_type == "cuda" and not torch.cuda.is_available():
        raise Failure(
            "no GPU that PyTorch can use: on a CPU there is one implementation, and nothing to "
            "choose. `cyclegan-fast doctor` says what is missing"
        )
    device = torch.device(device_type)
    file = options.out or measured.path(device)
    if file is None:
        raise UsageError(
            f"{measured.ENVIRONMENT} is off, so there is no file that trainings look for: unset "
            "it, or name one with --out"
        )
    # Before the long work, so that a folder that cannot be made is known now.
    file.parent.mkdir(parents=True, exist_ok=True)
    shape = (2, options.batch, 3, options.size, options.size)
    images = torch.rand(shape, device=device) * 2 - 1
    found = []
    with backend.use_backend("auto"):

        def make(graph: bool = device.type == "cuda") -> OursIteration:
            return OursIteration(options.precision, graph=graph, images=(images[0], images[1]))

        step = make(graph=False)
        with configured(step.config):  # the library searches as it does in a training
            cases = tuning.cases_of_a_step(step)
            print(f"{len(cases)} cases on {measured.machine(device)['device']}", flush=True)
            del step
            for case in cases:
                found.append(tuning.measure(case, device, options.rounds))
                print(*tuning.lines(found[-1:]), sep="\n", flush=True)
            steps = tuned_steps.measure(found, make, device, options.rounds)
            print(*tuned_steps.lines(steps), sep="\n")
    content = tuned_steps.record(found, steps, measured.machine(device))
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two at once the second adds to the first one's
        content["layers"] = _before(file, device) | content["layers"]
        write_bytes(file, (json.dumps(content, indent=1) + "\n").encode())
    measured.forget()
    print(f"written to {printable(file)}")
    return 0


def _before(file: Path, device: object) -> dict[str, dict[str, object]]:
    """What the file has for other sizes, where it was made on the same set-up."""
    from cyclegan_fast.errors import TableError
    from cyclegan_fast.ops.reflect_conv2d import measured

    try:
        return measured.read(file, device) if file.exists() else {}  # type: ignore[arg-type]
    except TableError:
        return {}
