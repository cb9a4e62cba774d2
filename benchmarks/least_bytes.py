# SPDX-License-Identifier: MIT
"""The least that an iteration of CycleGAN asks of a GPU with one kernel for norm, act, add and pad.

Arithmetic on the shapes of upstream's networks, 16-bit tensors, fp32 weights with a 16-bit copy:
every convolution reads its padded input and its weight and writes its output; one kernel per norm
reads that output twice (statistics, then writing) and writes the padded input of the next one;
backward likewise; Adam and the losses are one kernel each. Six generator passes, none merged.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

HALF, FULL = 2, 4  # bytes of an element


@dataclass(frozen=True)
class Layer:
    """A convolution and what follows it, up to the next one."""

    channels_in: int
    channels: int
    kernel: int
    size_in: int  # of the unpadded input
    size: int  # of the output
    reflect: int = 0  # reflection padding of the input
    norm: bool = True
    adds: bool = False  # a residual, after the norm

    @property
    def weight(self) -> int:
        """Elements of the weight."""
        return self.channels_in * self.channels * self.kernel**2

    @property
    def padded_in(self) -> int:
        """Elements of one image's padded input."""
        return self.channels_in * (self.size_in + 2 * self.reflect) ** 2

    @property
    def out(self) -> int:
        """Elements of one image's output."""
        return self.channels * self.size**2


def generator(size: int, width: int = 64, blocks: int = 9) -> list[Layer]:
    """resnet_9blocks."""
    half, quarter = size // 2, size // 4
    trunk = {"channels_in": 4 * width, "channels": 4 * width, "kernel": 3, "reflect": 1}
    trunk |= {"size_in": quarter, "size": quarter}
    block = [Layer(**trunk), Layer(**trunk, adds=True)]
    return [
        Layer(3, width, 7, size, size, reflect=3),
        Layer(width, 2 * width, 3, size, half),
        Layer(2 * width, 4 * width, 3, half, quarter),
        *block * blocks,
        Layer(4 * width, 2 * width, 3, quarter, half),
        Layer(2 * width, width, 3, half, size),
        Layer(width, 3, 7, size, size, reflect=3, norm=False),
    ]


