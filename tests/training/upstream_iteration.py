# SPDX-License-Identifier: MIT
"""The training iteration of pytorch-CycleGAN-and-pix2pix (2025), written plainly and anew.

The yardstick of test_equality.py. It uses torch alone and nothing of the package under test: its
own networks with upstream's state-dict keys, its own pool, losses, optimizers and schedule.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


def _norm(kind, channels):
    return {
        "instance": lambda: nn.InstanceNorm2d(channels),
        "batch": lambda: nn.BatchNorm2d(channels),
        "none": nn.Identity,
    }[kind]()


class Block(nn.Module):
    def __init__(self, c, norm, dropout):
        super().__init__()
        bias = norm == "instance"
        middle = [nn.Dropout(0.5)] if dropout else []
        self.conv_block = nn.Sequential(
            *[nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3, bias=bias), _norm(norm, c), nn.ReLU()],
            *middle,
            *[nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3, bias=bias), _norm(norm, c)],
        )

    def forward(self, x):
        return x + self.conv_block(x)


class Resnet(nn.Module):
    def __init__(self, c_in, c_out, n, norm, dropout, blocks):
        super().__init__()
        bias = norm == "instance"
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(c_in, n, 7, bias=bias), _norm(norm, n)]
        layers += [nn.ReLU()]
        for c in (n, 2 * n):
            layers += [nn.Conv2d(c, 2 * c, 3, 2, 1, bias=bias), _norm(norm, 2 * c), nn.ReLU()]
        layers += [Block(4 * n, norm, dropout) for _ in range(blocks)]
        for c in (4 * n, 2 * n):
            layers += [nn.ConvTranspose2d(c, c // 2, 3, 2, 1, 1, bias=bias)]
            layers += [_norm(norm, c // 2), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(n, c_out, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x)


class Level(nn.Module):
    """A U-Net level. Upstream's LeakyReLU works in place: the skip carries what it made."""

    def __init__(self, outer, inner, norm, c_in=None, sub=None, outermost=False):
        super().__init__()
        self.outermost = outermost
        bias = norm == "instance"
        down = nn.Conv2d(c_in or outer, inner, 4, 2, 1, bias=bias)
        relu = nn.LeakyReLU(0.2, inplace=True)
        if outermost:
            up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1)
            layers = [down, sub, nn.ReLU(), up, nn.Tanh()]
        elif sub is None:
            up = nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=bias)
            layers = [relu, down, nn.ReLU(), up, _norm(norm, outer)]
        else:
            up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1, bias=bias)
            layers = [relu, down, _norm(norm, inner), sub, nn.ReLU(), up, _norm(norm, outer)]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class Unet(nn.Module):
    def __init__(self, c_in, c_out, n, norm, downs):
        super().__init__()
        level = Level(8 * n, 8 * n, norm)
        for _ in range(downs - 5):
            level = Level(8 * n, 8 * n, norm, sub=level)
        for outer, inner in ((4 * n, 8 * n), (2 * n, 4 * n), (n, 2 * n)):
            level = Level(outer, inner, norm, sub=level)
        self.model = Level(c_out, n, norm, c_in=c_in, sub=level, outermost=True)

    def forward(self, x):
        return self.model(x)


class Patch(nn.Module):
    def __init__(self, c_in, n, norm, n_layers):
        super().__init__()
        bias = norm == "instance"
        layers = [nn.Conv2d(c_in, n, 4, 2, 1), nn.LeakyReLU(0.2)]
        c = n
        for i in range(1, n_layers + 1):
            c, before = n * min(2**i, 8), c
            layers += [nn.Conv2d(before, c, 4, 2 if i < n_layers else 1, 1, bias=bias)]
            layers += [_norm(norm, c), nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*layers, nn.Conv2d(c, 1, 4, 1, 1))

    def forward(self, x):
        return self.model(x)


def dead_biases(net):
    """Keys of biases in front of an instance norm: they change no output, and drift at random."""
    dead = set()
    for name, module in net.named_modules():
        if isinstance(module, nn.Sequential):
            for (key, layer), (_, after) in itertools.pairwise(module.named_children()):
                if isinstance(after, nn.InstanceNorm2d) and layer.bias is not None:
                    dead.add(f"{name}.{key}.bias")
    return dead


