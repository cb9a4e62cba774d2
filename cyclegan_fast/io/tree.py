# SPDX-License-Identifier: MIT
"""Translate a tree of pictures: every one once, under its name, whole, and never over another."""

from __future__ import annotations

import os
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias, cast

import numpy as np
import torch

from cyclegan_fast.errors import BadImageError, DataError, printable
from cyclegan_fast.io import pictures

# Pictures read and not yet translated, and results not yet written, take no more than that each,
# but for one of them; what threads have in hand comes on top.
HELD_BYTES = 2**28


class Translates(Protocol):
    """What `run` asks of a translator; `translation.Translator` is one."""

    def fitting(self, height: int, width: int) -> tuple[int, int]:
        """Return what pictures must have in common to go in one batch."""

    def start(self, group: Sequence[np.ndarray]) -> Callable[[], list[np.ndarray]]:
        """Begin uint8 [H, W, C] pictures; return what waits for theirs, in the same order."""


@dataclass
class Summary:
    """What became of the pictures of one call.

    Attributes:
        written: how many were translated and written.
        kept: how many results were there already and were left alone.
        failed: pictures that could not be read or translated, with reasons.
        seconds: wall-clock time.
        waited_for_reading: seconds of it in which nothing was there to be translated.
        waited_for_writing: seconds of it in which no more results could be taken.
    """

    written: int = 0
    kept: int = 0
    failed: list[BadImageError] = field(default_factory=list)
    seconds: float = 0.0
    waited_for_reading: float = 0.0
    waited_for_writing: float = 0.0


@dataclass(frozen=True)
class Job:
    """One picture to translate, and where the result goes."""

    source: Path
    target: Path


_Read: TypeAlias = tuple[Job, np.ndarray]


def plan(
    source: Path, out: Path, ending: str | None = None
) -> tuple[list[Job], list[BadImageError]]:
    """Pair every picture of a file or tree with its result's path, under the same name.

    Args:
        source: a picture, or a folder with pictures at any depth.
        out: a folder, made when a picture is written; for a single picture also a file name.
        ending: write this format (".png") instead of the picture's own.

    Returns:
        Jobs in order, and what has a picture's name but is no file.

    Raises:
        DataError: nothing there, or the results would lie among the pictures.
    """
    from cyclegan_fast.data.folders import EXTENSIONS, list_images

    if not source.exists():
        raise DataError(f"{printable(source)}: there is no such picture or folder")
    if source.is_file():
        is_file = out.suffix.lower() in EXTENSIONS and not out.is_dir()
        target = out if is_file else out / _renamed(source.name, ending, set())
        if target.resolve() == source.resolve():
            raise DataError(f"{printable(target)}: the result would replace the picture itself")
        return [Job(source, target)], []
    if out.is_file():
        raise DataError(f"{printable(out)}: must be a folder when a folder is translated")
    inside, root = out.resolve(), source.resolve()
    if inside == root or root in inside.parents:
        raise DataError(
            f"{printable(out)}: must lie outside {printable(source)}, or the next run would "
            "translate the results too. Give another folder with -o."
        )
    files, problems = list_images(source)
    if not files and not problems:
        raise DataError(f"{printable(source)} holds no picture that ends in {' '.join(EXTENSIONS)}")
    names = [file.relative_to(source) for file in files]
    counts = Counter(str(name.with_suffix("")) for name in names)
    twice = {stem for stem, count in counts.items() if count > 1}
    targets = [out / name.parent / _renamed(str(name), ending, twice) for name in names]
    return [Job(file, target) for file, target in zip(files, targets, strict=True)], problems


def _renamed(name: str, ending: str | None, twice: set[str]) -> str:
    """Return the result's file name; pictures that differ only in their ending keep it inside."""
    path = Path(name)
    if ending is None or path.suffix.lower() == ending:
        return path.name
    return path.name + ending if str(path.with_suffix("")) in twice else path.stem + ending


