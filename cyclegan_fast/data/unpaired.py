# SPDX-License-Identifier: MIT
"""Unpaired batches as a pure function of (seed, step).

Upstream's rule (data/unaligned_dataset.py), with counted draws in place of Python's generators:
an epoch has max(|A|, |B|) samples, in an order drawn per epoch; sample i is picture i mod |A| of
domain A and a picture of domain B drawn with replacement; crop and mirror are drawn for each of the
two. With serial_batches the order is 0, 1, 2, ... and B is picture i mod |B|. The last batch of an
epoch is smaller when the batch size does not divide the epoch.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import os
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple, NotRequired, TypedDict, TypeVar

import numpy as np
from torch import Tensor

from cyclegan_fast import draws
from cyclegan_fast.data.folders import scan
from cyclegan_fast.data.images import MAX_PIXELS, WHITE
from cyclegan_fast.data.parts import rows
from cyclegan_fast.data.picked import PickedPictures
from cyclegan_fast.data.store import Budget, DataReport, PictureStore
from cyclegan_fast.data.transforms import Preprocess, to_tensor
from cyclegan_fast.errors import BadImageError, DataError, printable
from cyclegan_fast.ops.augment.packed import PackedPictures

__all__ = ["Batch", "UnpairedDataset"]

_log = logging.getLogger("cyclegan_fast.data")


class Batch(TypedDict):
    """One batch; A and B name the folders, whatever the direction of training.

    A, B: float32 [N, C, H, W] in [-1, 1]. A_paths, B_paths: their N files. joined: in a part only,
    how many of the N count, and the pictures of all parts together; see `parts.rows`.
    """

    A: Tensor
    B: Tensor
    A_paths: list[str]
    B_paths: list[str]
    joined: NotRequired[tuple[int, int]]


class PickedBatch(TypedDict):
    """A `Batch` whose pictures are still to be made, on the device."""

    A: PickedPictures
    B: PickedPictures
    A_paths: list[str]
    B_paths: list[str]
    joined: NotRequired[tuple[int, int]]


AnyBatch = TypeVar("AnyBatch", Batch, PickedBatch)


class Cut(NamedTuple):
    """What a batch takes of a picture: its number, and the draws of `Preprocess.crop_and_flip`."""

    picture: int
    place: tuple[float, float]
    mirror: bool


class UnpairedDataset:
    """The pictures of `{dataroot}/{phase}A` and `{dataroot}/{phase}B`.

    Args:
        dataroot: folder that holds both domains.
        phase: "train", "test" or any other prefix.
        preprocess: scaling and cropping, one of `transforms.MODES`.
        load_size: side, or width, that pictures are scaled to.
        crop_size: side of the crop.
        flip: mirror half of the pictures.
        input_nc: channels, 3 or 1, of the domain that is translated (A in AtoB, B in BtoA).
        output_nc: channels of the other domain.
        direction: "AtoB" or "BtoA"; decides the channels only. Batches keep the folders' names,
            and the trainer swaps, as upstream's does.
        serial_batches: take pictures in order and pair them by number.
        max_dataset_size: at most this many files of each domain.
        seed: seed of all draws, in [0, 2**64).
        augment: False for test pictures: in order, paired by number, cut from the middle, not
            mirrored, whatever flip and serial_batches say.
        on_bad: "skip" leaves refused files out, and replaces one that goes bad during the run by
            the next of its domain; "fail" raises.
        check: read every file at the start, so that all refused files are reported at once.
        background: RGB colour behind transparent pixels.
        max_pixels: larger pictures are refused.
        cache_bytes: memory for decoded pictures; beyond it, files are read at every access.

    Attributes:
        report: what was refused or changed.

    Raises:
        DataError: a folder is missing or empty, or files are refused (any, with on_bad="fail"; all
            of a domain, with "skip"). The message names every one.
        ValueError: an option is out of range, or the crop does not fit into a picture.
    """

    def __init__(
        self,
        dataroot: str | Path,
        phase: str = "train",
        *,
        preprocess: str = "resize_and_crop",
        load_size: int = 286,
        crop_size: int = 256,
        flip: bool = True,
        input_nc: int = 3,
        output_nc: int = 3,
        direction: Literal["AtoB", "BtoA"] = "AtoB",
        serial_batches: bool = False,
        max_dataset_size: float = math.inf,
        seed: int = 0,
        augment: bool = True,
        on_bad: Literal["skip", "fail"] = "skip",
        check: bool = True,
        background: tuple[int, int, int] = WHITE,
        max_pixels: int = MAX_PIXELS,
        cache_bytes: int = 2 * 2**30,
    ) -> None:
        if direction not in ("AtoB", "BtoA"):
            raise ValueError(f"direction must be AtoB or BtoA, got {direction!r}")
        if on_bad not in ("skip", "fail"):
            raise ValueError(f'on_bad must be "skip" or "fail", got {on_bad!r}')
        for name, nc in (("input_nc", input_nc), ("output_nc", output_nc)):
            if nc not in (1, 3):
                raise ValueError(f"{name} must be 1 or 3, got {nc}")
        self.preprocess = Preprocess(load_size, crop_size, preprocess, flip and augment)
        self.seed = seed
        self._augment = augment
        self._in_order = serial_batches or not augment
        self._on_bad = on_bad
        channels = (input_nc, output_nc) if direction == "AtoB" else (output_nc, input_nc)
        files = scan(dataroot, phase, max_dataset_size)
        budget = Budget(cache_bytes)
        self._stores = {
            side: PictureStore(
                paths,
                self.preprocess,
                nc,
                budget,
                background=background,
                max_pixels=max_pixels,
            )
            for side, paths, nc in zip("AB", (files.A, files.B), channels, strict=True)
        }
        self.report = DataReport(len(files.problems), list(files.problems))
        if check:
            for store in self._stores.values():
                self.report.add(store.inspect())
        if self.report.bad and (on_bad == "fail" or not all(self._stores.values())):
            raise DataError(f"pictures cannot be used; {self.report}")
        self._lost: dict[str, BadImageError] = {}
        self._lock = Lock()
        self._order = lru_cache(maxsize=2)(partial(_order, seed, len(self)))
        self._rank, self._ranks = 0, 1

    def __len__(self) -> int:
        """Samples per epoch: the number of pictures of the larger domain."""
        return max(map(len, self._stores.values()))

    @property
    def sizes(self) -> dict[str, int]:
        """Number of pictures of each domain."""
        return {side: len(store) for side, store in self._stores.items()}

    def steps_per_epoch(self, batch_size: int) -> int:
        """Returns the number of batches in an epoch, the smaller last one included."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
        return math.ceil(len(self) / (batch_size * self._ranks))

    def part(self, rank: int, count: int) -> UnpairedDataset:
        """Returns what one of several ranks trains on: its slice of each joined batch.

        Args:
            rank: in [0, count).
            count: ranks; their batches of N are those of N * count in one process.
        """
        shared = copy.copy(self)  # pictures, and the report on them, are held once
        shared._rank, shared._ranks = rank, count
        return shared

    def inventory(self) -> dict[str, str]:
        """Returns what each folder holds, names and sizes of its files in order, in a few words."""
        found = {}
        for side, store in self._stores.items():
            digest = hashlib.sha256()
            for path in store.paths:
                digest.update(f"{os.path.basename(path)}\0{os.path.getsize(path)}\0".encode())
            found[f"folder {side}"] = f"{len(store)} pictures, digest {digest.hexdigest()[:12]}"
        return found

    def batch(self, step: int, batch_size: int = 1) -> Batch:
        """Returns the batch of a step, counted from the start of the run over all epochs.

        Args:
            step: 0 or more; epoch = step // steps_per_epoch(batch_size).
            batch_size: N.

        Raises:
            BadImageError: a file went bad (on_bad="fail"); DataError: too many did ("skip").
            ValueError: pictures of different sizes in one batch.
        """
        pictures: dict[str, list[np.ndarray]] = {"A": [], "B": []}
        paths: dict[str, list[str]] = {"A": [], "B": []}
        for side, cuts in self.cuts(step, batch_size).items():
            for index, place, mirror in cuts:
                pixels, path = self._picture(side, index)
                pictures[side].append(self.preprocess.crop_and_flip(pixels, place, mirror))
                paths[side].append(path)
        a, b = (_stack(pictures[side], paths[side]) for side in "AB")
        made = Batch(A=a, B=b, A_paths=paths["A"], B_paths=paths["B"])
        return self.labelled(made, step, batch_size)

    def labelled(self, batch: AnyBatch, step: int, batch_size: int) -> AnyBatch:
        """Returns a batch of a step with what a part of it says of the whole."""
        if self._ranks > 1:
            total = len(self._joined(step, batch_size)[1])
            batch["joined"] = rows(total, self._rank, self._ranks)[1], total
        return batch

    def cuts(self, step: int, batch_size: int) -> dict[str, list[Cut]]:
        """Returns what the batch of a step takes of which picture, by domain."""
        cuts: dict[str, list[Cut]] = {"A": [], "B": []}
        for number, *indices in self._samples(step, batch_size):
            places = [0.5, 0.5, 1.0] * 2
            if self._augment:
                places = draws.uniforms(self.seed, "crop and flip", number, 6).tolist()
            for side, index, drawn in zip("AB", indices, (places[:3], places[3:]), strict=True):
                mirror = self.preprocess.flip and drawn[2] < 0.5
                cuts[side].append(Cut(index, (drawn[0], drawn[1]), mirror))
        return cuts

    def pack(self) -> dict[str, PackedPictures] | None:
        """Returns the pictures of both domains side by side; None unless all are in memory."""
        packed = {side: store.pack() for side, store in self._stores.items()}
        found = {side: pictures for side, pictures in packed.items() if pictures is not None}
        return found if len(found) == len(packed) else None

    def path(self, side: str, index: int) -> str:
        """Returns the file of a picture."""
        return str(self._stores[side].paths[index])

    def files(self, step: int, batch_size: int = 1) -> list[str]:
        """Returns the files that the batch of a step reads, without reading them."""
        return [
            self.path(side, index)
            for _, *indices in self._samples(step, batch_size)
            for side, index in zip("AB", indices, strict=True)
        ]

    def _samples(self, step: int, batch_size: int) -> list[tuple[int, int, int]]:
        """Lists (number of the sample in the run, index of A, index of B)."""
        if step < 0:
            raise ValueError(f"step must be 0 or more, got {step}")
        epoch, places = self._joined(step, batch_size)
        size_a, size_b = len(self._stores["A"]), len(self._stores["B"])
        samples = []
        taken, _ = rows(len(places), self._rank, self._ranks)
        for place in places[taken.start : taken.stop]:
            number = epoch * len(self) + place
            if self._in_order:
                samples.append((number, place % size_a, place % size_b))
            else:
                index_b = draws.integers(self.seed, "pair", number, 1, size_b)[0]
                samples.append((number, int(self._order(epoch)[place]) % size_a, int(index_b)))
        return samples

    def _joined(self, step: int, batch_size: int) -> tuple[int, range]:
        """Returns the epoch of a step, and the places in it of the batch of all ranks."""
        epoch, within = divmod(step, self.steps_per_epoch(batch_size))
        size = batch_size * self._ranks
        return epoch, range(within * size, min((within + 1) * size, len(self)))

    def _picture(self, side: str, index: int) -> tuple[np.ndarray, str]:
        store = self._stores[side]
        for shift in range(len(store)):
            place = (index + shift) % len(store)
            try:
                return store[place], str(store.paths[place])
            except BadImageError as error:
                if self._on_bad == "fail":
                    raise
                self._lose(error)
        raise DataError(f"no picture of domain {side} can be read any more; {self.report}")

    def _lose(self, error: BadImageError) -> None:
        with self._lock:
            if error.path in self._lost:
                return
            self._lost[error.path] = error
            self.report.bad.append(error)
            lost, allowed = len(self._lost), max(1, sum(self.sizes.values()) // 100)
        _log.warning("picture left out: %s", error)
        if lost > allowed:
            raise DataError(
                f"{lost} files could not be read during the run, more than 1 % of all: is the disk "
                f"still there? The last one: {error}"
            )


def _order(seed: int, size: int, epoch: int) -> np.ndarray:
    return draws.permutation(seed, "order", epoch, size)


def _stack(pictures: list[np.ndarray], paths: list[str]) -> Tensor:
    for picture, path in zip(pictures, paths, strict=True):
        if picture.shape != pictures[0].shape:
            (h, w, _), (h0, w0, _) = picture.shape, pictures[0].shape
            raise DataError(
                f"pictures of one batch must have one size, got {w0} x {h0} in "
                f"{printable(paths[0])} and {w} x {h} in {printable(path)}; give --batch_size 1, "
                "or a --preprocess that crops"
            )
    return to_tensor(pictures)
