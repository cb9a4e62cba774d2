# SPDX-License-Identifier: MIT
"""Networks in other people's styles, to be accelerated without knowing of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def lifted(module: nn.Module, y: Tensor) -> Tensor:
    """A helper in another file than the network that it reads."""
    return y + module.lift


class FastNeuralStyle(nn.Module):
    """As in style transfer: affine norms, padding layers of their own, one ReLU used everywhere."""

    class Conv(nn.Module):
        def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, scale: int = 0):
            super().__init__()
            self.scale = scale
            self.reflection_pad = nn.ReflectionPad2d(kernel // 2)
            self.conv2d = nn.Conv2d(cin, cout, kernel, stride)

        def forward(self, x: Tensor) -> Tensor:
            if self.scale:
                x = F.interpolate(x, mode="nearest", scale_factor=self.scale)
            return self.conv2d(self.reflection_pad(x))

    class Block(nn.Module):
        def __init__(self, channels: int):
            super().__init__()
            self.conv1 = FastNeuralStyle.Conv(channels, channels, 3)
            self.in1 = nn.InstanceNorm2d(channels, affine=True)
            self.conv2 = FastNeuralStyle.Conv(channels, channels, 3)
            self.in2 = nn.InstanceNorm2d(channels, affine=True)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            residual = x
            out = self.relu(self.in1(self.conv1(x)))
            out = self.in2(self.conv2(out))
            out = out + residual
            return out

    def __init__(self, width: int = 4):
        super().__init__()
        self.conv1 = self.Conv(3, width, 9)
        self.in1 = nn.InstanceNorm2d(width, affine=True)
        self.conv2 = self.Conv(width, 2 * width, 3, 2)
        self.in2 = nn.InstanceNorm2d(2 * width, affine=True)
        self.res1 = self.Block(2 * width)
        self.res2 = self.Block(2 * width)
        self.deconv1 = self.Conv(2 * width, width, 3, scale=2)
        self.in4 = nn.InstanceNorm2d(width, affine=True)
        self.deconv2 = self.Conv(width, 3, 9)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.in1(self.conv1(x)))
        y = self.relu(self.in2(self.conv2(y)))
        y = self.res2(self.res1(y))
        y = self.relu(self.in4(self.deconv1(y)))
        return self.deconv2(y)


class FunctionalUnet(nn.Module):
    """pix2pix's shape written with functions: in-place calls by position, cat, dropout."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.down1 = nn.Conv2d(3, width, 4, 2, 1)
        self.down2 = nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False)
        self.down3 = nn.Conv2d(2 * width, 2 * width, 4, 2, 1)
        self.up3 = nn.ConvTranspose2d(2 * width, 2 * width, 4, 2, 1)
        self.up2 = nn.ConvTranspose2d(4 * width, width, 4, 2, 1)
        self.up1 = nn.ConvTranspose2d(2 * width, 3, 4, 2, 1)
        self.scale = nn.Parameter(torch.randn(width))
        self.shift = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor, p: float = 0.3) -> Tensor:
        a = F.leaky_relu(self.down1(x), 0.2, True)
        b = F.instance_norm(self.down2(a))
        c = F.leaky_relu(F.instance_norm(self.down3(F.leaky_relu(b, 0.2)), eps=1e-3), 0.1)
        y = torch.relu_(F.instance_norm(self.up3(c)))
        y = F.dropout(y, p, training=self.training)
        y = torch.cat((y, b), dim=1)
        y = F.instance_norm(self.up2(y), weight=self.scale, bias=self.shift).relu()
        return torch.tanh(self.up1(torch.cat([y, a], 1)))


class Contrastive(nn.Module):
    """As in contrastive translation: the same forward returns an image or a list of features."""

    def __init__(self, width: int = 4, blocks: int = 2):
        super().__init__()

        class Block(nn.Module):
            def __init__(self, channels: int):
                super().__init__()
                self.conv_block = nn.Sequential(
                    nn.ReflectionPad2d(1),
                    nn.Conv2d(channels, channels, 3),
                    nn.InstanceNorm2d(channels),
                    nn.ReLU(True),
                    nn.ReflectionPad2d(1),
                    nn.Conv2d(channels, channels, 3),
                    nn.InstanceNorm2d(channels),
                )

            def forward(self, x: Tensor) -> Tensor:
                return x + self.conv_block(x)

        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width)]
        layers += [nn.ReLU(True), nn.Conv2d(width, 2 * width, 3, padding=1)]
        layers += [nn.InstanceNorm2d(2 * width), nn.ReLU(True)]
        layers += [nn.AvgPool2d(2)]
        layers += [Block(2 * width) for _ in range(blocks)]
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(2 * width, width, 3, padding=1)]
        layers += [nn.InstanceNorm2d(width), nn.ReLU(True)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor, layers: list[int] = [], encode_only: bool = False):  # noqa: B006
        if not layers:
            return self.model(x)
        feat, feats = x, []
        for number, layer in enumerate(self.model):
            feat = layer(feat)
            if number in layers:
                feats.append(feat)
            if number == layers[-1] and encode_only:
                return feats
        return feat, feats


