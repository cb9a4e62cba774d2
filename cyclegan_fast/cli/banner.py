# SPDX-License-Identifier: MIT
"""What `train` says before it starts: what was found, what was chosen, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from cyclegan_fast import backend, fusion
from cyclegan_fast._version import __version__
from cyclegan_fast.cli.record import device_name
from cyclegan_fast.errors import printable, size_text
from cyclegan_fast.training import walked
from cyclegan_fast.training.memory import Footprint, available
from cyclegan_fast.training.precision import describe
from cyclegan_fast.training.schedule import for_ranks

if TYPE_CHECKING:
    from cyclegan_fast.data.unpaired import UnpairedDataset
    from cyclegan_fast.training.config import TrainConfig
    from cyclegan_fast.training.reporter import RunInfo
    from cyclegan_fast.training.trainer import Trainer

# Of a step, in the order of its work; the last ones work in full precision.
OPS = ("instance_norm_act", "reflect_conv2d", "generator_loss", "lsgan_loss")
OPS_OF_FULL_PRECISION = ("augment", "pool_exchange", "adam")


def lines(
    info: RunInfo,
    data: UnpairedDataset,
    samples: str,
    notes: list[str],
    found: Footprint | str,
) -> list[str]:
    """Return the banner.

    Args:
        info: of the run about to start.
        data: the training pictures.
        samples: where the sample pictures come from, in words.
        notes: further lines of interest, e.g. on old spellings.
        found: what `memory.predict` says of the run.
    """
    trainer = info.trainer
    config = trainer.config
    sizes = data.sizes
    phase = config.phase
    parameters = sum(p.numel() for p in trainer.networks.G_A.parameters())
    judges = sum(p.numel() for p in trainer.networks.D_A.parameters())
    text = [
        f"cyclegan-fast {__version__} · torch {torch.__version__} · {device_name(trainer)}",
        f"data     {printable(config.dataroot)}  {phase}A {sizes['A']}  {phase}B {sizes['B']}  "
        f"({samples})",
        f"model    {config.netG} ngf {config.ngf} ({_millions(parameters)} parameters, twice) · "
        f"{config.netD} discriminator ({_millions(judges)}, twice) · {_picture_size(trainer)} · "
        f"batch {config.batch_size} · seed {config.seed}",
        f"plan     {info.total_steps:,} steps of {info.steps_per_epoch:,} an epoch, "
        f"lr {config.lr:g} {_decay(trainer, info)}",
    ]
    if trainer.ranks is not None:
        ranks = trainer.ranks
        text.append(f"ranks    {ranks_line(config, ranks.count, ranks.backend)}")
    text += [f"chosen   {line}" for line in choices(trainer)]
    text.append(f"chosen   pictures {info.pictures}")
    there = available(trainer.device)
    text.append(memory_line(found, there))
    if not fits(found, there):
        text.append(
            "note     that is more than there is. Less is needed with --checkpoint blocks, "
            "--precision bf16, a smaller --batch_size or a smaller --crop_size; --plan says how "
            "much"
        )
    if info.start_step:
        text.append(f"resumed  at step {info.start_step:,} of {info.total_steps:,}")
    text += [f"note     {note}" for note in (*notes, *info.notes)]
    text += [
        f"note     {count} pictures {note}, e.g. {printable(data.report.examples[note])}"
        for note, count in data.report.notes.items()
    ]
    text += [f"skipped  {bad}" for bad in data.report.bad[:8]]
    if len(data.report.bad) > 8:
        text.append(f"skipped  and {len(data.report.bad) - 8} more pictures")
    text.append(f"run      {printable(info.run_dir)}")
    return text


class Setting(NamedTuple):
    """An option that may be "auto": what it is called, what was made of it, and why."""

    name: str
    value: str
    why: str


def settings(trainer: Trainer) -> dict[str, Setting]:
    """Return what "auto" means for a run, by option; the reasons are those of auto."""
    on_gpu = trainer.device.type == "cuda"
    last = trainer.memory_format == torch.channels_last
    precision = {
        "fp32": "this is a CPU; on one with AMX --precision bf16 is faster",
        "bf16": "this GPU has it in hardware, and it needs no loss scaling",
        "fp16": "this GPU has no bf16; losses are scaled",
    }[trainer.precision.name]
    return {
        "device": Setting(
            "device", str(trainer.device), "the first GPU" if on_gpu else "no GPU was found"
        ),
        "precision": Setting(
            "precision", describe(trainer.precision, trainer.config.tf32), precision
        ),
        "memory_format": Setting(
            "layout",
            "channels_last" if last else "contiguous",
            "convolutions and fused ops are fastest in it"
            if last
            else "PyTorch's own norms and pads are fastest in it",
        ),
        "merge": Setting("passes", *_passes(trainer)),
        "cuda_graph": Setting(
            "graph",
            "off" if trainer.not_captured else "on",
            trainer.not_captured or "a replay of the whole step is one launch",
        ),
    }


def choices(trainer: Trainer) -> list[str]:
    """Return one line for each thing that was left to choose, with the reason.

    Whether the step is replayed as a CUDA graph is always said: no other choice is as slow where it
    is a wrong one.
    """
    config, device = trainer.config, trainer.device
    found = settings(trainer)
    chosen = [
        f"{found[option].name} {found[option].value}: {found[option].why}"
        for option in ("device", "precision", "memory_format", "merge")
        if getattr(config, option) == "auto"
    ]
    graph = found["cuda_graph"]
    asked = config.cuda_graph != "auto"
    chosen.append(f"{graph.name} {graph.value}: {'asked for' if asked else graph.why}")
    if config.join == "auto" and trainer.engine.arrangement.by_hand:
        for name, why in walked.reasons(trainer.engine).items():
            chosen.append(f"{name} runs under autograd: {why}")
    if not config.accelerate:
        return [*chosen, "fused ops none: --no_accelerate"]
    counts = [
        len(fusion.explain(net).fused) for net in (trainer.networks.G_A, trainer.networks.D_A)
    ]
    chosen.append(f"fused ops {counts[0]} in each generator, {counts[1]} in each discriminator")
    full = trainer.networks.dtype
    dtypes = dict.fromkeys(OPS, trainer.precision.half or full)
    dtypes |= dict.fromkeys(OPS_OF_FULL_PRECISION, full)
    served: dict[str, list[str]] = {}
    for op, dtype in dtypes.items():
        served.setdefault(backend.resolve(op, device.type, dtype), []).append(op)
    for name, stems in served.items():
        first = stems[0]
        reason = _why_reference(first, device.type, dtypes[first]) if name == "reference" else ""
        why = f": {reason}" if reason else ""
        chosen.append(f"kernels {name} for {', '.join(stems)}{why}")
    return chosen


def ranks_line(config: TrainConfig, count: int, through: str = "") -> str:
    """Return what to say about a run's processes.

    Args:
        config: of the run.
        count: how many there are.
        through: what their gradients go through; "" leaves it out.
    """
    size, rate = config.batch_size, for_ranks(config, count).lr
    return (
        f"{count}{f' through {through}' if through else ''} · global batch {size * count} "
        f"({size} × {count}) · lr_rule {config.lr_rule}: lr {rate:g} · "
        f"a pool of {config.pool_size} pictures on each"
    )


def _passes(trainer: Trainer) -> tuple[str, str]:
    arrangement = trainer.engine.arrangement
    if arrangement.ordered:
        return "one by one", "dropout, batch norm and buffers see which pictures come together"
    if arrangement.merge:
        paired = "; norms of A and B in one launch" if arrangement.pair else ""
        joined = arrangement.by_hand and not arrangement.checkpoint
        once = "; each weight gradient once in a step" if joined else ""
        return "at once", (
            "fake with identity; of a discriminator generated, real and pooled pictures"
            f"{once}{paired}"
        )
    return "one by one", "at this size pictures at once would leave the GPU's cache"


def fits(found: Footprint | str, there: int | None) -> bool:
    """Whether a run's memory, see `memory_line`, is known to be there, or not known at all."""
    return isinstance(found, str) or there is None or found.peak <= there


