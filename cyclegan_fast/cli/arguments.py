# SPDX-License-Identifier: MIT
"""From what was typed to options: YAML files, upstream's older spellings, one parser for all."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cyclegan_fast.cli import PROGRAM
from cyclegan_fast.cli.failures import UsageError
from cyclegan_fast.errors import printable

Options = TypeVar("Options")

# Older spellings, from git history of pytorch-CycleGAN-and-pix2pix: until when it had them.
RENAMED = {
    "loadSize": "load_size",  # 2019-01
    "fineSize": "crop_size",
    "batchSize": "batch_size",
    "nThreads": "num_threads",
    "resize_or_crop": "preprocess",
    "which_direction": "direction",
    "which_epoch": "epoch",
    "which_model_netG": "netG",
    "which_model_netD": "netD",
    "identity": "lambda_identity",
    "niter": "n_epochs",  # 2019-12
    "niter_decay": "n_epochs_decay",
}
# On one device a batch norm is synchronised with itself.
RENAMED_VALUES = {
    ("lr_policy", "lambda"): "linear",
    ("norm", "syncbatch"): "batch",
    ("norm", "sync_batch"): "batch",
    ("norm", "sync_instance"): "instance",
}
# Options about its web pages and servers: accepted, so that old command lines run, and named.
WITHOUT_EFFECT = {
    "display_id": 1,
    "display_port": 1,
    "display_server": 1,
    "display_env": 1,
    "display_ncols": 1,
    "display_winsize": 1,
    "update_html_freq": 1,
    "wandb_project_name": 1,
    "use_wandb": 0,
    "no_html": 0,
    "verbose": 0,
    "isTrain": 0,
}
# Options that chose between programs: one value is what this program does.
ONE_VALUE = {
    "model": (
        "cycle_gan",
        "this package trains CycleGAN only. Stay with upstream for pix2pix; "
        "cyclegan_fast.accelerate speeds its generator too",
    ),
    "dataset_mode": ("unaligned", "pictures are unpaired here: trainA/ and trainB/"),
    "epoch": ("latest", "--resume goes on from the newest save; older ones stay in the run folder"),
    "load_iter": ("0", "--resume goes on from the newest save; older ones stay in the run folder"),
    "suffix": ("", "write it into --name"),
}


def modern(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return arguments in today's spelling, and what to tell about those that were not.

    Args:
        arguments: as typed, for upstream's train.py of any year or for this program.

    Raises:
        UsageError: upstream's option for something that this program does not do.
    """
    result: list[str] = []
    notes: list[str] = []
    todo = list(arguments)
    while todo:
        token = todo.pop(0)
        if not token.startswith("--"):
            result.append(token)
            continue
        typed, equals, value = token[2:].partition("=")
        name = typed.replace("-", "_")
        if name in RENAMED:
            notes.append(f"--{typed} is called --{RENAMED[name]} now")
            name = RENAMED[name]
            token = f"--{name}{equals}{value}"

        def argument(inline: str | None = value if equals else None) -> str:
            if inline is not None:
                return inline
            return todo.pop(0) if todo else ""

        if name == "no_lsgan":
            result += ["--gan_mode", "vanilla"]
        elif name == "gpu_ids":
            result += ["--device", _device(argument(), notes)]
        elif name in WITHOUT_EFFECT:
            if WITHOUT_EFFECT[name]:
                argument()
            notes.append(f"--{typed} has no effect here")
        elif name in ONE_VALUE:
            accepted, advice = ONE_VALUE[name]
            if (given := argument()) != accepted:
                raise UsageError(f"--{typed} {given}: {advice}")
        elif any(option == name for option, _ in RENAMED_VALUES):
            given = argument()
            meant = RENAMED_VALUES.get((name, given), given)
            if meant != given:
                notes.append(f"--{typed} {given} is called {meant} here")
            result += [f"--{name}", meant]
        else:
            result.append(token)
    return result, notes


def _device(ids: str, notes: list[str]) -> str:
    numbers = ids.split(",")
    if not all(number.strip().lstrip("-").isdigit() for number in numbers):
        raise UsageError(f"--gpu_ids must be numbers such as 0 or -1 (the CPU), got {ids!r}")
    first = int(numbers[0])
    if first < 0:
        return "cpu"
    if len(numbers) > 1:
        notes.append(f"cuda:{first} of --gpu_ids {ids} is used; --gpus N trains on several")
    return f"cuda:{first}"


def yaml_flags(path: Path, options: type) -> list[str]:
    """Return a YAML file's entries as flags for the same parser that reads the command line.

    Values are taken as text (no 1e-3 that becomes a string, no "on" that becomes true): the
    options' types decide what they mean.

    Args:
        path: a file of ``option: value`` lines.
        options: the dataclass whose options it may hold.

    Raises:
        UsageError: no such file, no YAML, or a key that is no option.
    """
    import yaml

    if not path.is_file():
        raise UsageError(f"--config {printable(path)}: there is no such file")
    try:
        entries = yaml.load(path.read_text("utf-8"), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{printable(path)}: no YAML ({' '.join(str(error).split())})") from None
    if entries in (None, ""):
        return []
    if not isinstance(entries, dict):
        raise UsageError(f"{printable(path)}: must hold lines such as 'batch_size: 4'")
    types = dict(option_types(options))
    flags: list[str] = []
    for key, value in entries.items():
        name = RENAMED.get(str(key), str(key)).replace("-", "_")
        negative = name.startswith("no_") and types.get(name[3:]) is bool
        kind = bool if negative else types.get(name)
        if kind is None:
            near = difflib.get_close_matches(name, types, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UsageError(f"{printable(path)}: {key} is no option{hint}")
        if not isinstance(value, str):
            raise UsageError(f"{printable(path)}: {key} must be one value, got {value!r}")
        if kind is bool:
            truth = _truth(value, f"{printable(path)}: {key}")
            plain = name[3:] if negative else name
            flags.append(f"--{plain}" if truth != negative else f"--no_{plain}")
        else:
            flags += [f"--{name}", RENAMED_VALUES.get((name, value), value)]
    return flags


def _truth(value: str, where: str) -> bool:
    known = {"true": True, "yes": True, "on": True, "1": True}
    known |= {"false": False, "no": False, "off": False, "0": False}
    if value.lower() not in known:
        raise UsageError(f"{where} must be true or false, got {value!r}")
    return known[value.lower()]


def option_types(options: type) -> Iterator[tuple[str, Any]]:
    """Yield (name, type) of a dataclass's options, those of nested dataclasses included."""
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from option_types(typing.cast(type, kind))
        else:
            yield field.name, kind


def take_config(arguments: list[str]) -> tuple[list[str], Path | None]:
    """Split ``--config FILE`` off the arguments."""
    rest: list[str] = []
    path = None
    todo = list(arguments)
    while todo:
        token = todo.pop(0)
        if token == "--config":
            if not todo:
                raise UsageError("--config needs the name of a YAML file")
            path = Path(todo.pop(0))
        elif token.startswith("--config="):
            path = Path(token.partition("=")[2])
        else:
            rest.append(token)
    return rest, path


def parse(options: type[Options], arguments: Sequence[str], command: str, about: str) -> Options:
    """Return the options that the arguments say; prints and exits on --help and on wrong ones.

    Args:
        options: a dataclass with defaults.
        arguments: in today's spelling.
        command: the command's name.
        about: what it does, for --help.
    """
    import tyro

    return tyro.cli(
        options,
        args=list(arguments),
        prog=f"{PROGRAM} {command}",
        description=about,
        use_underscores=True,
    )
