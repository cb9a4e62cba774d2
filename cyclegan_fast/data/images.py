# SPDX-License-Identifier: MIT
"""Reading one picture file into 8-bit grey levels, under a stated policy.

| in the file | what is done |
| --- | --- |
| EXIF orientation | applied |
| 16 bits per channel | scaled to 8: 0..65535 to 0..255, all 256 levels kept |
| float | 0..1 to 0..255; refused when a value lies outside 0..1 |
| 32-bit integer | as 16 bits; refused when a value lies outside 0..65535 |
| alpha, transparent colour | composited over a background colour, white unless told |
| palette, CMYK, YCbCr, 1 bit | converted |
| colour profile | ignored, as upstream does |
| several pictures (animation, pages) | the first |
| cut short, damaged, not a picture | refused |
| format outside FORMATS, whatever the name | refused before any decoding |
| more pixels than the budget | refused before any decoding |

Everything but the last four and the profile is reported in `Picture.notes`. Refused means
BadImageError, which names the file and the reason.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cyclegan_fast.errors import BadImageError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FORMATS", "MAX_PIXELS", "Picture", "open_picture", "read_image"]

# Pillow opens some forty formats by content, EPS (through Ghostscript) and PDF among them.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")
MAX_PIXELS = 2**26  # 8192 x 8192, 200 MB as RGB; below the 89 Mpx at which Pillow itself warns
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: uint8 [H, W, C], C is 1 or 3.
        notes: what was changed on the way, in words; empty for a plain 8-bit picture.
    """

    pixels: np.ndarray
    notes: tuple[str, ...] = ()


