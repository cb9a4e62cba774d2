# SPDX-License-Identifier: MIT
"""The plain iteration: upstream's semantics in plain PyTorch, the baseline of every ratio.

It holds the networks as users have them (nn.Sequential, nothing fused), PyTorch's losses, two
Adams and an image pool, and can be run as shipped, in bf16 autocast with channels_last, compiled,
or captured in a CUDA graph. The repository's benchmarks/check_baseline.py shows that it is as fast
as an unmodified checkout of upstream.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan_fast.models import NLayerDiscriminator, ResnetGenerator, init_weights

POOL_SIZE = 50
LAMBDA_CYCLE = 10.0
LAMBDA_IDENTITY = 5.0


@dataclass(frozen=True)
class Setup:
    """How the plain iteration is run.

    Attributes:
        precision: "fp32" (PyTorch's default: TF32 convolutions where the GPU has them),
            "fp32 no tf32" or "bf16" (autocast).
        channels_last: keep networks and images in channels_last.
        compile_mode: None, or torch.compile's mode for all four networks.
        graph: capture the whole iteration in one CUDA graph.
    """

    precision: str = "fp32"
    channels_last: bool = False
    compile_mode: str | None = None
    graph: bool = False


class HostPool:
    """The pool as upstream has it: a Python list and Python's random."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []

    def draw(self) -> None:
        """Flip no coins: they are flipped as they are needed."""

    def __call__(self, images: Tensor) -> Tensor:
        """Exchange each image of the batch by upstream's rule."""
        answer = []
        for image in images.detach().split(1):
            if len(self.images) < POOL_SIZE:
                self.images.append(image.clone())
                answer.append(image)
            elif random.random() > 0.5:
                index = random.randrange(POOL_SIZE)
                answer.append(self.images[index].clone())
                self.images[index] = image.clone()
            else:
                answer.append(image)
        return torch.cat(answer)


class DevicePool:
    """The pool that a CUDA graph needs: buffers on the device, the coin flips in a tensor."""

    def __init__(self, like: Tensor) -> None:
        self.images = like.detach().new_empty((POOL_SIZE, *like.shape[1:]))
        self.images.copy_(like[:1].detach().expand_as(self.images))
        self.index = torch.zeros(len(like), dtype=torch.int64, device=like.device)
        self.swap = torch.zeros(len(like), 1, 1, 1, dtype=torch.bool, device=like.device)

    def draw(self) -> None:
        """Flip the coins of the next iteration; called between replays."""
        count = len(self.index)
        index = torch.tensor(random.sample(range(POOL_SIZE), count))
        self.index.copy_(index, non_blocking=True)
        self.swap.copy_(torch.rand(count, 1, 1, 1) > 0.5, non_blocking=True)

    def __call__(self, images: Tensor) -> Tensor:
        """Exchange each image of the batch by the coins drawn."""
        images = images.detach()
        stored = self.images.index_select(0, self.index)
        self.images.index_copy_(0, self.index, torch.where(self.swap, images, stored))
        return torch.where(self.swap, stored, images)


class PlainIteration:
    """Networks, optimisers and pools of a plain run; calling it makes one iteration."""

    def __init__(self, setup: Setup, real_a: Tensor, real_b: Tensor, seed: int = 0) -> None:
        self.setup = setup
        device = real_a.device
        torch.manual_seed(seed)
        layout = torch.channels_last if setup.channels_last else torch.contiguous_format
        self.real_a, self.real_b = (x.contiguous(memory_format=layout) for x in (real_a, real_b))

        def network(net: nn.Module) -> nn.Module:
            return init_weights(net).to(device).to(memory_format=layout)

        self.g_a, self.g_b = (network(ResnetGenerator(3, 3)) for _ in range(2))
        self.d_a, self.d_b = (network(NLayerDiscriminator(3)) for _ in range(2))

        def adam(*nets: nn.Module) -> torch.optim.Adam:
            parameters = itertools.chain.from_iterable(net.parameters() for net in nets)
            betas = (0.5, 0.999)
            return torch.optim.Adam(parameters, lr=2e-4, betas=betas, capturable=setup.graph)

        self.adam_g, self.adam_d = adam(self.g_a, self.g_b), adam(self.d_a, self.d_b)
        self.pools: tuple[HostPool | DevicePool, ...] = (HostPool(), HostPool())
        if setup.graph:
            self.pools = (DevicePool(real_b), DevicePool(real_a))
        self.discriminator_parameters = [
            *self.d_a.parameters(),
            *self.d_b.parameters(),
        ]
        self.label = {
            True: torch.tensor(1.0, device=device),
            False: torch.tensor(0.0, device=device),
        }
        if setup.compile_mode is not None:
            mode = None if setup.compile_mode == "default" else setup.compile_mode
            for name in ("g_a", "g_b", "d_a", "d_b"):
                setattr(self, name, torch.compile(getattr(self, name), mode=mode))
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Make one iteration, by replay if the set-up asks for a graph."""
        if not self.setup.graph:
            self._iterate()
            return
        for pool in self.pools:
            pool.draw()
        if self._graph is None:
            self._graph = self._capture()
        self._graph.replay()

    def losses(self) -> dict[str, float]:
        """The last iteration's total losses, read from the device."""
        return {"G": self.loss_g.item(), "D_A": self.loss_d_a.item(), "D_B": self.loss_d_b.item()}

    def _capture(self) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._iterate()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._iterate()
        return graph

    def _iterate(self) -> None:
        bf16 = self.setup.precision == "bf16"
        device_type = self.real_a.device.type
        tf32 = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = self.setup.precision != "fp32 no tf32"
        try:
            # Without the weight cache a captured iteration would keep the first casts for ever.
            with torch.autocast(
                device_type, torch.bfloat16, enabled=bf16, cache_enabled=not self.setup.graph
            ):
                fake_b, fake_a = self._generators()
                self._discriminators(fake_b, fake_a)
        finally:
            torch.backends.cudnn.allow_tf32 = tf32

    def _generators(self) -> tuple[Tensor, Tensor]:
        a, b = self.real_a, self.real_b
        if self.setup.compile_mode is not None:
            torch.compiler.cudagraph_mark_step_begin()
        fake_b = self.g_a(a)
        rec_a = self.g_b(fake_b)
        fake_a = self.g_b(b)
        rec_b = self.g_a(fake_a)
        for parameter in self.discriminator_parameters:
            parameter.requires_grad_(False)
        self.adam_g.zero_grad()
        loss = F.l1_loss(self.g_a(b), b) * LAMBDA_IDENTITY
        loss = loss + F.l1_loss(self.g_b(a), a) * LAMBDA_IDENTITY
        loss = loss + self._gan(self.d_a(fake_b), True) + self._gan(self.d_b(fake_a), True)
        loss = loss + F.l1_loss(rec_a, a) * LAMBDA_CYCLE + F.l1_loss(rec_b, b) * LAMBDA_CYCLE
        loss.backward()
        self.adam_g.step()
        self.loss_g = loss.detach()
        return fake_b, fake_a

    def _discriminators(self, fake_b: Tensor, fake_a: Tensor) -> None:
        for parameter in self.discriminator_parameters:
            parameter.requires_grad_(True)
        self.adam_d.zero_grad()
        self.loss_d_a = self._discriminator(self.d_a, self.real_b, self.pools[0](fake_b))
        self.loss_d_b = self._discriminator(self.d_b, self.real_a, self.pools[1](fake_a))
        self.adam_d.step()

    def _discriminator(self, net: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        loss = (self._gan(net(real), True) + self._gan(net(fake), False)) * 0.5
        loss.backward()
        return loss.detach()

    def _gan(self, prediction: Tensor, is_real: bool) -> Tensor:
        return F.mse_loss(prediction, self.label[is_real].expand_as(prediction))
