# SPDX-License-Identifier: MIT
"""Picture files for the tests, the odd ones made byte by byte."""

import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
PHOTO = np.repeat(np.repeat(RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8), 4, 0), 4, 1)
RAMP = np.tile(np.arange(0, 65536, 257, dtype=np.uint16), (4, 1))  # all 256 levels, in 16 bits
LEVELS = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
SMALL = {"load_size": 18, "crop_size": 16}  # for pictures of 20 x 20
LOSSLESS = {"PNG": {}, "TIFF": {}, "BMP": {}, "PPM": {}, "WEBP": {"lossless": True, "exact": True}}


def encoded(pixels, kind, **options) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels: np.ndarray, colour_type: int, *extra: bytes, size=None) -> bytes:
    """A PNG of uint8 or uint16 [H, W] or [H, W, C], as the specification says."""
    height, width = size or pixels.shape[:2]
    depth = 8 * pixels.dtype.itemsize
    rows = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def tiff16(pixels: np.ndarray) -> bytes:
    """An uncompressed little-endian TIFF of uint16 [H, W, 3]."""
    height, width, _ = pixels.shape
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 3, 8 + 2 + 9 * 12 + 4),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8 + 2 + 9 * 12 + 4 + 6),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, pixels.nbytes),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries
    return head + struct.pack("<I", 0) + struct.pack("<HHH", 16, 16, 16) + pixels.tobytes()


def fill(root: Path, size=(20, 20), **numbers: int) -> Path:
    """Writes random pictures; trainA=5 makes root/trainA/0.png .. 4.png."""
    for folder, count in numbers.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number}.png")
    return root


def fingerprint(batch) -> str:
    text = repr((batch["A_paths"], batch["B_paths"])).encode()
    return hashlib.sha256(
        text + batch["A"].numpy().tobytes() + batch["B"].numpy().tobytes()
    ).hexdigest()


def numbers(paths) -> list[int]:
    return [int(Path(path).stem) for path in paths]
