# SPDX-License-Identifier: MIT
"""``cyclegan-fast demo``: paint a data set, train on it, measure, report; no GPU needed."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclegan_fast.cli.arguments import parse
from cyclegan_fast.cli.failures import FAILED, UsageError
from cyclegan_fast.training.config import TrainConfig

if TYPE_CHECKING:
    from cyclegan_fast.report.evaluation import Direction

ABOUT = """Train a small CycleGAN from nothing: summer and winter landscapes, painted by the package
itself, unpaired. Minutes on two CPU cores. The test scenes exist in both seasons, hidden from
training, so the result can be measured; the exit status is 1 if it is not good enough."""

NAMES = ("summer", "winter")
SIZE = 64
STEPS = 1000
# The gate: both directions, and better than matching colours on both measures.
LEAST_PSNR = 17.0
MOST_SWD = 0.05


@dataclass(frozen=True)
class DemoOptions:
    """Where, how long and with which luck."""

    out: Path = Path("runs/demo")
    """Folder of the run; one of the demo's own that is there already is replaced."""
    seed: int = 0
    """Seed of the pictures, the initial weights and the order of training."""
    steps: int = STEPS
    """Training steps; fewer are quicker and worse."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int = 1
    """Threads of the CPU; 0 for all cores. Two take three quarters of the time of one on such small
    pictures, and many times as long where another program keeps a core busy."""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    options = parse(DemoOptions, arguments, "demo", ABOUT)
    for name, least in (("steps", 1), ("seed", 0), ("threads", 0)):
        if (value := getattr(options, name)) < least:
            raise UsageError(f"--{name} must be {least} or more, got {value}")
    from cyclegan_fast.cli.run import cpu_threads

    with cpu_threads(options.threads):
        return demo(options, sys.argv)


def settings(options: DemoOptions, dataroot: Path, steps_per_epoch: int) -> TrainConfig:
    """Return the options of the demo's run; `train` takes every one of them.

    A small network learns these pictures at four times the learning rate of the paper's large one.
    The discriminators judge patches of 34 pixels, half a picture: with the paper's 70, which is all
    of it, trees and houses came out without their snow. The moving average of the weights takes out
    what the last steps happened to do.
    """
    epochs = -(-options.steps // steps_per_epoch)
    constant = max(1, epochs // 2)
    return TrainConfig(
        dataroot=str(dataroot),
        checkpoints_dir=str(options.out.parent),
        name=options.out.name,
        netG="resnet_2blocks",
        ngf=16,
        ndf=16,
        netD="n_layers",
        n_layers_D=2,
        preprocess="none",
        load_size=SIZE,
        crop_size=SIZE,
        batch_size=2,
        lr=8e-4,
        ema=0.99,
        n_epochs=constant,
        n_epochs_decay=epochs - constant,
        max_steps=options.steps,
        print_freq=20,
        display_freq=200,
        save_latest_freq=10**9,
        save_epoch_freq=10**9,
        device=options.device,
        seed=options.seed,
    ).validate()


def demo(options: DemoOptions, command: list[str]) -> int:
    """Make the pictures, train, measure and report; returns the exit status."""
    from cyclegan_fast.cli.finish import finish, measure, table
    from cyclegan_fast.cli.run import Run
    from cyclegan_fast.data import seasons

    began = time.perf_counter()
    make_room(options.out)
    data = seasons.write(options.out / "seasons", size=SIZE, seed=options.seed)
    painted = time.perf_counter() - began
    config = settings(options, data, steps_per_epoch=200)
    notes = [f"the pictures were painted in {painted:.1f} s; delete {options.out} at will"]
    run = Run(config, notes, command, NAMES)
    result = run.train()
    if not result.finished:
        print(f"stopped  at step {result.step}; start the demo again to begin anew")
        return result.exit_code
    measured = measure(run, result, count=64, paired=True)
    print(table(measured))
    verdict = judge(measured)
    print(f"{'PASS' if verdict['passed'] else 'FAIL':<8} {verdict['text']}")
    for line in verdict["lines"]:
        print(f"         {line}")
    finish(
        run,
        result,
        count=64,
        title="Summer and winter, unpaired",
        verdict=verdict,
        measured=measured,
    )
    print(f"took     {time.perf_counter() - began:.0f} s")
    return 0 if verdict["passed"] else FAILED


def make_room(out: Path) -> None:
    """Remove an earlier demo from a folder, and nothing else.

    Raises:
        UsageError: the folder holds something else.
    """
    import shutil

    from cyclegan_fast.errors import printable

    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out.is_dir() and (out / "seasons" / "seasons.json").is_file()):
        raise UsageError(
            f"--out {printable(out)} exists and holds no demo. Name another folder, or remove it."
        )
    shutil.rmtree(out)


def judge(measured: list[Direction]) -> dict[str, Any]:
    """Return whether the run is good enough, and the figures that say so."""
    complaints = []
    for direction in measured:
        psnr, swd = (direction.table[metric] for metric in ("psnr", "patch_swd"))
        ours, match = "this run", "colour match"
        if not psnr[ours] >= LEAST_PSNR:
            complaints.append(f"{direction.name}: PSNR {psnr[ours]:.2f} dB is below {LEAST_PSNR}")
        if not swd[ours] <= MOST_SWD:
            complaints.append(f"{direction.name}: patch-SWD {swd[ours]:.3f} is above {MOST_SWD}")
        if not psnr[ours] > psnr[match]:
            complaints.append(f"{direction.name}: PSNR no better than matching colours")
        if not swd[ours] < swd[match]:
            complaints.append(f"{direction.name}: patch-SWD no better than matching colours")
    if complaints:
        advice = f"Fewer steps than {STEPS}, or another --seed or machine, can do this."
        return {
            "passed": False,
            "text": "The translation is not good enough.",
            "lines": [*complaints, advice],
        }
    return {
        "passed": True,
        "text": "The translation beats matching colours in both directions, on both measures.",
        "lines": [
            f"Demanded were PSNR ≥ {LEAST_PSNR:g} dB and patch-SWD ≤ {MOST_SWD:g} both ways."
        ],
    }
