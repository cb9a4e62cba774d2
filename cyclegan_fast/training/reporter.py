# SPDX-License-Identifier: MIT
"""What the loop tells the outside: a reporter gets these calls and shows them as it likes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from cyclegan_fast.training.trainer import Trainer


@dataclass(frozen=True)
class RunInfo:
    """What is known before the first step."""

    trainer: Trainer
    run_dir: Path
    start_step: int  # 0, or the step of the save the run goes on from
    total_steps: int
    steps_per_epoch: int
    pictures: str  # where the batches are made, in words
    notes: list[str]  # lines on the resumption: damaged saves, changed options, another machine
    picture_bytes: int  # of the device's memory, taken by pictures that lie there


@dataclass(frozen=True)
class StepStats:
    """What is known at a report, every print_freq images."""

    step: int
    total_steps: int
    epoch: int
    images: int
    lr: float
    losses: dict[str, float]  # of this step, by upstream's names, weighted
    images_per_second: float  # since the report before
    data_wait: float  # share of that time spent waiting for pictures, 0 to 1
    eta_seconds: float
    skipped: int | None  # steps that fp16 scaling skipped so far; None without scaling


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    trainer: Trainer
    run_dir: Path
    step: int
    total_steps: int
    saved: Path | None  # the last save
    signal: int | None  # the signal that ended it early
    seconds: float  # of this start, without those before
    waited: float  # seconds of them, spent waiting for pictures
    served: dict[tuple[str, str], int]  # (op, back end) -> calls

    @property
    def finished(self) -> bool:
        """Whether all steps were trained."""
        return self.step >= self.total_steps

    @property
    def data_wait(self) -> float:
        """Share of the seconds spent waiting for pictures, 0 to 1."""
        return min(1.0, self.waited / max(self.seconds, 1e-9))

    @property
    def exit_code(self) -> int:
        """0, or what a shell expects of a process ended by that signal: 128 + its number."""
        return 0 if self.signal is None else 128 + self.signal


class Reporter:
    """Base of reporters: hears everything, says nothing. Override what is to be shown."""

    def on_start(self, info: RunInfo) -> None:
        """Called once, before the first step."""

    def on_progress(self, step: int) -> None:
        """Called after every step; nothing may be read from the device here."""

    def on_step(self, stats: StepStats) -> None:
        """Called every print_freq images."""

    def on_sample(self, step: int, pictures: dict[str, Tensor]) -> None:
        """Called first, every display_freq images, and last.

        Args:
            step: steps trained so far.
            pictures: real_A, fake_B, rec_A, idt_B, real_B, fake_A, rec_B, idt_A, see
                `Trainer.sample`; float32 [N, C, H, W] in [-1, 1], on the CPU.
        """

    def on_epoch(self, epoch: int, seconds: float) -> None:
        """Called at the end of an epoch."""

    def on_save(self, path: Path, step: int, seconds: float) -> None:
        """Called after a save."""

    def on_message(self, text: str) -> None:
        """Called with what the user should know: a line, such as a save that failed."""

    def on_end(self, result: RunResult) -> None:
        """Called once, after the last save."""
