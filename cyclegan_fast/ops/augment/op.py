# SPDX-License-Identifier: MIT
"""augment: checks, custom op, fake; the kernels live behind the back ends."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.augment.packed import PackedPictures
from cyclegan_fast.ops.augment.reference import augment_reference

STEM = "augment"
_FORMATS = (torch.contiguous_format, torch.channels_last)

backend.register(STEM, _common.PROBES, _common.PREFERENCE)


def augment(
    pictures: PackedPictures,
    picks: Tensor,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Scale, crop, mirror and normalise 8-bit pictures into a batch, in one launch.

        scaled = Pillow's bicubic filter, its whole-number arithmetic included
        y[i, c, h, w] = (scaled[top + h, left + w'] / 255 - 0.5) / 0.5, w' = W - 1 - w if mirrored

    Only what lies in the crop is scaled. The division is float32's, as in torchvision's ToTensor
    and Normalize, whatever dtype the result is converted to.

    Args:
        pictures: P pictures on a device, each with the size it is scaled to.
        picks: [N, 4] int64 on the device, contiguous: picture, top, left, mirrored (0 or not). It
            is not read here: a number outside its range is moved to the nearest inside.
        size: height and width of the crop, at most pictures.least.
        dtype: float16, bfloat16, float32 or float64.
        memory_format: torch.contiguous_format or torch.channels_last.

    Returns:
        [N, C, H, W] in [-1, 1].

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: a crop that does not fit, or picks of another shape or device.
        BackendUnavailableError: a back end chosen by name cannot serve.

    Gradients: none; pictures are whole numbers.

    Source: upstream's data/base_dataset.py; Pillow's Resample.c.
    """
    size = _check(pictures, picks, size, dtype, memory_format)
    chosen = backend.resolve(STEM, picks.device.type, dtype)
    if chosen == "reference":
        if not torch.compiler.is_compiling():
            backend.count(STEM, chosen)
        return augment_reference(pictures, picks, size, dtype, memory_format)
    return _augment(
        pictures.levels,
        pictures.table,
        pictures.taps,
        picks,
        [pictures.channels, *size],
        dtype,
        memory_format == torch.channels_last,
        chosen,
    )


@torch.library.custom_op("cyclegan_fast::augment", mutates_args=())
def _augment(
    levels: Tensor,
    table: Tensor,
    taps: Tensor,
    picks: Tensor,
    shape: list[int],
    dtype: torch.dtype,
    channels_last: bool,
    backend_name: str,
) -> Tensor:
    out = _blank(picks, shape, dtype, channels_last)
    if out.numel():
        _common.kernels(STEM, backend_name).augment_fwd(levels, table, taps, picks, out)
    backend.count(STEM, backend_name)
    return out


@_augment.register_fake
def _(levels, table, taps, picks, shape, dtype, channels_last, backend_name):
    return _blank(picks, shape, dtype, channels_last)


def _blank(picks: Tensor, shape: list[int], dtype: torch.dtype, channels_last: bool) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(
        (picks.shape[0], *shape), dtype=dtype, device=picks.device, memory_format=layout
    )


def _check(
    pictures: PackedPictures,
    picks: Tensor,
    size: tuple[int, int],
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> tuple[int, int]:
    if not isinstance(pictures, PackedPictures):
        raise TypeError(
            f"{STEM}: pictures must be PackedPictures, got {type(pictures).__name__}; make them "
            "with PackedPictures.pack"
        )
    if not isinstance(picks, Tensor) or picks.dtype != torch.int64:
        kind = getattr(picks, "dtype", type(picks).__name__)
        raise TypeError(f"{STEM}: picks must be an int64 tensor, got {kind}")
    if picks.dim() != 2 or picks.shape[1] != 4 or not picks.is_contiguous():
        raise ValueError(f"{STEM}: picks must be contiguous [N, 4], got {list(picks.shape)}")
    if picks.device != pictures.table.device:
        raise ValueError(
            f"{STEM}: picks must be on pictures' device {pictures.table.device}, got {picks.device}"
        )
    if dtype not in _common.FLOATS:
        raise TypeError(f"{STEM}: dtype must be float16, bfloat16, float32 or float64, got {dtype}")
    if memory_format not in _FORMATS:
        raise ValueError(
            f"{STEM}: memory_format must be torch.contiguous_format or torch.channels_last, got "
            f"{memory_format}"
        )
    if not (isinstance(size, (tuple, list)) and len(size) == 2):
        raise TypeError(f"{STEM}: size must be (height, width), got {size!r}")
    height, width = size
    if not all(isinstance(side, int) and not isinstance(side, bool) for side in size):
        raise TypeError(f"{STEM}: size must be two whole numbers, got {size!r}")
    if not (1 <= height <= pictures.least[0] and 1 <= width <= pictures.least[1]):
        raise ValueError(
            f"{STEM}: size must be within 1 x 1 and the smallest scaled picture "
            f"{pictures.least[0]} x {pictures.least[1]}, got {height} x {width}"
        )
    return height, width