def read_image(
    path: str | Path,
    channels: int = 3,
    *,
    background: tuple[int, int, int] = WHITE,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Reads a picture file as 8-bit RGB or grey.

    Grey is 0.299 R + 0.587 G + 0.114 B of the RGB picture (ITU-R BT.601), as upstream's.

    Args:
        path: the file.
        channels: 3 for RGB, 1 for grey.
        background: RGB colour, 0..255, behind transparent pixels.
        max_pixels: refuse a picture whose width times height is larger.

    Returns:
        uint8 [H, W, channels].

    Raises:
        BadImageError: the file is refused; see the table above.
        ValueError: an argument is out of range.
    """
    return open_picture(path, channels, background=background, max_pixels=max_pixels).pixels


def open_picture(
    path: str | Path,
    channels: int = 3,
    *,
    background: tuple[int, int, int] = WHITE,
    max_pixels: int = MAX_PIXELS,
) -> Picture:
    """Reads a picture file and says what was changed on the way; arguments as `read_image`."""
    if channels not in (1, 3):
        raise ValueError(f"read_image: channels must be 1 or 3, got {channels}")
    if len(background) != 3 or not all(0 <= level <= 255 for level in background):
        raise ValueError(f"read_image: background must be three of 0..255, got {background}")
    try:
        # A pipe would block here for ever, so the kind is asked first.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BadImageError(str(path), "is not a file (a folder, pipe, socket or device)")
        with open(path, "rb") as file:
            return _decode(file, path, channels, background, max_pixels)
    except BadImageError:
        raise
    except OSError as error:
        reason = error.strerror if error.errno else f"cannot be decoded ({error})"
        raise BadImageError(str(path), f"{reason}") from error
    except Exception as error:
        # Decoders of damaged bytes raise nearly anything: SyntaxError, struct.error, KeyError, ...
        reason = f"cannot be decoded ({type(error).__name__}: {error})"
        raise BadImageError(str(path), reason) from error


def _decode(file, path, channels: int, background, max_pixels: int) -> Picture:
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImageError(
            str(path), f"is no picture in a format of {' '.join(FORMATS)}"
        ) from None
    except Image.DecompressionBombError as error:
        raise BadImageError(str(path), f"has too many pixels ({error})") from None
    with image:
        width, height = image.size
        if width * height > max_pixels:
            reason = f"has {width} x {height} pixels, more than the budget of {max_pixels}"
            raise BadImageError(str(path), f"{reason}; scale it down or raise max_pixels")
        notes = []
        if _has_deep_colour(image):
            notes.append("scaled from 16 bits")
            transparent = image.info.get("transparency")
            if isinstance(transparent, tuple):  # told in 16 bits too
                image.info["transparency"] = tuple(level >> 8 for level in transparent)
        if _holds_several(image):
            notes.append("first of several pictures")
        image.load()
        upright = _upright(image)
        if upright is not image:
            notes.append("turned as EXIF says")
        rgb = _to_rgb(upright, background, notes, path)
    rgb = rgb.convert("L") if channels == 1 else rgb
    pixels = np.array(rgb).reshape(rgb.height, rgb.width, channels)
    return Picture(pixels, tuple(notes))


def _upright(image: Image.Image) -> Image.Image:
    """Applies EXIF orientation; unreadable EXIF says nothing about it."""
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    try:
        turn = turns.get(image.getexif().get(0x0112, 1))
    except Exception:  # EXIF is a whole TIFF file of its own, with as many ways to be damaged
        return image
    return image if turn is None else image.transpose(turn)


def _has_deep_colour(image: Image.Image) -> bool:
    """True for 16-bit colour, of which Pillow keeps the upper bytes; ask before `load`."""
    if image.mode.startswith("I"):
        return False
    arguments = [tile[3] for tile in getattr(image, "tile", [])]
    flat = [part for each in arguments for part in (each if isinstance(each, tuple) else (each,))]
    return any(isinstance(part, str) and ";16" in part for part in flat) or (
        image.format == "PPM" and any(isinstance(part, int) and part > 255 for part in flat)
    )


def _holds_several(image: Image.Image) -> bool:
    try:
        return getattr(image, "n_frames", 1) > 1
    except Exception:  # a damaged second picture does not spoil the first
        return True


def _to_rgb(image: Image.Image, background, notes: list[str], path) -> Image.Image:
    from PIL import Image

    mode, transparent = image.mode, image.info.get("transparency")
    if mode.startswith("I") or mode == "F":
        grey, alpha = _grey_of_deep(image, transparent, notes, path)
        if alpha is None:
            return grey.convert("RGB")
        image = Image.merge("RGBA", (grey, grey, grey, alpha))
    elif mode in ("LA", "La", "PA", "RGBA", "RGBa") or transparent is not None:
        image = (image.convert("LA") if mode == "La" else image).convert("RGBA")
    else:
        if mode not in ("RGB", "L"):
            notes.append(f"converted from {'1 bit' if mode == '1' else mode}")
        return image.convert("RGB")
    if image.getchannel("A").getextrema()[0] == 255:
        return image.convert("RGB")
    notes.append("alpha composited over rgb({}, {}, {})".format(*background))
    behind = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(behind, image).convert("RGB")


def _grey_of_deep(image: Image.Image, transparent, notes: list[str], path):
    """Scales 16-bit, 32-bit and float grey to 8 bits; returns the picture and its alpha, if any."""
    from PIL import Image

    deep = np.asarray(image)
    low, high = deep.min(), deep.max()
    if image.mode == "F":
        if not (low >= 0 and high <= 1):  # also catches nan
            reason = f"is a float picture with values {low:g} to {high:g}; 0 to 1 can be read"
            raise BadImageError(str(path), f"{reason}; convert it to 8 or 16 bits")
        grey = (deep * 255.0 + 0.5).astype(np.uint8)
        notes.append("scaled from float")
    else:
        if low < 0 or high > 65535:
            reason = f"is a 32-bit picture with values {low} to {high}; 0 to 65535 can be read"
            raise BadImageError(str(path), f"{reason}; convert it to 8 or 16 bits")
        grey = ((deep.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        notes.append("scaled from 16 bits")
    alpha = None
    if isinstance(transparent, int):
        alpha = Image.fromarray(np.where(deep == transparent, 0, 255).astype(np.uint8))
    return Image.fromarray(grey), alpha
