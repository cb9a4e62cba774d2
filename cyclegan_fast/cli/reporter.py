# SPDX-License-Identifier: MIT
"""Shows a run while it runs: a live bar or plain lines, sample pictures, curves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclegan_fast.cli.progress import INTERVAL, duration, on_terminal
from cyclegan_fast.io import pictures
from cyclegan_fast.report import curves
from cyclegan_fast.training.metrics_log import FILE_NAME
from cyclegan_fast.training.reporter import Reporter, RunInfo, RunResult, StepStats

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES, CURVES = "samples", "curves.png"
# Seconds between two drawings of the curves; one takes about half a second.
_CURVES_EVERY = 60.0
_COLUMNS = ("real_A", "fake_B", "rec_A", "idt_B", "real_B", "fake_A", "rec_B", "idt_A")


class RunReporter(Reporter):
    """What the user sees and finds in the run's folder.

    Args:
        banner: called with the run's facts before the first step; prints.
        names: of the networks' domains A and B.
    """

    def __init__(self, banner: Callable[[RunInfo], None], names: tuple[str, str]) -> None:
        self._banner = banner
        self._names = names
        self._run_dir = Path()
        self._bar: Any = None
        self._task: Any = None
        self._said = 0.0
        self._drawn = 0.0
        self._total = self._print_freq = 0

    def on_start(self, info: RunInfo) -> None:
        """Show what was found and chosen, and begin the bar."""
        self._run_dir = info.run_dir
        self._total, self._print_freq = info.total_steps, info.trainer.config.print_freq
        self._banner(info)
        self._said = self._drawn = time.monotonic()
        if on_terminal():
            self._bar = _bar()
            self._task = self._bar.add_task(
                "train", total=info.total_steps, completed=info.start_step, losses="", rate=""
            )
            self._bar.start()

    def on_progress(self, step: int) -> None:
        """Move the bar; without one, say every minute that a slow run is alive."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)
        elif time.monotonic() - self._said >= 6 * INTERVAL:
            self._said = time.monotonic()
            self._print(f"train    {step}/{self._total} · losses every {self._print_freq} images")

    def on_step(self, stats: StepStats) -> None:
        """Show losses and speed: in the bar, or as a line every ten seconds."""
        losses = _losses(stats)
        rate = f"{stats.images_per_second:.2f} images/s · {waiting(stats.data_wait)}"
        if self._bar is not None:
            self._bar.update(self._task, losses=losses, rate=rate)
            return
        now = time.monotonic()
        last = stats.step == stats.total_steps
        if now - self._said >= INTERVAL or last:
            self._said = now
            self._print(
                f"train    {stats.step}/{stats.total_steps} · epoch {stats.epoch} · {losses} · "
                f"{rate} · {duration(stats.eta_seconds)} left"
            )

    def on_sample(self, step: int, made: dict[str, Tensor]) -> None:
        """Write a sheet of sample pictures, one for the strip over time, and the curves."""
        try:
            self._write_samples(step, made)
            if time.monotonic() - self._drawn >= _CURVES_EVERY:
                self.draw_curves()
        except OSError as error:
            self.on_message(f"samples of step {step} could not be written: {error.strerror}")

    def _write_samples(self, step: int, made: dict[str, Tensor]) -> None:
        folder = self._run_dir / SAMPLES
        frames = folder / "over_time"
        frames.mkdir(parents=True, exist_ok=True)
        count = min(len(made["real_A"]), len(made["real_B"]))
        # No identity where the domains differ in channels.
        columns = [
            (heading, made[column])
            for column, heading in zip(_COLUMNS, headings(self._names), strict=True)
            if column in made
        ]
        rows = [[column[i] for _, column in columns] for i in range(count)]
        sheet = pictures.sheet([heading for heading, _ in columns], rows)
        pictures.write_picture(folder / f"step-{step:08d}.png", sheet)
        pictures.write_picture(folder / "latest.png", sheet)
        for name in ("fake_B", "fake_A"):
            picture = pictures.to_uint8(made[name][0])
            pictures.write_picture(frames / f"{name}-{step:08d}.png", picture)
        for name in ("real_A", "real_B"):
            path = frames / f"{name}.png"
            if not path.exists():
                pictures.write_picture(path, pictures.to_uint8(made[name][0]))

    def draw_curves(self) -> None:
        """Draw losses.csv into curves.png."""
        self._drawn = time.monotonic()
        losses = curves.read_losses(self._run_dir / FILE_NAME)
        if losses and len(losses["step"]):
            figure = curves.draw(losses, self._names)
            pictures.write_bytes(self._run_dir / CURVES, curves.image(figure, "png"))

    def on_save(self, path: Path, step: int, seconds: float) -> None:
        """Say that a save was written, where lines are kept."""
        if self._bar is None:
            self._print(f"saved    {path} ({seconds:.1f} s)")

    def on_message(self, text: str) -> None:
        """Show a line that must not be missed."""
        self._print(f"warning  {text}")

    def on_end(self, result: RunResult) -> None:
        """End the bar, say what the run waited for, and draw the curves a last time."""
        self.close()
        self._print(f"waiting  {result.data_wait:.1%} of {duration(result.seconds)} for pictures")
        try:
            self.draw_curves()
        except OSError as error:
            self.on_message(f"{CURVES} could not be written: {error.strerror}")

    def close(self) -> None:
        """Leave the terminal as it was, also when the run ends by an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, flush=True)


def waiting(share: float) -> str:
    """Return the share of time spent waiting for pictures in few letters: "3% waiting"."""
    return f"{share:.0%} waiting"


def headings(names: tuple[str, str]) -> list[str]:
    """Return what the columns of a sheet show, in the letters that Pillow's own font has."""
    a, b = names
    return [a, f"to {b}", "and back", "identity", b, f"to {a}", "and back", "identity"]


def _losses(stats: StepStats) -> str:
    x = stats.losses
    parts = [
        ("G", x["G_A"] + x["G_B"]),
        ("D", x["D_A"] + x["D_B"]),
        ("cycle", x["cycle_A"] + x["cycle_B"]),
        ("identity", x["idt_A"] + x["idt_B"]),
    ]
    return " · ".join(f"{name} {value:.3f}" for name, value in parts)


def _bar() -> Any:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("train   "),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[losses]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        # Over so many seconds: one step of a large network on a CPU takes several.
        TimeRemainingColumn(elapsed_when_finished=False),
        refresh_per_second=4,
        speed_estimate_period=120,
        expand=True,
    )
