# SPDX-License-Identifier: MIT
"""Batches prepared ahead by background threads, in order, from any step on."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from cyclegan_fast.errors import DataError, printable

if TYPE_CHECKING:
    from cyclegan_fast.data.resident import ResidentPictures
    from cyclegan_fast.data.unpaired import Batch, PickedBatch, UnpairedDataset

__all__ = ["Loader"]

_Tasks = SimpleQueue[tuple[Future, int] | None]


class Loader:
    """Iterates over dataset.batch(step, batch_size) for step = start_step, start_step + 1, ...

    The batches are those of the dataset whatever the number of threads, so a resumed run goes on
    with the very next one. An error in a thread is raised by the call that asks for its batch, and
    the loader then stays at that step. Decoding and scaling release Python's lock: threads suffice.

    Args:
        dataset: an UnpairedDataset, or anything with its `batch` and `files`.
        batch_size: pictures of each domain per batch.
        start_step: the first step.
        stop_step: ends before this step; None goes on for ever.
        threads: background threads; 0 prepares each batch when it is asked for.
        prefetch: batches in preparation or ready; at least the number of threads.
        timeout: seconds to wait for one batch before the files it reads are named; None waits.
        pin: put pictures into pinned memory, from which copies to a GPU wait for nothing.

    Attributes:
        step: the step of the next batch; save it and give it as start_step to resume.

    Raises:
        ValueError: an argument is out of range.
        DataError: no batch came within the timeout.
    """

    def __init__(
        self,
        dataset: UnpairedDataset | ResidentPictures,
        batch_size: int = 1,
        start_step: int = 0,
        *,
        stop_step: int | None = None,
        threads: int = 1,
        prefetch: int = 4,
        timeout: float | None = 120.0,
        pin: bool = False,
    ) -> None:
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("start_step", start_step, 0),
            ("threads", threads, 0),
            ("prefetch", prefetch, 1),
        ):
            if value < least:
                raise ValueError(f"Loader: {name} must be {least} or more, got {value}")
        self.step = start_step
        self._dataset = dataset
        self._make = partial(_pinned, dataset.batch) if pin else dataset.batch
        self._batch_size = batch_size
        self._stop = stop_step
        self._ahead = max(prefetch, threads) if threads else 0
        self._timeout = timeout
        self._hangs = False
        self._pending: deque[Future] = deque()
        self._tasks: _Tasks = SimpleQueue()
        # The threads know the dataset and the queue, never the loader: a loader that nobody holds
        # any more is collected, and its finaliser lets them end. They are daemons because a read
        # that hangs, on a dead network drive say, must not keep the process from leaving.
        self._threads = [
            threading.Thread(
                target=_work,
                args=(self._make, batch_size, self._tasks),
                name=f"cyclegan_fast.data.Loader-{number}",
                daemon=True,
            )
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()
        self._finish = weakref.finalize(self, _finish, self._tasks, threads)

    def __iter__(self) -> Iterator[Batch | PickedBatch]:
        return self

    def __next__(self) -> Batch | PickedBatch:
        if not self._finish.alive:
            raise ValueError("Loader: it is closed; make a new one with start_step=loader.step")
        if self._stop is not None and self.step >= self._stop:
            raise StopIteration
        if not self._threads:
            batch = self._make(self.step, self._batch_size)
            self.step += 1
            return batch
        self._request()
        try:
            batch = self._pending[0].result(self._timeout)
        except FutureTimeoutError:
            if self._pending[0].done():  # a TimeoutError of the file system, not of the wait
                raise
            self._hangs = True
            files = self._dataset.files(self.step, self._batch_size)
            raise DataError(
                f"no batch for {self._timeout:g} seconds at step {self.step}; a read of one of "
                f"these files hangs: {', '.join(map(printable, files))}"
            ) from None
        self._pending.popleft()
        self.step += 1
        self._request()
        return batch

    def close(self) -> None:
        """Ends the threads, after the batches they are at; a second call does nothing."""
        for future in self._pending:
            future.cancel()
        self._pending.clear()
        self._finish()
        for thread in self._threads:
            thread.join(0 if self._hangs else self._timeout)

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _request(self) -> None:
        while len(self._pending) < self._ahead:
            step = self.step + len(self._pending)
            if self._stop is not None and step >= self._stop:
                return
            future: Future = Future()
            self._pending.append(future)
            self._tasks.put((future, step))


def _work(make: Callable[[int, int], Any], batch_size: int, tasks: _Tasks) -> None:
    while (task := tasks.get()) is not None:
        future, step = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            batch = make(step, batch_size)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(batch)
        del task, future
        batch = None


def _pinned(make: Callable[[int, int], Any], step: int, batch_size: int) -> Any:
    batch = make(step, batch_size)
    on_host = {
        name: value.pin_memory()
        for name, value in batch.items()
        if isinstance(value, torch.Tensor) and value.device.type == "cpu"
    }
    return {**batch, **on_host}


def _finish(tasks: _Tasks, threads: int) -> None:
    for _ in range(threads):
        tasks.put(None)
