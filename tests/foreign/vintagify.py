# SPDX-License-Identifier: MIT
"""Translate with a generator that somebody else trained, and compare with plain PyTorch.

The generator is that of the PyPI wheel vintagify 0.1.2 (MIT): a resnet of nine blocks with affine
instance norms, whose blocks are called `block`. It is no part of this package, so this is a script
and not a test; tests/io/test_weights.py has a synthetic file of the same layout.

    pip download --no-deps vintagify==0.1.2
    unzip vintagify-0.1.2-py3-none-any.whl 'vintagify/resources/*'
    python tests/foreign/vintagify.py vintagify/resources/G_A2B_epoch33.pth [PICTURE ...]

Exit status 0 if every difference is within 1e-5 in fp32, on pictures given or on a painted one, and
if what `cyclegan-fast translate` writes is that, rounded.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from cyclegan_fast.cli import main as cyclegan_fast
from cyclegan_fast.data import seasons
from cyclegan_fast.io.translation import Translator
from cyclegan_fast.io.weights import load_generator

LIMIT = 1e-5


class Block(nn.Module):
    """A residual block under the name that the file uses."""

    def __init__(self) -> None:
        super().__init__()
        half = [nn.ReflectionPad2d(1), nn.Conv2d(256, 256, 3), nn.InstanceNorm2d(256, affine=True)]
        other = [nn.ReflectionPad2d(1), nn.Conv2d(256, 256, 3), nn.InstanceNorm2d(256, affine=True)]
        self.block = nn.Sequential(*half, nn.ReLU(), *other)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x plus the block of it."""
        return x + self.block(x)


class Plain(nn.Module):
    """The network of the file in PyTorch's own layers."""

    def __init__(self) -> None:
        super().__init__()

        def after(conv: nn.Module, channels: int) -> list[nn.Module]:
            return [conv, nn.InstanceNorm2d(channels, affine=True), nn.ReLU()]

        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            *after(nn.Conv2d(3, 64, 7), 64),
            *after(nn.Conv2d(64, 128, 3, 2, 1), 128),
            *after(nn.Conv2d(128, 256, 3, 2, 1), 256),
            *(Block() for _ in range(9)),
            *after(nn.ConvTranspose2d(256, 128, 3, 2, 1, 1), 128),
            *after(nn.ConvTranspose2d(128, 64, 3, 2, 1, 1), 64),
            nn.ReflectionPad2d(3),
            nn.Conv2d(64, 3, 7),
            nn.Tanh(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the translation."""
        return self.model(x)


def main(weights: Path, pictures: list[Path]) -> int:
    """Compare on each picture; return the exit status."""
    plain = Plain().eval()
    plain.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    net, info = load_generator(weights)
    print(f"read as {info.architecture}, {info.direction}; {'; '.join(info.notes)}")
    translator = Translator(net, info.architecture, "cpu", "fp32")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        if not pictures:
            pictures = [Path(folder) / "painted.png"]
            Image.fromarray(next(seasons.paint("trainA", 1, size=256))[0]).save(pictures[0])
        for path in pictures:
            with Image.open(path) as image:
                pixels = np.array(image.convert("RGB"))
            pixels = pixels[: pixels.shape[0] // 4 * 4, : pixels.shape[1] // 4 * 4]
            x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
            with torch.no_grad():
                expected = plain(x)
            difference = float((translator.tensor(x) - expected).abs().max())
            moved = float((expected - x).abs().mean())
            worst = max(worst, difference, _written(weights, pixels, expected, Path(folder)))
            print(f"{path.name} {tuple(x.shape[2:])}: largest difference {difference:.2e}, "
                  f"while the picture moved by {moved:.2f} on average")  # fmt: skip
    passed = worst <= LIMIT
    print(f"{'PASS' if passed else 'FAIL'}: {worst:.2e} (limit {LIMIT:g})")
    return 0 if passed else 1


def _written(weights: Path, pixels: np.ndarray, expected: torch.Tensor, folder: Path) -> float:
    """Return by how much the command's picture misses being the plain result, rounded.

    Both sides are rounded to 8 bits; where the exact value lies within LIMIT of the middle between
    two levels, either is right.
    """
    source, out = folder / "cut.png", folder / "out.png"
    Image.fromarray(pixels).save(source)
    command = ["translate", str(weights), str(source), "-o", str(out), "--overwrite"]
    if cyclegan_fast([*command, "--device", "cpu", "--precision", "fp32"]) != 0:
        return float("inf")
    with Image.open(out) as image:
        written = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    beyond = (written - (expected + 1) * 127.5).abs() - 0.5
    return float(beyond.max()) / 127.5


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]))
