# SPDX-License-Identifier: MIT
"""The tensors of a CycleGAN iteration at 256 x 256, by name: what the ops meet in real runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Norm:
    """One use of instance_norm_act in resnet_9blocks or the 70 x 70 PatchGAN."""

    name: str
    channels: int
    side: int
    act: str
    pad: int
    residual: bool

    def shape(self, batch: int) -> tuple[int, int, int, int]:
        """[N, C, H, W] of the op's input."""
        return (batch, self.channels, self.side, self.side)


NORMS = [
    Norm("stem", 64, 256, "relu", 0, False),
    Norm("down", 128, 128, "relu", 0, False),
    Norm("block first", 256, 64, "relu", 1, False),
    Norm("block second", 256, 64, "none", 1, True),
    Norm("up to head", 64, 256, "relu", 3, False),
    Norm("patch 2", 128, 64, "leaky_relu", 0, False),
    Norm("patch 4", 512, 31, "leaky_relu", 0, False),
]

# The image itself before the first convolution: the one reflection pad that no norm precedes.
IMAGE = (3, 256)
PATCH_LOGITS = (1, 30)
