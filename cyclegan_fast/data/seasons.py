# SPDX-License-Identifier: MIT
"""Seasons: the data set of the demo, summer (A) and winter (B) landscapes.

The package paints it itself, so that a first training run needs no download and has no licence to
ask for. Training is unpaired: trainA and trainB share no scene. A test scene is in testA and testB
under one name, so that a translation can be compared with the truth. Each season can be told from
the other: what lies under the snow shows in its shape, its shade and what stands around it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cyclegan_fast.data.scenes import Palette, render
from cyclegan_fast.errors import DataError, printable

__all__ = ["SUMMER", "WINTER", "paint", "write"]

_MARKER = "seasons.json"
_CHUNK = 8  # scenes painted at once: their planes stay in the processor's cache

# Material -> (dark, light), as 0xRRGGBB.
SUMMER: Palette = {
    "sky": (0x3A86E0, 0xCDE8FA),
    "cloud": (0xDCE9F5, 0xFFFFFF),
    "halo": (0xFFE9A8, 0xFFF3C4),
    "sun": (0xFFD23E, 0xFFE977),
    "peak": (0xB4C4DC, 0xF0F5FC),
    "mountain": (0x5F7FA8, 0x88A5C4),
    "forest": (0x2E6B4A, 0x4C8A5C),
    "hill": (0x5C9E3C, 0x93C95A),
    "ground": (0x3F8A2C, 0x86C846),
    "path": (0xB08D57, 0xDCC08A),
    "water": (0x2C6FA6, 0x74B4DC),
    "bank": (0x5E7A36, 0x7F9A4A),
    "shadow": (0x1F5520, 0x2A6628),
    "flower": (0xF2C22E, 0xFFF2A0),
    "needles": (0x0F4A2A, 0x2F8048),
    "needles_top": (0x155532, 0x3B8E52),
    "leaves": (0x2C7A1E, 0x7CBF3A),
    "leaves_top": (0x3C8C26, 0x94D04A),
    "trunk": (0x4A3018, 0x7A5530),
    "wall": (0xD8C4A0, 0xF4E6C8),
    "roof": (0xA8321E, 0xD85A38),
    "window": (0x4A5A68, 0x6E8494),
}
WINTER: Palette = {
    "sky": (0x8E9BB0, 0xDFE3EA),
    "cloud": (0xAAB3C2, 0xCDD3DC),
    "halo": (0xF4E8DC, 0xFBF3EA),
    "sun": (0xFBEBD0, 0xFFF6E6),
    "peak": (0xDDE6F2, 0xFAFCFF),
    "mountain": (0x93A3BC, 0xC3CEDD),
    "forest": (0x5C6F7C, 0x9AA9B2),
    "hill": (0xC3D2E6, 0xECF2F9),
    "ground": (0xC9D8EC, 0xFDFEFF),
    "path": (0xA4B0C2, 0xCAD3DF),
    "water": (0x7AA8C8, 0xB4D8EC),
    "bank": (0xA9B9CC, 0xC6D2E0),
    "shadow": (0x8FA6CC, 0xA2B6D8),
    "flower": (0x8C7A58, 0xB09C74),
    "needles": (0x1E3A38, 0x48645C),
    "needles_top": (0xCBDAEA, 0xFFFFFF),
    "leaves": (0x6A5C70, 0x9A8CA2),
    "leaves_top": (0xC8D2E2, 0xF6FAFF),
    "trunk": (0x35291F, 0x5A4836),
    "wall": (0xA89880, 0xC8B89C),
    "roof": (0xD4E0EE, 0xFFFFFF),
    "window": (0xF0A830, 0xFFD060),
}


_PARTS = {"trainA": [SUMMER], "trainB": [WINTER], "test": [SUMMER, WINTER]}


def paint(part: str, count: int, size: int = 64, seed: int = 0) -> Iterator[list[np.ndarray]]:
    """Paints the scenes of one part of the set, one after the other.

    Args:
        part: "trainA" (summer), "trainB" (winter) or "test" (both of each scene).
        count: number of scenes.
        size: side of the square pictures.
        seed: seed of the whole set, in [0, 2**64).

    Yields:
        A scene's pictures, each uint8 [size, size, 3]: one for training, [summer, winter] for test.
    """
    if part not in _PARTS:
        raise ValueError(f"paint: part must be one of {', '.join(_PARTS)}, got {part!r}")
    for first in range(0, count, _CHUNK):
        numbers = range(first, min(first + _CHUNK, count))
        for scene in zip(
            *render(seed, f"seasons/{part}", numbers, size, _PARTS[part]), strict=True
        ):
            yield list(scene)


def write(
    root: str | Path, size: int = 64, n_train: int = 400, n_test: int = 64, seed: int = 0
) -> Path:
    """Writes the set as PNG files in upstream's layout: trainA, trainB, testA, testB.

    A folder that already holds this very set is left as it is. The folder appears when it is
    complete and not before.

    Args:
        root: folder to make; its parents are made too.
        size: side of the square pictures, 16 or more.
        n_train: pictures in each of trainA and trainB.
        n_test: scenes in testA and testB: testA/0007.png and testB/0007.png are one scene.
        seed: seed of the set, in [0, 2**64).

    Returns:
        root.

    Raises:
        DataError: root holds something else.
        ValueError: an argument is out of range.
    """
    for name, value, least in (("size", size, 16), ("n_train", n_train, 1), ("n_test", n_test, 1)):
        if value < least:
            raise ValueError(f"seasons: {name} must be {least} or more, got {value}")
    root = Path(root)
    description = {"set": "seasons 1", "size": size, "n_train": n_train, "n_test": n_test}
    description["seed"] = seed
    if _found(root) == description:
        return root
    if root.is_file() or (root.is_dir() and any(root.iterdir())):
        raise DataError(
            f"{printable(root)} already exists and is not the seasons set asked for "
            f"({description}); name another folder, or remove it"
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = root.with_name(f".{root.name}.{os.getpid()}.partial")
    try:
        _write_all(partial, size, n_train, n_test, seed)
        (partial / _MARKER).write_text(json.dumps(description, indent=1) + "\n")
        os.replace(partial, root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root


def _write_all(root: Path, size: int, n_train: int, n_test: int, seed: int) -> None:
    from PIL import Image

    for part, folders in (("trainA", "A"), ("trainB", "B"), ("test", "AB")):
        phase, count = ("test", n_test) if part == "test" else ("train", n_train)
        for side in folders:
            (root / (phase + side)).mkdir(parents=True)
        for number, scene in enumerate(paint(part, count, size, seed)):
            for side, pixels in zip(folders, scene, strict=True):
                path = root / (phase + side) / f"{number:04d}.png"
                Image.fromarray(pixels).save(path, compress_level=4)


def _found(root: Path) -> dict[str, object] | None:
    try:
        return json.loads((root / _MARKER).read_text())
    except (OSError, ValueError):
        return None
