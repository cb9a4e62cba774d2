# SPDX-License-Identifier: MIT
"""``cyclegan-fast train``: CycleGAN on your own pictures."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from cyclegan_fast.cli import PROGRAM
from cyclegan_fast.cli.arguments import modern, parse, take_config, yaml_flags
from cyclegan_fast.cli.failures import UsageError
from cyclegan_fast.errors import printable
from cyclegan_fast.training.config import TrainConfig

ABOUT = """Train CycleGAN on the pictures in DATAROOT/trainA and DATAROOT/trainB, unpaired.

Options and defaults are those of pytorch-CycleGAN-and-pix2pix, --no_flip and --no_dropout among
them. A YAML file of options (--config) is read first, the command line wins."""


@dataclass(frozen=True)
class TrainOptions:
    """What to train, on what, and how."""

    config: Path | None = None
    """YAML file of options, read before the command line."""
    resume: bool = False
    """Go on from the newest save; alone it takes the run saved last, with all its options."""
    evaluate: int = 32
    """Test pictures measured at the end; 0 for none."""
    threads: int = 0
    """Threads of the CPU for computing; 0 for PyTorch's choice, all cores. Fewer are much faster
    where other programs keep the cores busy."""
    gpus: int = 1
    """GPUs of this machine to train on, with one process each; --batch_size is of each of them. For
    several machines see docs/scaling.md."""
    plan: bool = False
    """Print what would be trained with and why, what memory and time it takes, and stop: nothing is
    written, a few steps are tried."""
    print_config: bool = False
    """Print all options as YAML and stop."""
    training: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    options, notes = read_options(arguments)
    config = dataclasses.replace(
        options.training, continue_train=options.training.continue_train or options.resume
    )
    for name, least in (("evaluate", 0), ("threads", 0), ("gpus", 1)):
        if (value := getattr(options, name)) < least:
            raise UsageError(f"--{name} must be {least} or more, got {value}")
    if options.print_config:
        from cyclegan_fast.cli.run import as_yaml

        print(as_yaml(config.validate().to_dict()), end="")
        return 0
    if not config.dataroot:
        raise UsageError(
            "--dataroot is missing: the folder that holds trainA/ and trainB/ with the pictures of "
            f"the two domains. Without pictures of your own, begin with: {PROGRAM} demo"
        )
    config = config.validate()
    if "RANK" in os.environ:
        # torchrun prints, for the rank that failed first, what this decorator writes down.
        from torch.distributed.elastic.multiprocessing.errors import record

        status = record(_train)(config, options, notes)
        return 0 if status is None else status
    if options.gpus > 1 and not options.plan:
        from cyclegan_fast.cli.launch import start

        start(options.gpus, config.device, arguments)
    return _train(config, options, notes)


def read_options(arguments: list[str]) -> tuple[TrainOptions, list[str]]:
    """Return the options of a command line, and what to tell about its older spellings."""
    arguments, notes = modern(arguments)
    flags: list[str] = []
    _, path = take_config(arguments)
    if {"--resume", "--continue_train", "--continue-train"} & set(arguments):
        run = _run_to_resume(arguments)
        from cyclegan_fast.cli.run import CONFIG_FILE

        notes.append(f"going on with {printable(run)}")
        if (run / CONFIG_FILE).is_file():
            flags = [*yaml_flags(run / CONFIG_FILE, TrainConfig), "--name", run.name]
    if path is not None:
        flags += yaml_flags(path, TrainOptions)
    return parse(TrainOptions, [*flags, *arguments], "train", ABOUT), notes


def _run_to_resume(arguments: list[str]) -> Path:
    """Return the folder of the run that is named, or of the one saved last."""
    from cyclegan_fast.training.checkpoint import saves

    folder = Path(_value(arguments, "checkpoints_dir") or TrainConfig.checkpoints_dir)
    name = _value(arguments, "name")
    if name is not None:
        return folder / name
    runs = [path for path in folder.glob("*") if path.is_dir() and saves(path)]
    if not runs:
        raise UsageError(
            f"--resume: no run with a save in {printable(folder)}. Give --checkpoints_dir and "
            "--name of the run to go on with."
        )
    return max(runs, key=lambda run: saves(run)[0][1].stat().st_mtime_ns)


def _value(arguments: list[str], option: str) -> str | None:
    """Return the last value given to an option, in either spelling."""
    found = None
    for place, token in enumerate(arguments):
        name, equals, value = token.partition("=")
        if name.startswith("--") and name[2:].replace("-", "_") == option:
            following = arguments[place + 1] if place + 1 < len(arguments) else None
            found = value if equals else following
    return found


def resume_line(config: TrainConfig, gpus: int = 1) -> str:
    """Return what to type to go on with a run."""
    words = [PROGRAM, "train", "--resume", "--name", config.name]
    if config.checkpoints_dir != TrainConfig.checkpoints_dir:
        words += ["--checkpoints_dir", config.checkpoints_dir]
    if gpus > 1:
        words += ["--gpus", str(gpus)]
    return shlex.join(words)


def _train(config: TrainConfig, options: TrainOptions, notes: list[str]) -> int:
    from cyclegan_fast.cli.finish import finish
    from cyclegan_fast.cli.plan import show
    from cyclegan_fast.cli.run import Run, cpu_threads
    from cyclegan_fast.training.joining import leads

    with cpu_threads(options.threads):
        if options.plan:
            if leads():
                show(config, notes, options.gpus)
            return 0
        run = Run(config, notes, sys.argv)
        result = run.train()
        if not leads():
            return result.exit_code
        if result.finished:
            finish(run, result, options.evaluate)
            return 0
    print(f"stopped  at step {result.step:,} of {result.total_steps:,}; saved {result.saved}")
    print(f"resume   {resume_line(config, options.gpus)}")
    return result.exit_code