class OptionalParts(nn.Module):
    """As in multimodal translation: blocks of optional parts, ``+=``, a method per half."""

    class ConvBlock(nn.Module):
        def __init__(self, cin: int, cout: int, stride: int, norm: str, act: str):
            super().__init__()
            self.pad = nn.ReflectionPad2d(1)
            self.norm = nn.InstanceNorm2d(cout) if norm == "in" else None
            self.activation = {
                "relu": nn.ReLU(inplace=True),
                "lrelu": nn.LeakyReLU(0.2, inplace=True),
                "none": None,
            }[act]
            self.conv = nn.Conv2d(cin, cout, 3, stride)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(self.pad(x))
            if self.norm:
                x = self.norm(x)
            if self.activation:
                x = self.activation(x)
            return x

    class Block(nn.Module):
        def __init__(self, channels: int):
            super().__init__()
            part = OptionalParts.ConvBlock
            self.model = nn.Sequential(
                part(channels, channels, 1, "in", "relu"), part(channels, channels, 1, "in", "none")
            )

        def forward(self, x: Tensor) -> Tensor:
            residual = x
            out = self.model(x)
            out += residual
            return out

    def __init__(self, width: int = 4):
        super().__init__()
        part = self.ConvBlock
        self.enc = nn.Sequential(
            part(3, width, 1, "in", "lrelu"), part(width, width, 2, "in", "relu")
        )
        self.mid = nn.ModuleList([self.Block(width) for _ in range(3)])
        self.dec = part(width, 3, 1, "none", "none")

    def encode(self, x: Tensor) -> Tensor:
        x = self.enc(x)
        for block in self.mid:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        code = self.encode(x)
        return {"image": self.dec(code), "code": code}


class PreActivation(nn.Module):
    """Norm first, in-place activation on the skip's own tensor, activation after the sum."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm1 = nn.InstanceNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.InstanceNorm2d(width, affine=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm3 = nn.InstanceNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm1(x)
        skip = y
        y = F.relu(y, inplace=True)  # the skip is activated with it
        y = self.norm2(self.conv1(y))
        y += skip
        y = F.relu_(y)
        z = self.norm3(self.conv2(y))
        return torch.add(z, y, alpha=1).relu_() + torch.add(z, y, alpha=2)


class Odd(nn.Module):
    """What looks hard to trace: sizes, buffers, asserts, questions, writes by index."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.InstanceNorm2d(4)
        self.register_buffer("kernel", torch.randn(4, 1, 3, 3))
        self.gain = nn.Parameter(torch.randn(4))
        self.offset = torch.randn(4, 1, 1, dtype=torch.float64)
        self.names = {"a": 2}

    def forward(self, x, *, factor=2):
        if hasattr(x, "images"):
            x = x["images"]
        assert x.dim() == 4, "an image"
        n, c, h, w = x.shape
        y = F.relu(self.norm(self.conv(x)))
        kernel = self.kernel / self.kernel.abs().sum()
        y = F.conv2d(y, kernel, padding=1, groups=4) * (self.gain**2)[:, None, None]
        y[:, :1] = 0.5
        y = y.reshape(n, 4, h * w).transpose(1, 2).reshape(n, h, w, 4).permute(0, 3, 1, 2)
        return factor * y + self.offset, {"size": (h, w), "mean": y.mean()}


def every_foreign_network() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Name -> (network, shape of an input it takes)."""
    torch.manual_seed(11)
    nets = {
        "fast_neural_style": (FastNeuralStyle(), (2, 3, 20, 24)),
        "functional_unet": (FunctionalUnet(), (2, 3, 32, 16)),
        "contrastive": (Contrastive(), (2, 3, 16, 18)),
        "optional_parts": (OptionalParts(), (2, 3, 15, 13)),
        "pre_activation": (PreActivation(), (2, 3, 9, 11)),
    }
    for net, _ in nets.values():
        for parameter in net.parameters():
            nn.init.normal_(parameter, 0.1, 0.3)
    return nets
