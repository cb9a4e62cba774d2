# SPDX-License-Identifier: MIT
"""pool_exchange: checks, custom op, fake; the kernels live behind the back ends."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.pool_exchange.reference import pool_exchange_reference

STEM = "pool_exchange"

backend.register(STEM, _common.PROBES, _common.PREFERENCE)


def pool_exchange(rows: Tensor, pictures: Tensor, take: Tensor, put: Tensor) -> Tensor:
    """Show pictures from a history of generated ones, and keep new ones in it, in one launch.

        shown[i] = rows[take[i]]                  if take[i] < size, as it was before the call
                   pictures[take[i] - size]       otherwise
        rows[put[i]] = finite(pictures[i])        if 0 <= put[i] < size, after that

    finite replaces nan by 0 and infinities by 1 and -1: a picture of a step that overflowed must
    not come back for ever.

    Args:
        rows: [size + 1, C, H, W] float16, bfloat16, float32 or float64, contiguous or
            channels_last; written in place, but for the last row, which means nothing.
        pictures: [N, C, H, W], rows' dtype and device, any layout.
        take: [N] int64 on the device. It is not read here, so a number outside [0, size + N) is
            moved to the nearest inside.
        put: [N] int64 on the device, no row twice; numbers outside [0, size) keep nothing.

    Returns:
        [N, C, H, W] in rows' layout.

    Raises:
        TypeError: a dtype that is not floating-point, or indices that are not int64.
        ValueError: shapes, dtypes or devices that differ, or no row to keep a picture in.
        BackendUnavailableError: a back end chosen by name cannot serve.

    Gradients: none; pictures are detached.

    Source: Shrivastava et al. 2017, arXiv:1612.07828, section 2.3; Zhu et al. 2017,
    arXiv:1703.10593, section 4.
    """
    pictures = pictures.detach()
    _check(rows, pictures, take, put)
    chosen = backend.resolve(STEM, rows.device.type, rows.dtype)
    if chosen == "reference":
        if not torch.compiler.is_compiling():
            backend.count(STEM, chosen)
        return pool_exchange_reference(rows, pictures, take, put)
    layout = _common.memory_format(rows)
    return _exchange(rows, pictures.contiguous(memory_format=layout), take, put, chosen)


@torch.library.custom_op("cyclegan_fast::pool_exchange", mutates_args=("rows",))
def _exchange(
    rows: Tensor, pictures: Tensor, take: Tensor, put: Tensor, backend_name: str
) -> Tensor:
    shown = torch.empty_like(pictures)
    if pictures.numel():
        _common.kernels(STEM, backend_name).pool_exchange_fwd(rows, pictures, take, put, shown)
    backend.count(STEM, backend_name)
    return shown


@_exchange.register_fake
def _(rows, pictures, take, put, backend_name):
    return torch.empty_like(pictures)


def _check(rows: Tensor, pictures: Tensor, take: Tensor, put: Tensor) -> None:
    _common.check_image(STEM, "rows", rows)
    _common.check_image(STEM, "pictures", pictures)
    if len(rows) < 2:
        raise ValueError(f"{STEM}: rows must be two pictures or more, got {len(rows)}")
    if rows.shape[1:] != pictures.shape[1:] or rows.dtype != pictures.dtype:
        raise ValueError(
            f"{STEM}: pictures must be {list(rows.shape[1:])} {rows.dtype} as rows, got "
            f"{list(pictures.shape[1:])} {pictures.dtype}"
        )
    if _common.dense(rows) is not rows:
        raise ValueError(
            f"{STEM}: rows must be contiguous or channels_last, got strides {rows.stride()}"
        )
    for name, numbers in (("take", take), ("put", put)):
        if not isinstance(numbers, Tensor) or numbers.dtype != torch.int64:
            kind = getattr(numbers, "dtype", type(numbers).__name__)
            raise TypeError(f"{STEM}: {name} must be an int64 tensor, got {kind}")
        if numbers.shape != pictures.shape[:1] or not numbers.is_contiguous():
            raise ValueError(
                f"{STEM}: {name} must be contiguous [N] = [{len(pictures)}], "
                f"got {list(numbers.shape)}"
            )
    for name, tensor in (("pictures", pictures), ("take", take), ("put", put)):
        if tensor.device != rows.device:
            raise ValueError(
                f"{STEM}: {name} must be on rows' device {rows.device}, got {tensor.device}"
            )
