# SPDX-License-Identifier: MIT
"""The pictures of one domain: read once, scaled once, kept in memory as far as a budget allows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np

from cyclegan_fast.data.images import open_picture
from cyclegan_fast.data.transforms import Preprocess, TooSmallError
from cyclegan_fast.errors import BadImageError, printable
from cyclegan_fast.ops.augment.packed import PackedPictures

__all__ = ["Budget", "DataReport", "PictureStore"]


class Budget:
    """Bytes that may be kept, shared by several stores and threads."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = Lock()

    def take(self, size: int) -> bool:
        """Reserves size bytes, or says that they are not left."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True


@dataclass
class DataReport:
    """What was found in the files; its text is a line per change and per refused file.

    Attributes:
        files: number of files looked at.
        bad: refused files, each with its path and reason.
        notes: change -> number of files it was made in.
        examples: change -> the first of these files.
    """

    files: int = 0
    bad: list[BadImageError] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, other: DataReport) -> None:
        """Appends another report."""
        self.files += other.files
        self.bad += other.bad
        self.notes.update(other.notes)
        self.examples = {**other.examples, **self.examples}

    def __str__(self) -> str:
        lines = [f"{self.files} files, {len(self.bad)} refused"]
        lines += [f"  refused: {error}" for error in self.bad]
        for note, count in sorted(self.notes.items()):
            lines.append(f"  {note}: {count} files, e.g. {printable(self.examples[note])}")
        return "\n".join(lines)


class PictureStore:
    """Pictures after `Preprocess.resize`, by number.

    What is kept in memory, where pictures are cropped, is the smaller of a picture and the same
    scaled: 256 x 256 is kept, not the 286 x 286 that crops are taken from.

    Args:
        paths: the files.
        preprocess: what is done to each of them.
        channels: 3 for RGB, 1 for grey.
        budget: how much may be kept; beyond it, files are read at every access.
        background: RGB colour behind transparent pixels.
        max_pixels: larger pictures are refused.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        preprocess: Preprocess,
        channels: int,
        budget: Budget,
        *,
        background: tuple[int, int, int],
        max_pixels: int,
    ) -> None:
        self.paths = list(paths)
        self._preprocess = preprocess
        self._channels = channels
        self._budget = budget
        self._background = background
        self._max_pixels = max_pixels
        self._kept: dict[Path, np.ndarray] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns picture number index, uint8 [H, W, C], scaled, read-only.

        Raises:
            BadImageError: the file cannot be used.
            TooSmallError: the crop does not fit into the picture; the message names the file.
        """
        path = self.paths[index]
        kept = self._kept.get(path)
        pixels = self._preprocess.resize(self._load(path)[0] if kept is None else kept)
        pixels.flags.writeable = False
        return pixels

    def pack(self) -> PackedPictures | None:
        """Returns all pictures as they are kept, side by side; None unless all of them are kept.

        From then on what is kept lies there.
        """
        pictures = [self._kept.get(path) for path in self.paths]
        kept = [pixels for pixels in pictures if pixels is not None]
        if len(kept) < len(pictures):
            return None
        sizes = [self._preprocess.resized(*pixels.shape[:2]) for pixels in kept]
        packed = PackedPictures.pack(kept, sizes)
        levels = packed.levels.numpy()
        for path, pixels, first in zip(self.paths, kept, packed.table[:, 0].tolist(), strict=True):
            place = levels[first : first + pixels.size].reshape(pixels.shape)
            place.flags.writeable = False
            self._kept[path] = place
        return packed

    def inspect(self) -> DataReport:
        """Reads every file once, keeps what fits and takes refused files off the list.

        Raises:
            TooSmallError: the crop does not fit into some pictures; names the smallest.
        """

        def look(path: Path) -> tuple[str, ...] | BadImageError | TooSmallError:
            try:
                return self._load(path)[1]
            except (BadImageError, TooSmallError) as error:
                return error

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            found = list(pool.map(look, self.paths))
        small = [result for result in found if isinstance(result, TooSmallError)]
        if small:
            worst = min(small, key=lambda error: error.side)
            text = (
                f"{len(small)} of {len(found)} pictures are too small, the smallest is\n  {worst}"
            )
            raise TooSmallError(text, worst.side)
        report = DataReport(files=len(found))
        good = []
        for path, result in zip(self.paths, found, strict=True):
            if isinstance(result, BadImageError):
                report.bad.append(result)
            elif isinstance(result, tuple):
                good.append(path)
                for note in result:
                    report.notes[note] += 1
                    report.examples.setdefault(note, str(path))
        self.paths = good
        return report

    def _load(self, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
        picture = open_picture(
            path, self._channels, background=self._background, max_pixels=self._max_pixels
        )
        pixels = picture.pixels
        try:
            h, w = self._preprocess.resized(*pixels.shape[:2])
        except TooSmallError as error:
            raise TooSmallError(f"{printable(path)}: {error}", error.side) from None
        if not self._preprocess.crops or h * w < pixels.shape[0] * pixels.shape[1]:
            pixels = self._preprocess.resize(pixels)
        pixels.flags.writeable = False
        with self._lock:  # two threads may read one file at once: the second keeps nothing
            if path not in self._kept and self._budget.take(pixels.nbytes):
                self._kept[path] = pixels
        return pixels, picture.notes
