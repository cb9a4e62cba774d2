# SPDX-License-Identifier: MIT
"""Scaling, cropping and mirroring, equal to upstream's Pillow pipeline.

    resize_and_crop         scale to load_size x load_size, then crop
    crop                    crop
    scale_width             scale to width load_size, keeping the shape; height at least crop_size
    scale_width_and_crop    scale_width, then crop
    none                    scale both sides to the nearest multiple of 4

A crop is crop_size x crop_size at a drawn place. Scaling is Pillow's bicubic filter (a = -1/2,
widened when it shrinks, rounded to 8 bits), so pixels equal upstream's exactly.

Reference: pytorch-CycleGAN-and-pix2pix, data/base_dataset.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cyclegan_fast.errors import DataError

__all__ = ["MODES", "Preprocess", "TooSmallError", "to_tensor"]

MODES = ("resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none")

# What torchvision's ToTensor and Normalize(0.5, 0.5) make of the 256 grey levels, to the bit.
_LEVELS = ((np.arange(256, dtype=np.float32) / np.float32(255)) - np.float32(0.5)) / np.float32(0.5)


class TooSmallError(DataError):
    """A picture is too small for the mode or the crop; ``side`` is its shorter side."""

    def __init__(self, message: str, side: int) -> None:
        super().__init__(message)
        self.side = side


def to_tensor(pixels: np.ndarray | list[np.ndarray]) -> Tensor:
    """Turns grey levels into network input: x = (level / 255 - 0.5) / 0.5.

    Args:
        pixels: uint8 [N, H, W, C], or a list of N arrays [H, W, C] of one shape.

    Returns:
        float32 [N, C, H, W] in [-1, 1], contiguous.
    """
    out = np.empty((len(pixels), pixels[0].shape[2], *pixels[0].shape[:2]), dtype=np.float32)
    for picture, place in zip(pixels, out, strict=True):
        # mode="clip" spares numpy a buffer; an 8-bit level is never out of range.
        np.take(_LEVELS, picture.transpose(2, 0, 1), out=place, mode="clip")
    return torch.from_numpy(out)


@dataclass(frozen=True)
class Preprocess:
    """One domain's transformation, in two parts: `resize` is fixed, `crop_and_flip` takes draws.

    Args:
        load_size: side, or width, that pictures are scaled to.
        crop_size: side of the crop; in scale_width the least height.
        mode: one of MODES.
        flip: mirror half of the pictures.

    Raises:
        ValueError: an argument is out of range, or the crop is larger than what it is taken from.
    """

    load_size: int = 286
    crop_size: int = 256
    mode: str = "resize_and_crop"
    flip: bool = True

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"preprocess must be one of {', '.join(MODES)}, got {self.mode!r}")
        for name in ("load_size", "crop_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.scales and self.crops and self.load_size < self.crop_size:
            raise ValueError(
                f"crop_size must be at most load_size, got crop_size {self.crop_size} and "
                f"load_size {self.load_size}; give --crop_size {self.load_size}, or --load_size "
                f"{round(self.crop_size * 286 / 256)} (upstream's ratio, 286 to 256)"
            )

    @property
    def scales(self) -> bool:
        """Whether pictures are scaled to load_size."""
        return "resize" in self.mode or "scale_width" in self.mode

    @property
    def crops(self) -> bool:
        """Whether a square of crop_size is cut out: then every picture leaves with one size."""
        return "crop" in self.mode

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Returns the (height, width) that `resize` gives a picture, before the crop.

        Raises:
            TooSmallError: the picture is smaller than the crop, or vanishes in the rounding.
        """
        h, w = height, width
        if "resize" in self.mode:
            h = w = self.load_size
        elif "scale_width" in self.mode:
            if w != self.load_size or h < self.crop_size:
                w, h = self.load_size, int(max(self.load_size * height / width, self.crop_size))
        elif self.mode == "none":
            h, w = round(height / 4) * 4, round(width / 4) * 4
            if min(h, w) < 4:
                text = f"preprocess none needs pictures of at least 3 x 3, got {width} x {height}"
                raise TooSmallError(text, min(height, width))
        if self.crops and min(h, w) < self.crop_size:
            text = (
                f"crop_size must be at most {min(h, w)} for a picture of {width} x {height}, got "
                f"{self.crop_size}; give --crop_size {min(h, w)}, or --preprocess resize_and_crop"
            )
            raise TooSmallError(text, min(h, w))
        return h, w

    def resize(self, pixels: np.ndarray) -> np.ndarray:
        """Scales a picture, uint8 [H, W, C] with C 1 or 3, before the crop."""
        from PIL import Image

        height, width, channels = pixels.shape
        h, w = self.resized(height, width)
        if (h, w) == (height, width):
            return pixels
        picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        return np.array(picture.resize((w, h), Image.Resampling.BICUBIC)).reshape(h, w, channels)

    def crop_and_flip(
        self, pixels: np.ndarray, place: tuple[float, float], mirror: bool
    ) -> np.ndarray:
        """Cuts out a square and mirrors it.

        Args:
            pixels: uint8 [H, W, C] from `resize`.
            place: vertical and horizontal draw in [0, 1); 0.5 is the middle. Top-left corner is
                floor(draw * (side - crop_size + 1)), every place equally likely.
            mirror: swap left and right.

        Returns:
            A view, uint8 [h, w, C].
        """
        if self.crops:
            size = self.crop_size
            top, left = self.corner(place, pixels.shape[0], pixels.shape[1])
            pixels = pixels[top : top + size, left : left + size]
        return pixels[:, ::-1] if mirror else pixels

    def corner(self, place: tuple[float, float], height: int, width: int) -> tuple[int, int]:
        """Returns top and left of the crop in a picture of height x width after `resize`."""
        top, left = (
            int(draw * (side - self.crop_size + 1))
            for draw, side in zip(place, (height, width), strict=True)
        )
        return top, left