def run(
    translator: Translates,
    jobs: Sequence[Job],
    channels: int,
    batch_size: int = 1,
    batch_pixels: int | None = None,
    overwrite: bool = False,
    on_done: Callable[[Job, BadImageError | None], None] = lambda job, error: None,
) -> Summary:
    """Translate pictures in batches of equal size, reading ahead and writing behind.

    While a batch is translated the next one is gathered, threads read what comes and others write
    what went before. How many pictures are held is bounded in number and in bytes, whatever their
    number and sizes; where many sizes are mixed, batches are begun before they are full.

    Args:
        translator: what translates; pictures of one `fitting` size go together.
        jobs: what to read and where to write.
        channels: 1 or 3, the network's input channels.
        batch_size: most pictures at once.
        batch_pixels: most pixels at once, but for a single picture; None for any number.
        overwrite: replace results that are there; else they are kept and their pictures skipped,
            so a run that was stopped goes on where it was.
        on_done: called for each picture with what went wrong, or None.

    Returns:
        What became of them. A picture that fails is named there and does not stop the others.

    Raises:
        OSError: a result could not be written (a full disk, no permission).
    """
    from cyclegan_fast.data.images import read_image

    summary, start = Summary(), time.perf_counter()

    def fail(job: Job, error: BadImageError) -> None:
        summary.failed.append(error)
        on_done(job, error)

    def write(job: Job, picture: np.ndarray) -> bool:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        data = pictures.encode(picture, job.target.suffix)
        return pictures.write_bytes(job.target, data, overwrite)

    todo = [job for job in jobs if overwrite or not os.path.lexists(job.target)]
    summary.kept = len(jobs) - len(todo)
    waiting: OrderedDict[tuple[int, int], list[_Read]] = OrderedDict()
    translating: deque[tuple[list[_Read], Callable[[], list[np.ndarray | BadImageError]]]] = deque()
    writing: deque[tuple[Job, int, Future[bool]]] = deque()

    def settle(pictures_left: int, bytes_left: int) -> None:
        began = time.perf_counter()
        held = sum(size for _, size, _ in writing)
        while len(writing) > pictures_left or held > bytes_left:
            job, size, future = writing.popleft()
            held -= size
            if future.result():
                summary.written += 1
            else:  # another process wrote it in the meantime
                summary.kept += 1
            on_done(job, None)
        summary.waited_for_writing += time.perf_counter() - began

    def finish(left: int) -> None:
        while len(translating) > left:
            group, wait = translating.popleft()
            for (job, _), result in zip(group, wait(), strict=True):
                if isinstance(result, BadImageError):
                    fail(job, result)
                else:
                    writing.append((job, result.nbytes, writers.submit(write, job, result)))
            settle(4 * batch_size, HELD_BYTES)

    def begin(size: tuple[int, int]) -> None:
        group = waiting.pop(size)
        translating.append((group, _start(translator, group)))
        finish(1)

    threads = _threads()
    with ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(threads) as writers:
        try:

            def read(job: Job) -> np.ndarray:
                return read_image(job.source, channels)

            for job, future in _ahead(readers, todo, read, threads + batch_size):
                began = time.perf_counter()
                try:
                    picture = future.result()
                except BadImageError as error:
                    fail(job, error)
                    continue
                finally:
                    summary.waited_for_reading += time.perf_counter() - began
                size = translator.fitting(*picture.shape[:2])
                waiting.setdefault(size, []).append((job, picture))
                fits = batch_pixels // (size[0] * size[1]) if batch_pixels else batch_size
                if len(waiting[size]) >= min(batch_size, max(fits, 1)):
                    begin(size)
                while _too_many(waiting, 4 * batch_size):
                    begin(max(waiting, key=lambda s: len(waiting[s])))
            for size in list(waiting):
                begin(size)
            finish(0)
            settle(0, 0)
        except BaseException:
            readers.shutdown(cancel_futures=True)
            raise
    summary.seconds = time.perf_counter() - start
    return summary


def _threads() -> int:
    """How many read, and how many write: half of the processors each."""
    return max(2, min(16, (os.cpu_count() or 1) // 2))


def _too_many(waiting: Mapping[tuple[int, int], list[_Read]], most: int) -> bool:
    sizes = [picture.nbytes for group in waiting.values() for _, picture in group]
    return len(sizes) > most or sum(sizes) > HELD_BYTES


def _ahead(
    pool: ThreadPoolExecutor,
    jobs: Sequence[Job],
    read: Callable[[Job], np.ndarray],
    ahead: int,
) -> Iterator[tuple[Job, Future[np.ndarray]]]:
    """Yield jobs in order, with reads under way beyond the one yielded: so many, or fewer large."""
    running: deque[tuple[Job, Future[np.ndarray]]] = deque()
    for job in jobs:
        running.append((job, pool.submit(read, job)))
        while len(running) > ahead or _bytes_read(running) > HELD_BYTES:
            yield running.popleft()
    yield from running


def _bytes_read(running: Iterable[tuple[Job, Future[np.ndarray]]]) -> int:
    done = (future for _, future in running if future.done() and future.exception() is None)
    return sum(future.result().nbytes for future in done)


def _start(
    translator: Translates, group: Sequence[_Read]
) -> Callable[[], list[np.ndarray | BadImageError]]:
    """Begin a batch; pictures that do not fit in memory together go one by one."""
    try:
        return cast(
            Callable[[], list[np.ndarray | BadImageError]],
            translator.start([picture for _, picture in group]),
        )
    except torch.OutOfMemoryError:
        if len(group) > 1:
            parts = [_start(translator, [one]) for one in group]
            return lambda: [result for wait in parts for result in wait()]
        job, picture = group[0]
        height, width = picture.shape[:2]
        reason = f"{height} x {width} pixels do not fit in the GPU's memory; try --device cpu"
        error = BadImageError(str(job.source), reason)
        return lambda: [error]