class Pool:
    def __init__(self, size):
        self.size, self.images = size, []

    def query(self, images, coin, slot):
        if self.size == 0:
            return images
        out = []
        for i, image in enumerate(images.detach().split(1)):
            if len(self.images) < self.size:
                self.images.append(image)
                out.append(image)
            elif coin[i] > 0.5:
                out.append(self.images[slot[i]])
                self.images[slot[i]] = image
            else:
                out.append(image)
        return torch.cat(out)


@dataclass
class Options:
    gan_mode: str = "lsgan"
    lambda_A: float = 10.0
    lambda_B: float = 10.0
    lambda_identity: float = 0.5
    pool_size: int = 50
    lr: float = 2e-4
    beta1: float = 0.5
    n_epochs: int = 100
    n_epochs_decay: int = 100


class Upstream:
    """Networks, optimizers, pools and schedules of one run."""

    def __init__(self, G_A, G_B, D_A, D_B, options):
        self.G_A, self.G_B, self.D_A, self.D_B, self.opt = G_A, G_B, D_A, D_B, options
        betas = (options.beta1, 0.999)
        self.adam_G = torch.optim.Adam(
            itertools.chain(G_A.parameters(), G_B.parameters()), lr=options.lr, betas=betas
        )
        self.adam_D = torch.optim.Adam(
            itertools.chain(D_A.parameters(), D_B.parameters()), lr=options.lr, betas=betas
        )
        self.pool_A, self.pool_B = Pool(options.pool_size), Pool(options.pool_size)

        def rule(k):
            past = max(0, k + 1 - options.n_epochs)
            return 1.0 - past / float(options.n_epochs_decay + 1)

        self.schedulers = [
            torch.optim.lr_scheduler.LambdaLR(adam, rule) for adam in (self.adam_G, self.adam_D)
        ]

    def end_epoch(self):
        for scheduler in self.schedulers:
            scheduler.step()

    def gan(self, prediction, real):
        if self.opt.gan_mode == "wgangp":
            return -prediction.mean() if real else prediction.mean()
        target = torch.full_like(prediction, 1.0 if real else 0.0)
        if self.opt.gan_mode == "vanilla":
            return F.binary_cross_entropy_with_logits(prediction, target)
        return F.mse_loss(prediction, target)

    def step(self, real_A, real_B, draws_A, draws_B):
        """One iteration; draws_X are (coin, slot) of the pool of fake_X."""
        opt, losses = self.opt, {}
        fake_B = self.G_A(real_A)
        rec_A = self.G_B(fake_B)
        fake_A = self.G_B(real_B)
        rec_B = self.G_A(fake_A)

        for D in (self.D_A, self.D_B):
            D.requires_grad_(False)
        self.adam_G.zero_grad()
        losses["idt_A"] = losses["idt_B"] = torch.zeros(())
        if opt.lambda_identity > 0:
            idt_A, idt_B = self.G_A(real_B), self.G_B(real_A)
            losses["idt_A"] = F.l1_loss(idt_A, real_B) * opt.lambda_B * opt.lambda_identity
            losses["idt_B"] = F.l1_loss(idt_B, real_A) * opt.lambda_A * opt.lambda_identity
        losses["G_A"] = self.gan(self.D_A(fake_B), True)
        losses["G_B"] = self.gan(self.D_B(fake_A), True)
        losses["cycle_A"] = F.l1_loss(rec_A, real_A) * opt.lambda_A
        losses["cycle_B"] = F.l1_loss(rec_B, real_B) * opt.lambda_B
        sum(losses.values()).backward()
        self.adam_G.step()

        for D in (self.D_A, self.D_B):
            D.requires_grad_(True)
        self.adam_D.zero_grad()
        shown_B = self.pool_B.query(fake_B, *draws_B)
        losses["D_A"] = (
            self.gan(self.D_A(real_B), True) + self.gan(self.D_A(shown_B.detach()), False)
        ) / 2
        losses["D_A"].backward()
        shown_A = self.pool_A.query(fake_A, *draws_A)
        losses["D_B"] = (
            self.gan(self.D_B(real_A), True) + self.gan(self.D_B(shown_A.detach()), False)
        ) / 2
        losses["D_B"].backward()
        self.adam_D.step()
        return {name: loss.item() for name, loss in losses.items()}
