# SPDX-License-Identifier: MIT
"""The tensors of a CycleGAN iteration by name: what the ops meet in real runs.

resnet_9blocks and the 70 x 70 PatchGAN at pictures of 256, 512 and 1024 pixels a side. A suite that
takes `bench_size` is run at all of them by the GPU report, one that does not at 256 alone.
"""

from __future__ import annotations

from dataclasses import dataclass

SIZES = (256, 512, 1024)
BATCHES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Layer:
    """What a layer of a network puts out.

    Attributes:
        name: of the layer.
        channels: C.
        divisor: the picture is that many times as large.
        less: pixels that unpadded convolutions took from each side's length.
    """

    name: str
    channels: int
    divisor: int = 1
    less: int = 0

    def shape(self, batch: int, size: int = 256) -> tuple[int, int, int, int]:
        """[N, C, H, W] at pictures of size x size."""
        side = size // self.divisor - self.less
        return (batch, self.channels, side, side)


@dataclass(frozen=True, kw_only=True)
class Norm(Layer):
    """One use of instance_norm_act: what it does to the layer's output, its input."""

    act: str
    pad: int = 0
    residual: bool = False


@dataclass(frozen=True, kw_only=True)
class Pad(Layer):
    """One use of reflect_pad2d."""

    pad: int


NORMS = [
    Norm("stem", 64, act="relu"),
    Norm("down1", 128, 2, act="relu"),
    Norm("down2 and trunk first", 256, 4, act="relu", pad=1),
    Norm("trunk second", 256, 4, act="none", pad=1, residual=True),
    Norm("up1", 128, 2, act="relu"),
    Norm("up2", 64, act="relu", pad=3),
    Norm("patch 2", 128, 4, act="leaky_relu"),
    Norm("patch 3", 256, 8, act="leaky_relu"),
    Norm("patch 4", 512, 8, 1, act="leaky_relu"),
]

# The picture before the first convolution is the one pad that no norm precedes; the others are
# those of a network whose norms are not fused.
PADS = [Pad("image", 3, pad=3), Pad("trunk", 256, 4, pad=1), Pad("head", 64, pad=3)]

HEAD = Layer("head", 3)  # what a generator makes
LOGITS = Layer("patch logits", 1, 8, 2)