def memory_line(found: Footprint | str, there: int | None) -> str:
    """Return what to say about a run's memory.

    Args:
        found: of `memory.predict`.
        there: of `memory.available`.
    """
    if isinstance(found, str):
        return f"memory   not predicted: {found}"
    parts = [f"{name} {size_text(size)}" for name, size in found.standing.items()]
    parts.append(f"activations, gradients and buffers {size_text(found.step)}")
    room = "" if there is None else f"; {size_text(there)} there"
    return f"memory   {size_text(found.peak)} predicted: {', '.join(parts)}{room}"


def _why_reference(op: str, device_type: str, dtype: torch.dtype) -> str:
    if backend.policy() == "reference":
        return "asked for"
    return backend.why_not(op, "native", device_type, dtype) or "first choice"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def _picture_size(trainer: Trainer) -> str:
    config = trainer.config
    if config.preprocess in ("none", "scale_width"):
        return "pictures of their own size"
    size = f"{config.crop_size}×{config.crop_size}"
    scaled = config.preprocess == "resize_and_crop" and config.load_size != config.crop_size
    return f"{size} out of {config.load_size}×{config.load_size}" if scaled else size


def _decay(trainer: Trainer, info: RunInfo) -> str:
    config = trainer.config
    if config.lr_policy != "linear":
        return f"with policy {config.lr_policy}"
    if not config.n_epochs_decay:
        return "constant"
    start = config.n_epochs * info.steps_per_epoch
    if start >= info.total_steps:
        return "constant"
    return f"falling to 0 from step {start:,} on"
