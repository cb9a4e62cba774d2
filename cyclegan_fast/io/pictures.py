# SPDX-License-Identifier: MIT
"""Write pictures: whole or not at all, and never over another one unless asked."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from PIL.Image import Image

# File name ending -> Pillow's format and its options. JPEG at 95 without chroma subsampling is the
# point above which files grow and pictures do not get better to the eye.
_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 95}),
    ".bmp": ("BMP", {}),
    ".ppm": ("PPM", {}),
    ".tif": ("TIFF", {"compression": "tiff_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_deflate"}),
}


def levels(x: torch.Tensor) -> torch.Tensor:
    """Return pictures as grey levels on their device: round((x + 1) / 2 * 255), clipped.

    Upstream cuts the fraction off instead, which darkens by half a grey level.

    Args:
        x: [N, C, H, W] or [C, H, W] floating point, in [-1, 1].

    Returns:
        uint8 [N, H, W, C] or [H, W, C], contiguous.
    """
    scaled = ((x.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return scaled.movedim(-3, -1).contiguous()


def to_uint8(x: torch.Tensor) -> np.ndarray:
    """Return the `levels` of pictures on any device as an array."""
    return levels(x).cpu().numpy()


def encode(picture: np.ndarray, ending: str = ".png") -> bytes:
    """Return the bytes of a picture file.

    Args:
        picture: uint8 [H, W, C], C 1 (written as grey) or 3.
        ending: file name ending that chooses the format, e.g. ".png".

    Raises:
        ValueError: a number of channels that pictures do not have, or an unknown ending.
    """
    from PIL import Image

    if picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise ValueError(f"encode: picture must be [H, W, 1 or 3], got {picture.shape}")
    if ending.lower() not in _FORMATS:
        raise ValueError(f"encode: ending must be one of {' '.join(_FORMATS)}, got {ending!r}")
    kind, options = _FORMATS[ending.lower()]
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def write_bytes(path: Path, data: bytes, overwrite: bool = True) -> bool:
    """Write a file so that a reader, or a kill, meets the whole of it or nothing.

    Args:
        path: the file; its folder exists.
        data: what it shall hold.
        overwrite: replace a file that is there; else leave it.

    Returns:
        Whether it was written.

    Raises:
        OSError: it could not be; a file that was there before is untouched.
    """
    # A name of fixed length: the target's own may be as long as the file system allows. The same
    # target always has the same temporary file, so what a kill leaves behind is used again.
    token = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    part = path.with_name(f".part-{token}")
    try:
        part.write_bytes(data)
        if overwrite:
            os.replace(part, path)
            return True
        return _move_to_free_name(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _move_to_free_name(part: Path, path: Path) -> bool:
    try:
        os.link(part, path)  # fails if the name is taken, in one step
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if path.exists():
            return False
        os.replace(part, path)
    return True


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write uint8 [H, W, C] atomically, in the format that the file's name ends in."""
    write_bytes(path, encode(picture, path.suffix))


def sheet(
    columns: Sequence[str], rows: Sequence[Sequence[torch.Tensor]], gap: int = 4, scale: int = 0
) -> np.ndarray:
    """Lay pictures out in a table with a heading over each column.

    Args:
        columns: headings.
        rows: one sequence of [C, H, W] tensors in [-1, 1] per row, one for each column; grey and
            colour may be mixed, sizes may not.
        gap: pixels between pictures.
        scale: each pixel becomes scale x scale; 0 brings small pictures to about 128 pixels.

    Returns:
        uint8 [H, W, 3].
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = rows[0][0].shape[-2:]
    scale = scale or max(1, round(128 / max(height, width)))
    cell_h, cell_w = height * scale, width * scale
    size = max(11, min(16, cell_w // 8))
    font = ImageFont.load_default(size)
    top = size + 2 * gap
    canvas = Image.new(
        "RGB",
        (gap + len(columns) * (cell_w + gap), top + len(rows) * (cell_h + gap)),
        "white",
    )
    draw = ImageDraw.Draw(canvas)
    for j, heading in enumerate(columns):
        draw.text((gap + j * (cell_w + gap) + cell_w // 2, top // 2), heading, "black", font, "mm")
    for i, row in enumerate(rows):
        for j, tensor in enumerate(row):
            place = (gap + j * (cell_w + gap), top + i * (cell_h + gap))
            canvas.paste(_rgb(tensor, (cell_w, cell_h)), place)
    return np.asarray(canvas)


def _rgb(tensor: torch.Tensor, size: tuple[int, int]) -> Image:
    from PIL import Image

    picture = to_uint8(tensor)
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST)
