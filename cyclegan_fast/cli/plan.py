# SPDX-License-Identifier: MIT
"""``train --plan``: what would be trained with, and why; what memory and what time it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from cyclegan_fast._version import __version__
from cyclegan_fast.cli import banner
from cyclegan_fast.cli.progress import duration
from cyclegan_fast.cli.record import device_name
from cyclegan_fast.cli.run import training_pictures
from cyclegan_fast.data.resident import ResidentPictures
from cyclegan_fast.errors import printable, size_text
from cyclegan_fast.training import memory, runtime, walked
from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.precision import resolve_precision
from cyclegan_fast.training.trainer import Trainer

# Steps before the clock starts: on a GPU cuDNN searches, and the fourth is captured.
_WARMUP = {"cuda": 5, "cpu": 1}
_MOST_STEPS, _SECONDS = 20, 10.0


def show(config: TrainConfig, notes: list[str], ranks: int = 1) -> None:
    """Print the plan of a run, line by line; writes nothing.

    Args:
        config: valid options with a dataroot.
        notes: lines to show at the start.
        ranks: processes that the run will have, each with a batch of its own on a device of its
            own. The plan is made in one of them.

    Raises:
        DataError: the pictures cannot be trained on.
        ValueError: an option that cannot be trained with.
    """
    for line in _lines(config, notes, ranks):
        print(line, flush=True)


def _lines(config: TrainConfig, notes: list[str], ranks: int) -> Iterator[str]:
    with runtime.configured(config):
        data = training_pictures(config)
        steps = data.steps_per_epoch(config.batch_size * ranks)
        trainer = Trainer(config, steps_per_epoch=steps)
        there = memory.available(trainer.device)
        resident = ResidentPictures.of(
            data, trainer.device, trainer.networks.dtype, trainer.memory_format
        )
        size = 0 if isinstance(resident, str) else resident.nbytes
        yield f"cyclegan-fast {__version__} · torch {torch.__version__} · {device_name(trainer)}"
        yield f"data     {printable(config.dataroot)}  A {data.sizes['A']}  B {data.sizes['B']}"
        yield from (f"note     {note}" for note in notes)
        if ranks > 1:
            yield f"ranks    {banner.ranks_line(config, ranks)}"
        yield from (f"chosen   {s.name} {s.value}: {s.why}" for s in _settings(trainer))
        yield f"chosen   pictures {resident}"
        found = memory.predict(trainer, size, ranks=ranks)
        yield banner.memory_line(found, there)
        if not banner.fits(found, there):
            yield "note     that is more than there is; what would need less:"
            yield from _less(trainer, size, ranks)
            yield "time     not measured: a step would not fit"
            return
        yield from _time(trainer, steps, ranks)


def _settings(trainer: Trainer) -> Iterator[banner.Setting]:
    config, standard = trainer.config, TrainConfig()

    def why(option: str, reason: str) -> str:
        return reason if getattr(config, option) == getattr(standard, option) else "asked for"

    small = "upstream's, the paper's; more pictures a step change what is learnt"
    yield banner.Setting("batch", str(config.batch_size), why("batch_size", small))
    cut = why("crop_size", f"upstream's, out of load_size {config.load_size}")
    if config.preprocess in ("none", "scale_width"):
        yield banner.Setting("crop", "none", f"--preprocess {config.preprocess}")
    else:
        yield banner.Setting("crop", f"{config.crop_size}×{config.crop_size}", cut)
    for option, setting in banner.settings(trainer).items():
        if option == "cuda_graph" and trainer.not_captured:
            yield setting
        else:
            yield setting._replace(why=why(option, setting.why))
    off = "the default; it costs a forward more, and is asked for where memory is short"
    yield banner.Setting("checkpoint", config.checkpoint, why("checkpoint", off))


def _less(trainer: Trainer, pictures: int, ranks: int) -> Iterator[str]:
    """What other options would need."""
    for changes in _ways_out(trainer):
        found = memory.predict(trainer, pictures, ranks=ranks, **changes)
        if not isinstance(found, str):
            ((option, value),) = changes.items()
            yield f"less     {size_text(found.peak)} with --{option} {value}"


def _ways_out(trainer: Trainer) -> Iterator[dict[str, Any]]:
    config = trainer.config
    by_hand = not any(name.startswith("G") for name in walked.reasons(trainer.engine))
    if config.checkpoint == "off" and by_hand and not trainer.engine.arrangement.ordered:
        yield {"checkpoint": "blocks"}
    if trainer.precision.half is None:
        try:
            yield {"precision": resolve_precision("bf16", trainer.device).name}
        except ValueError:
            yield {"precision": "fp16"}
    if config.batch_size > 1:
        yield {"batch_size": config.batch_size // 2}
    if config.crop_size >= 256 and config.netG.startswith("resnet"):
        yield {"crop_size": config.crop_size // 8 * 4}


def _time(trainer: Trainer, steps: int, ranks: int) -> Iterator[str]:
    """Time a few steps on random pictures; say what an epoch takes at that."""
    config, device = trainer.config, trainer.device
    if config.preprocess in ("none", "scale_width"):
        yield "time     not measured: it follows the pictures, which keep their sizes"
        return

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def step() -> None:
        trainer.step(memory.pictures_like(config, lambda shape: torch.rand(shape) * 2 - 1))

    try:
        for _ in range(_WARMUP[device.type]):
            step()
        synchronize()
        count, began = 0, time.perf_counter()
        while count < _MOST_STEPS and time.perf_counter() - began < _SECONDS:
            step()
            count += 1
        synchronize()
    except torch.OutOfMemoryError:
        yield "time     not measured: a step did not fit; libraries take more than its tensors do"
        return
    seconds = (time.perf_counter() - began) / count
    one = " of one rank" if ranks > 1 else ""
    yield (
        f"time     {seconds:.3g} s a step, {config.batch_size / seconds:.3g} images/s: measured, "
        f"{count} step{'s' * (count > 1)}{one} on random pictures"
    )
    count_text = f"{steps:,} step{'s' * (steps > 1)}"
    exchange = "the exchange of gradients, " if ranks > 1 else ""
    yield (
        f"epoch    {duration(seconds * steps)} for {count_text}, {exchange}saves and samples come "
        "on top"
    )
    if device.type == "cuda":
        yield f"peak     {size_text(torch.cuda.max_memory_allocated(device))} in these steps"
