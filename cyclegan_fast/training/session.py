# SPDX-License-Identifier: MIT
"""One start of a run: where it goes on, what it reports, when it saves, what if it cannot."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclegan_fast.errors import CheckpointError
from cyclegan_fast.training import checkpoint, rank_state
from cyclegan_fast.training.metrics_log import FILE_NAME, MetricsLog
from cyclegan_fast.training.ranks import first_does
from cyclegan_fast.training.reporter import Reporter, StepStats
from cyclegan_fast.training.trainer import Trainer

_SAVE_TRIES = 3


class Clock:
    """Time since the last report, and how much of it was spent waiting for pictures.

    Attributes:
        waited: seconds spent waiting from the beginning.
    """

    def __init__(self) -> None:
        self.waited = 0.0
        self.restart(0)

    def restart(self, images: int) -> None:
        """Begin a new interval, at a number of images."""
        self._since, self._images = time.perf_counter(), images
        self._waited_before = self.waited

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the block as waiting."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - began

    def read(self, images: int) -> tuple[float, float]:
        """Return images per second and the share of waiting since `restart`."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        waited = self.waited - self._waited_before
        return (images - self._images) / seconds, min(1.0, waited / seconds)


class Session:
    """Reports and saves of one start of a run.

    Args:
        trainer: fresh; with config.continue_train it is put where the newest good save left off.
            Of several ranks, all have a session; rank 0's alone touches the folder.
        reporter: is told.
        total: steps of the whole run.

    Raises:
        CheckpointError: the run's folder holds saves and config.continue_train is off, or none of
            them is intact, or it cannot be written.

    Attributes:
        notes: lines on the resumption.
        saved: the newest save, or None.
    """

    def __init__(self, trainer: Trainer, reporter: Reporter, total: int) -> None:
        config = trainer.config
        self.total = total
        self.clock = Clock()
        self.notes: list[str] = []
        self.saved: Path | None = None
        self._trainer, self._reporter, self._ranks = trainer, reporter, trainer.ranks
        self._run_dir = config.run_dir
        self._keep = checkpoint.Keep(
            config.keep_last, 1 if config.save_by_iter else config.keep_every
        )
        self._failures = 0
        self._log: MetricsLog | None = None  # of rank 0
        loaded = first_does(self._ranks, self._begin)
        if loaded is not None and self._log is None:
            trainer.load_state_dict(loaded.state)
        self._saved_step = trainer.step_count
        self.clock.restart(trainer.images)

    def _begin(self) -> checkpoint.Loaded | None:
        """Take over the run's folder; return the save that the run goes on from."""
        loaded = self._resume()
        if loaded is not None:
            self.saved = loaded.path
            self.notes += loaded.notes
        self._log = self._open_log(loaded.extra.get("log_bytes", 0) if loaded else 0)
        return loaded

    def _resume(self) -> checkpoint.Loaded | None:
        run_dir = self._run_dir
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"cannot make the run's folder {run_dir}: {error.strerror}. Make room or rights "
                "there, or choose another --checkpoints_dir."
            ) from error
        checkpoint.clean(run_dir)
        if not self._trainer.config.continue_train:
            found = checkpoint.saves(run_dir)
            if found:
                raise CheckpointError(
                    f"{run_dir} holds a run of {found[0][0]} steps. Use --continue_train to go on "
                    "with it, or another --name for a new one."
                )
            return None
        loaded = checkpoint.load_latest(run_dir, self._trainer)
        if loaded is None:
            self.notes.append(f"{run_dir} holds no save: the run begins at step 0")
        return loaded

    def _open_log(self, size: int) -> MetricsLog:
        path = self._run_dir / FILE_NAME
        try:
            log = MetricsLog(path, size)
        except OSError as error:
            raise CheckpointError(
                f"cannot write {path}: {error.strerror}. Make room or rights there, or choose "
                "another --checkpoints_dir."
            ) from error
        if log.lost:
            self.notes.append(f"{path} is shorter than it was at the save: earlier lines are gone")
        return log

    def report(self, epoch: int, losses: dict[str, Tensor]) -> None:
        """Check the run, tell the reporter and write a line (one synchronisation or two).

        Raises:
            NonFiniteError, LossScaleError: of the check.
        """
        trainer = self._trainer
        trainer.check()
        values = torch.stack(list(losses.values())).tolist()
        rate, waited = self.clock.read(trainer.images)
        self.clock.restart(trainer.images)
        step = trainer.step_count
        remaining = (self.total - step) * trainer.config.batch_size
        remaining *= self._ranks.count if self._ranks else 1
        stats = StepStats(
            step=step,
            total_steps=self.total,
            epoch=epoch,
            images=trainer.images,
            lr=trainer.lr,
            losses=dict(zip(losses, values, strict=True)),
            images_per_second=rate,
            data_wait=waited,
            eta_seconds=remaining / rate if rate else float("inf"),
            skipped=trainer.engine.scaler.skipped if trainer.engine.scaler else None,
        )
        self._reporter.on_step(stats)
        try:
            if self._log is not None:
                self._log.write(stats)
        except OSError as error:
            self._reporter.on_message(f"cannot write {FILE_NAME}: {error.strerror}; kept for later")
        if self._failures:
            self.save()

    def save(self) -> None:
        """Save; a disk that refuses is reported, and tried again at the next report.

        Raises:
            NonFiniteError, LossScaleError: the state is not fit to be saved.
            CheckpointError: the disk refused for the third time in a row.
        """
        try:
            self.save_last()
        except CheckpointError as error:
            self._failures += 1
            if self._failures >= _SAVE_TRIES:
                raise
            self._reporter.on_message(f"{error} Training goes on and saves at the next report.")

    def save_last(self) -> None:
        """Save unless the newest save is of this very step.

        Raises:
            NonFiniteError, LossScaleError: the state is not fit to be saved.
            CheckpointError: the disk refused.
        """
        trainer = self._trainer
        if trainer.step_count == self._saved_step:
            return
        began = time.perf_counter()
        state = rank_state.collect(trainer)
        self.saved = first_does(self._ranks, lambda: self._write(state))
        self._saved_step, self._failures = trainer.step_count, 0
        self._reporter.on_save(self.saved, trainer.step_count, time.perf_counter() - began)

    def _write(self, state: Mapping[str, Any]) -> Path:
        extra = {}
        if self._log is not None:
            try:
                extra["log_bytes"] = self._log.sync()
            except OSError as error:
                path = self._log.path
                raise CheckpointError(f"cannot write {path}: {error.strerror}.") from error
        return checkpoint.save(self._run_dir, self._trainer, self._keep, extra, state)

    def save_weights(self, epoch: int) -> None:
        """Write the lasting copy of an epoch; a disk that refuses is reported.

        Raises:
            NonFiniteError, LossScaleError: the weights are not fit to be saved.
        """
        trainer, upstream = self._trainer, self._trainer.config.save_format == "both"
        began = time.perf_counter()
        try:
            path = first_does(
                self._ranks,
                lambda: checkpoint.save_weights(self._run_dir, trainer, epoch, upstream),
            )
        except CheckpointError as error:
            self._reporter.on_message(f"{error} Training goes on without this copy.")
            return
        self._reporter.on_save(path, trainer.step_count, time.perf_counter() - began)
