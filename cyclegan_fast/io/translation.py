# SPDX-License-Identifier: MIT
"""Run a generator over pictures of any size.

A network that halves its input n times needs sides that are multiples of 2^n. Pictures are mirrored
outwards to the next such size, translated, and cut back, so what comes out is as large as what went
in. A picture whose size fits already is not touched, and neither is its result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cyclegan_fast.io import pictures
from cyclegan_fast.io.architecture import Architecture
from cyclegan_fast.io.captured import Captured


def mirror_indices(size: int, target: int) -> Tensor:
    """Return where each of ``target`` positions looks in a mirrored axis of ``size`` pixels.

    The axis is mirrored at its outer pixels as often as needed, so a target many times the size is
    fine; one pixel is repeated. The original lies in the middle, at (target - size) // 2.

    Args:
        size: pixels there are, 1 or more.
        target: pixels wanted, size or more.

    Returns:
        int64 [target], values in [0, size).
    """
    position = torch.arange(target) - (target - size) // 2
    period = max(2 * (size - 1), 1)
    position = position.abs() % period
    return torch.minimum(position, period - position).clamp_max(size - 1)


def fitting_size(size: int, architecture: Architecture) -> int:
    """Return the least size not below ``size`` that the network takes."""
    step = architecture.multiple
    return max(-(-size // step) * step, architecture.smallest)


def translate_tensor(net: nn.Module, x: Tensor, architecture: Architecture) -> Tensor:
    """Translate pictures of any size.

    Args:
        net: the generator.
        x: [N, C, H, W] in [-1, 1], H and W 1 or more.
        architecture: what the network is; says which sizes it takes.

    Returns:
        [N, C', H, W] in [-1, 1].
    """
    height, width = x.shape[-2:]
    wanted = [fitting_size(n, architecture) for n in (height, width)]
    if wanted == [height, width]:
        return net(x)
    for axis, size, target in ((-2, height, wanted[0]), (-1, width, wanted[1])):
        x = x.index_select(axis, mirror_indices(size, target).to(x.device))
    top, left = (wanted[0] - height) // 2, (wanted[1] - width) // 2
    return net(x)[..., top : top + height, left : left + width]


class Translator:
    """A generator on its device, ready for uint8 pictures.

    On a GPU batches of a size that comes often are replays of a CUDA graph, and `start` does not
    wait for them.

    Args:
        net: the generator; moved to the device, and accelerated where its layers are known.
        architecture: what it is.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "fp32", "bf16" or "fp16"; auto is bf16 or fp16 on a GPU, else fp32.

    Attributes:
        captured: the graphs and how often they served; None on a CPU.
    """

    def __init__(
        self,
        net: nn.Module,
        architecture: Architecture,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        from cyclegan_fast.fusion import accelerate
        from cyclegan_fast.training.precision import resolve_device, resolve_precision

        self.architecture = architecture
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.net = accelerate(net.to(self.device).eval())
        on_gpu = self.device.type == "cuda"
        self.captured = Captured(self._levels, self.device) if on_gpu else None

    @torch.inference_mode()
    def tensor(self, x: Tensor) -> Tensor:
        """Translate [N, C, H, W] in [-1, 1]; the result is float32 on the same device."""
        with self.precision.autocast():
            return translate_tensor(self.net, x.to(self.device), self.architecture).float()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Translate uint8 [N, H, W, C] to uint8 [N, H, W, C']."""
        return np.stack(self.start(list(batch))())

    def fitting(self, height: int, width: int) -> tuple[int, int]:
        """Return the size at which a picture goes through the network: that of its batch."""
        return fitting_size(height, self.architecture), fitting_size(width, self.architecture)

    @torch.inference_mode()
    def start(self, group: Sequence[np.ndarray]) -> Callable[[], list[np.ndarray]]:
        """Begin to translate pictures in one batch.

        Args:
            group: uint8 [H, W, C] each, all of one `fitting` size.

        Returns:
            What waits for the results, uint8 [H, W, C'] each, in the order of the pictures.

        Raises:
            torch.OutOfMemoryError: the GPU has no room for so many pictures of this size.
        """
        height, width = self.fitting(*group[0].shape[:2])
        shape = (len(group), height, width, group[0].shape[2])
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=self.captured is not None)
        for row, picture in zip(batch.numpy(), group, strict=True):
            _mirror(picture, row)
        places = [_middle(picture.shape[:2], (height, width)) for picture in group]
        if self.captured is None:
            made = self._levels(batch)
            return lambda: _cut(made, places)
        with torch.cuda.device(self.device):
            on_device = self.captured(batch)
            results = torch.empty(on_device.shape, dtype=torch.uint8, pin_memory=True)
            results.copy_(on_device, non_blocking=True)
            # Who waits leaves the processor to those who decode and encode.
            arrived = torch.cuda.Event(blocking=True)
            arrived.record()

        def wait() -> list[np.ndarray]:
            arrived.synchronize()
            return _cut(results, places)

        return wait

    def _levels(self, batch: Tensor) -> Tensor:
        """uint8 [N, H, W, C] that the network takes to uint8 [N, H, W, C'], on the device."""
        x = batch.movedim(-1, 1).float() / 127.5 - 1
        with self.precision.autocast():
            return pictures.levels(self.net(x))


def _mirror(picture: np.ndarray, target: np.ndarray) -> None:
    """Write a picture into the middle of a target as large or larger, mirrored outwards."""
    if picture.shape == target.shape:
        target[...] = picture
        return
    rows, columns = (
        mirror_indices(picture.shape[axis], target.shape[axis]).numpy() for axis in (0, 1)
    )
    target[...] = picture[rows[:, None], columns]


def _middle(size: tuple[int, ...], whole: tuple[int, ...]) -> tuple[slice, ...]:
    """Where in its mirrored form a picture lies."""
    return tuple(
        slice(start := (n - own) // 2, start + own) for own, n in zip(size, whole, strict=True)
    )


def _cut(batch: Tensor, places: Sequence[tuple[slice, ...]]) -> list[np.ndarray]:
    return [row[place] for row, place in zip(batch.numpy(), places, strict=True)]
