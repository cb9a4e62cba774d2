# SPDX-License-Identifier: MIT
"""Run a generator over pictures of any size.

A network that halves its input n times needs sides that are multiples of 2^n. Pictures are mirrored
outwards to the next such size, translated, and cut back, so what comes out is as large as what went
in. A picture whose size fits already is not touched, and neither is its result.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from cyclegan_fast.io import pictures
from cyclegan_fast.io.architecture import Architecture


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

    Args:
        net: the generator; moved to the device, and accelerated where its layers are known.
        architecture: what it is.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "fp32", "bf16" or "fp16"; auto is bf16 or fp16 on a GPU, else fp32.
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

    @torch.inference_mode()
    def tensor(self, x: Tensor) -> Tensor:
        """Translate [N, C, H, W] in [-1, 1]; the result is float32 on the same device."""
        with self.precision.autocast():
            return translate_tensor(self.net, x.to(self.device), self.architecture).float()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Translate uint8 [N, H, W, C] to uint8 [N, H, W, C']."""
        x = torch.from_numpy(batch).to(self.device).movedim(-1, 1).float() / 127.5 - 1
        return pictures.to_uint8(self.tensor(x))
