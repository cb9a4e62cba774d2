# SPDX-License-Identifier: MIT
"""The training loop, read from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch

from cyclegan_fast import backend
from cyclegan_fast._version import __version__
from cyclegan_fast.data.parts import part_of
from cyclegan_fast.training import runtime
from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.joining import join
from cyclegan_fast.training.precision import resolve_precision
from cyclegan_fast.training.ranks import Ranks, agreed
from cyclegan_fast.training.reporter import Reporter, RunInfo, RunResult
from cyclegan_fast.training.session import Session
from cyclegan_fast.training.signals import StopRequested, StopSignals
from cyclegan_fast.training.trainer import Trainer

# Where a rank finds its pictures and works; the rest of the options is the run's.
_OF_A_RANK = {"dataroot", "checkpoints_dir", "device", "num_threads"}


class Data(Protocol):
    """Where batches come from: `cyclegan_fast.data.UnpairedDataset`, or anything like it."""

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches in an epoch."""

    def batch(self, step: int, batch_size: int) -> Mapping[str, Any]:
        """Return {"A": [N, C, H, W], "B": [N, C, H, W]}, a function of the step.

        On several ranks it is asked for the joined batch, and each keeps its part; a method `part`
        like `UnpairedDataset`'s spares it the others' pictures.
        """


def train(
    config: TrainConfig,
    data: Data,
    reporter: Reporter | None = None,
    samples: Mapping[str, Any] | None = None,
) -> RunResult:
    """Train until the last epoch, max_steps or a signal; save along the way and at the end.

    Started by torchrun, it trains together with the other processes; rank 0 writes and reports.

    Args:
        config: the options; config.run_dir holds all that is written.
        data: the pictures.
        reporter: hears of everything; None for silence.
        samples: {"A": ..., "B": ...}, the pictures translated every display_freq images; None for
            the first batch of the data.

    Returns:
        How it ended; its `exit_code` is for the shell.

    Raises:
        ValueError: an option that cannot be trained with.
        DataError: pictures cannot be read; what was trained so far is saved.
        NonFiniteError: a loss or a weight became infinite or not a number.
        LossScaleError: fp16 training stands still.
        CheckpointError: the run's folder holds another run, or cannot be written.
        RanksDifferError: a rank has other options or pictures than rank 0.
        RankLostError: another rank has ended.
        CaptureError: the step cannot be captured; see `Trainer.step`.
    """
    with (
        join(config.validate().device) as ranks,
        runtime.configured(config, ranks.rank if ranks else 0),
        StopSignals(hurry=ranks is None) as signals,
        backend.record() as served,
    ):
        if ranks is not None:
            ranks.compare(_facts(config, data, ranks))
            data = part_of(data, ranks.rank, ranks.count)
        leads = ranks is None or ranks.rank == 0
        reporter = reporter if reporter and leads else Reporter()
        started = epoch_started = time.perf_counter()
        steps_per_epoch = data.steps_per_epoch(config.batch_size)
        trainer = Trainer(
            config, steps_per_epoch=steps_per_epoch, ranks=ranks, tell=reporter.on_message
        )
        session = Session(trainer, reporter, config.total_steps(steps_per_epoch))
        loader, pictures, size = _loader(config, data, trainer, session.total)
        info = RunInfo(
            trainer, config.run_dir, trainer.step_count, session.total, steps_per_epoch, pictures,
            session.notes, size,
        )  # fmt: skip
        reporter.on_start(info)
        samples = samples or data.batch(0, config.batch_size)
        if trainer.step_count == 0 and leads:
            reporter.on_sample(0, trainer.sample(samples))
        signal: int | None = None
        while trainer.step_count < session.total:
            batch, failure = _next(loader, signals, session)
            signal = agreed(ranks, signals.received, failure, session.save_last)
            if signal is not None:
                break
            epoch, images_before = trainer.epoch, trainer.images
            losses = trainer.step(batch)
            reporter.on_progress(trainer.step_count)

            def due(frequency: int, before: int = images_before) -> bool:
                return trainer.images // frequency > before // frequency

            last = trainer.step_count == session.total
            if due(config.print_freq) or last:
                session.report(epoch, losses)
            if leads and (due(config.display_freq) or last):
                reporter.on_sample(trainer.step_count, trainer.sample(samples))
            epoch_ends = trainer.step_count % steps_per_epoch == 0
            if epoch_ends:
                reporter.on_epoch(epoch, time.perf_counter() - epoch_started)
                epoch_started = time.perf_counter()
            lasting = epoch_ends and epoch % config.save_epoch_freq == 0
            if lasting:
                session.save_weights(epoch)
            if lasting or due(config.save_latest_freq):
                session.save()
        session.save_last()
        if signal is None:
            loader.close()  # after a signal its threads may hang, and the process is leaving
        if ranks is not None:
            trainer.release_graph()
        result = RunResult(
            trainer=trainer,
            run_dir=config.run_dir,
            step=trainer.step_count,
            total_steps=session.total,
            saved=session.saved,
            signal=signal,
            seconds=time.perf_counter() - started,
            waited=session.clock.waited,
            served=dict(served),
        )
    reporter.on_end(result)
    return result


def _next(
    loader: Iterator[Any], signals: StopSignals, session: Session
) -> tuple[Mapping[str, Any], Exception | None]:
    """Return the next batch, empty after a signal, and why there is none."""
    try:
        with signals.waiting(), session.clock.waiting():
            return next(loader), None
    except StopRequested:
        return {}, None
    except Exception as error:
        return {}, error


def _facts(config: TrainConfig, data: Any, ranks: Ranks) -> dict[str, Any]:
    """Return what must be the same on every rank, in words."""
    facts = {f"--{name}": v for name, v in config.to_dict().items() if name not in _OF_A_RANK}
    facts |= {"cyclegan_fast": __version__, "torch": torch.__version__}
    facts["precision"] = resolve_precision(config.precision, ranks.device).name
    facts["steps per epoch"] = data.steps_per_epoch(config.batch_size)
    return facts | (data.inventory() if hasattr(data, "inventory") else {})


def _loader(config: TrainConfig, data: Any, trainer: Trainer, stop: int) -> tuple[Any, str, int]:
    """Return what yields batches, where it makes them, and the bytes that pictures take there."""
    from cyclegan_fast.data.loader import Loader
    from cyclegan_fast.data.resident import ResidentPictures

    batches: Any = ResidentPictures.of(
        data, trainer.device, trainer.networks.dtype, trainer.memory_format
    )
    threads, where, taken = 0, str(batches), 0
    if isinstance(batches, ResidentPictures):
        threads, taken = int(batches.gathers), batches.nbytes
    else:
        threads, where = config.num_threads, f"read by {config.num_threads} threads: {batches}"
        batches = data
    start, size = trainer.step_count, config.batch_size
    pinned = trainer.device.type == "cuda"
    return Loader(batches, size, start, stop_step=stop, threads=threads, pin=pinned), where, taken
