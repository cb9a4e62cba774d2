# SPDX-License-Identifier: MIT
"""Progress: a live bar on a terminal, plain lines into a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Seconds between two lines when nobody watches.
INTERVAL = 10.0


def on_terminal() -> bool:
    """Whether a bar can be drawn."""
    return sys.stdout.isatty()


@contextmanager
def counter(total: int, what: str) -> Iterator[Callable[[], None]]:
    """Count pictures done: yields a function to call once per picture.

    Args:
        total: how many there are.
        what: the word in front of the bar.
    """
    if on_terminal():
        from rich.progress import Progress

        with Progress(transient=True) as progress:
            task = progress.add_task(what, total=total)
            yield lambda: progress.advance(task)
        return
    start = last = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if now - last >= INTERVAL:
            last = now
            rate = done / (now - start)
            left = duration((total - done) / rate)
            print(f"{what} {done}/{total} · {rate:.2f} images/s · {left} left", flush=True)

    yield advance


def duration(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