def discriminator(size: int, width: int = 64) -> list[Layer]:
    """The 70 x 70 PatchGAN."""
    sizes = [size, size // 2, size // 4, size // 8, size // 8 - 1, size // 8 - 2]
    channels = [3, width, 2 * width, 4 * width, 8 * width, 1]
    return [
        Layer(channels[i], channels[i + 1], 4, sizes[i], sizes[i + 1], norm=0 < i < 4)
        for i in range(5)
    ]


def least(size: int, batch: int) -> dict[str, tuple[int, int]]:
    """Return {group: (launches, bytes)} of one iteration at a batch size."""
    total: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    def kernel(group: str, moved: int, copies: int = 2) -> None:  # of A and of B
        total[group][0] += copies
        total[group][1] += copies * moved

    # The network, whether the picture and whether the weights need gradients; fake, rec, idt,
    # D(fake) for G, D(real), D(pooled fake).
    g, d = generator(size), discriminator(size)
    uses = [(g, False, True), (g, True, True), (g, False, True)]
    uses += [(d, True, False), (d, False, True), (d, False, True)]
    seen: list[list[Layer]] = []
    for layers, picture, weights in uses:
        _pass(kernel, layers, batch, picture, weights, accumulate=layers in seen)
        if weights:
            seen.append(layers)
    # Gradient, two moments and weight read; three written, and the 16-bit copy.
    for layers in (g, d):
        parameters = sum(layer.weight + layer.channels for layer in layers)
        kernel("optimisers", 2 * parameters * (7 * FULL + HALF), copies=1)
    picture = batch * 3 * size**2 * HALF
    kernel("losses", 18 * picture, copies=1)  # six images and their originals, and the gradients
    return {group: (launches, moved) for group, (launches, moved) in total.items()}


def least_joined(size: int, batch: int, *, on_load: bool) -> dict[str, tuple[int, int]]:
    """Return the same where passes are joined, and convolutions leave norms' statistics and sums.

    So a norm's kernel reads its input once each way, or there is none. A generator runs twice and a
    discriminator once, on all pictures of their kind, and each weight's gradient is taken once.

    Args:
        size: of the pictures.
        batch: pictures of each side.
        on_load: convolutions do the norms beside them while they load. A sum with a residual is
            written all the same, and backward the gradient at each norm's own result.
    """
    total: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    def kernel(group: str, moved: int) -> None:  # of A and of B, side by side
        total[group][0] += 1
        total[group][1] += 2 * moved

    g, d = generator(size), discriminator(size)
    go = _pass_on_load if on_load else _joined_pass
    # The network; pictures of a pass, those whose gradient counts, those of the weights' gradients.
    for layers, passes in ((g, ((2, 0, 2), (1, 1, 1))), (d, ((3, 1, 2),))):
        for images, of_picture, _ in passes:
            go(kernel, layers, batch * images, batch * of_picture)
        learned = batch * sum(weights for *_, weights in passes)
        for i, layer in enumerate(layers):
            image = layer.out + layer.padded_in
            if on_load:
                image = layer.out * (1 + layer.norm) + _read(layers, i)
            kernel("convolutions", learned * image * HALF + layer.weight * FULL)
        parameters = sum(layer.weight + layer.channels for layer in layers)
        kernel("optimisers", parameters * (7 * FULL + HALF))
    picture = batch * 3 * size**2 * HALF
    total["losses"] = [1, 18 * picture]
    return {group: (launches, moved) for group, (launches, moved) in total.items()}


def _joined_pass(kernel, layers, n: int, of_picture: int) -> None:
    before: Layer | None = None
    for i, layer in enumerate(layers):
        following = layers[i + 1] if i + 1 < len(layers) else None
        x, y = n * layer.padded_in * HALF, n * layer.out * HALF
        weight = layer.weight * HALF
        kernel("convolutions", x + weight + y)
        padded = n * following.padded_in * HALF if following else y
        residual = y if layer.adds else 0
        if layer.norm:
            kernel("norms", y + residual + padded)
            kernel("norms", padded + 2 * residual + y + y)
        elif following is not None:
            kernel("norms", padded + 2 * y)
        if before is not None:
            read = before.out * n * HALF if before.norm else 0  # for the sums
            kernel("convolutions", y + weight + x + read)
        elif of_picture:
            kernel("convolutions", (y + x) // n * of_picture + weight)
        before = layer


def _pass_on_load(kernel, layers, n: int, of_picture: int) -> None:
    for i, layer in enumerate(layers):
        before = layers[i - 1] if i else None
        x, y = n * _read(layers, i) * HALF, n * layer.out * HALF
        weight = layer.weight * HALF
        kernel("convolutions", x + weight + y)
        if layer.adds or _starts(layers, i):
            # The stream that blocks add to is written, and read where it is added to.
            kernel("norms", y * (1 + layer.adds) + n * layers[i + 1].padded_in * HALF)
        # What comes back is masked already, and the norm's gradient is made of it and of y.
        back = y * (1 + layer.norm)
        if before is not None:
            own = n * before.out * HALF
            skip = own if layers[i - 1].adds or _starts(layers, i - 1) else 0
            kernel("convolutions", back + weight + own + own * before.norm + skip)
        elif of_picture:
            kernel("convolutions", (back + x) // n * of_picture + weight)


def _starts(layers: list[Layer], i: int) -> bool:
    """Whether the first residual block begins behind a layer."""
    return (
        i + 2 < len(layers) and layers[i + 2].adds and not layers[i].adds and not layers[i].reflect
    )


def _read(layers: list[Layer], i: int) -> int:
    """Elements that a layer reads of an image: padded where that has been written."""
    written = i == 0 or layers[i - 1].adds or _starts(layers, i - 1)
    return layers[i].padded_in if written else layers[i - 1].out


def _pass(kernel, layers, n: int, picture: bool, weights: bool, accumulate: bool) -> None:
    for i, layer in enumerate(layers):
        following = layers[i + 1] if i + 1 < len(layers) else None
        x, y = n * layer.padded_in * HALF, n * layer.out * HALF
        weight = layer.weight
        padded = n * following.padded_in * HALF if following else y
        kernel("convolutions", x + weight * HALF + y)
        residual = y if layer.adds else 0
        if layer.norm:
            kernel("norms", 2 * y + residual + padded)
            # The padded gradient and the convolution's output, each twice; the skip's.
            kernel("norms", 2 * padded + 2 * residual + 2 * y + y)
        elif following is not None:
            kernel("norms", padded + 2 * y)
        if i > 0 or picture:
            kernel("convolutions", y + weight * HALF + x)
        if weights:
            kernel("convolutions", y + x + weight * FULL)
            if accumulate:
                kernel("accumulated weight gradients", 3 * weight * FULL)
