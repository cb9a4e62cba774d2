# SPDX-License-Identifier: MIT
"""Translate a tree of pictures: every one once, under its name, whole, and never over another."""

from __future__ import annotations

import os
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from cyclegan_fast.errors import BadImageError, DataError, printable
from cyclegan_fast.io import pictures


@dataclass
class Summary:
    """What became of the pictures of one call.

    Attributes:
        written: how many were translated and written.
        kept: how many results were there already and were left alone.
        failed: pictures that could not be read or translated, with reasons.
        seconds: wall-clock time.
    """

    written: int = 0
    kept: int = 0
    failed: list[BadImageError] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Job:
    """One picture to translate, and where the result goes."""

    source: Path
    target: Path


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
    translator: Callable[[np.ndarray], np.ndarray],
    jobs: Sequence[Job],
    channels: int,
    batch_size: int = 1,
    overwrite: bool = False,
    on_done: Callable[[Job, BadImageError | None], None] = lambda job, error: None,
) -> Summary:
    """Translate pictures in batches of equal size, reading ahead and writing behind.

    Args:
        translator: uint8 [N, H, W, channels] to uint8 [N, H, W, C'].
        jobs: what to read and where to write.
        channels: 1 or 3, the network's input channels.
        batch_size: most pictures of one size at once.
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
    waiting: OrderedDict[tuple[int, int], list[tuple[Job, np.ndarray]]] = OrderedDict()
    writing: deque[tuple[Job, Future[bool]]] = deque()

    def settle(limit: int) -> None:
        while len(writing) > limit:
            job, future = writing.popleft()
            if future.result():
                summary.written += 1
            else:  # another process wrote it in the meantime
                summary.kept += 1
            on_done(job, None)

    def flush(shape: tuple[int, int]) -> None:
        group = waiting.pop(shape)
        for (job, _), result in zip(group, _batch(translator, group), strict=True):
            if isinstance(result, BadImageError):
                fail(job, result)
            else:
                writing.append((job, writers.submit(write, job, result)))
        settle(4 * batch_size)

    with ThreadPoolExecutor(2) as readers, ThreadPoolExecutor(2) as writers:
        try:
            ahead = _ahead(readers, todo, lambda job: read_image(job.source, channels), batch_size)
            for job, future in ahead:
                try:
                    picture = future.result()
                except BadImageError as error:
                    fail(job, error)
                    continue
                shape = picture.shape[:2]
                waiting.setdefault(shape, []).append((job, picture))
                if len(waiting[shape]) == batch_size:
                    flush(shape)
                elif sum(map(len, waiting.values())) > 4 * batch_size:
                    flush(max(waiting, key=lambda s: len(waiting[s])))
            for shape in list(waiting):
                flush(shape)
            settle(0)
        except BaseException:
            readers.shutdown(cancel_futures=True)
            raise
    summary.seconds = time.perf_counter() - start
    return summary


def _ahead(
    pool: ThreadPoolExecutor,
    jobs: Sequence[Job],
    read: Callable[[Job], np.ndarray],
    batch_size: int,
) -> Iterator[tuple[Job, Future[np.ndarray]]]:
    """Yield jobs in order, with a few reads under way beyond the one yielded."""
    running: deque[tuple[Job, Future[np.ndarray]]] = deque()
    for job in jobs:
        running.append((job, pool.submit(read, job)))
        if len(running) > 2 + batch_size:
            yield running.popleft()
    yield from running


def _batch(
    translator: Callable[[np.ndarray], np.ndarray], group: Sequence[tuple[Job, np.ndarray]]
) -> list[np.ndarray | BadImageError]:
    """Translate pictures of one size; those that do not fit in memory together go one by one."""
    try:
        return list(translator(np.stack([picture for _, picture in group])))
    except torch.OutOfMemoryError:
        if len(group) > 1:
            return [_batch(translator, [one])[0] for one in group]
        job, picture = group[0]
        height, width = picture.shape[:2]
        reason = f"{height} x {width} pixels do not fit in the GPU's memory; try --device cpu"
        return [BadImageError(str(job.source), reason)]
