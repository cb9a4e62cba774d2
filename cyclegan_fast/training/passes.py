# SPDX-License-Identifier: MIT
"""The six passes of the generators in a step, in upstream's order or arranged for speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cyclegan_fast import fusion
from cyclegan_fast.data.picked import PickedPictures
from cyclegan_fast.training.arrangement import Arrangement
from cyclegan_fast.training.config import TrainConfig


class Batch(NamedTuple):
    """Pictures of one step, on the device, in [-1, 1]."""

    real_A: Tensor  # [N, input_nc, H, W]
    real_B: Tensor  # [N, output_nc, H, W]


class Given(NamedTuple):
    """What a step is given: pictures, or what it makes them of."""

    real_A: Tensor | PickedPictures
    real_B: Tensor | PickedPictures

    def made(self) -> Batch:
        """Return the pictures."""
        return Batch(*(x if isinstance(x, Tensor) else x.make() for x in self))

    def kind(self) -> tuple[object, ...]:
        """Equal for what `take` takes from each other."""
        return tuple(x.shape if isinstance(x, Tensor) else x.kind for x in self)

    def static(self) -> Given:
        """Return a copy on the device whose memory stays."""
        return Given(*(x.clone() if isinstance(x, Tensor) else x.static() for x in self))

    def take(self, other: Given) -> None:
        """Copy another one of the same kind into this."""
        for mine, given in zip(self, other, strict=True):
            mine.copy_(given, non_blocking=True)  # type: ignore[arg-type]  # of the same kind


class Weights(NamedTuple):
    """Weights of the reconstruction losses on the device, 0-d; None leaves a loss out."""

    together: Tensor  # [4]: cycle_A, cycle_B, identity_A, identity_B
    cycle_A: Tensor
    cycle_B: Tensor
    identity_A: Tensor | None
    identity_B: Tensor | None

    @staticmethod
    def of(config: TrainConfig, dtype: torch.dtype, device: torch.device) -> Weights:
        """Return the weights that options name."""
        identity = config.lambda_identity
        # G_A is asked to leave B alone, so its identity is weighted like B's cycle.
        values = [config.lambda_A, config.lambda_B]
        values += [config.lambda_B * identity, config.lambda_A * identity]
        together = torch.tensor(values, dtype=dtype, device=device)
        cycle_A, cycle_B, identity_A, identity_B = together.unbind()
        return Weights(
            together,
            cycle_A=cycle_A,
            cycle_B=cycle_B,
            identity_A=identity_A if identity else None,
            identity_B=identity_B if identity else None,
        )


@dataclass(frozen=True)
class Generator:
    """A generator whose last tanh can be left to whoever reads the result.

    Attributes:
        net: the network.
        tanh: leave it; only where `fusion.ends_in_tanh`.
    """

    net: nn.Module
    tanh: bool

    def unfinished(self, x: Tensor) -> Tensor:
        """Return what the tanh would take, or the picture itself where there is none to leave."""
        return fusion.before_tanh(self.net, x) if self.tanh else self.net(x)

    def finish(self, z: Tensor) -> Tensor:
        """Return the picture."""
        return z.tanh() if self.tanh else z

    def __call__(self, x: Tensor) -> Tensor:
        """Return the picture that the network makes of x."""
        return self.finish(self.unfinished(x))


class Passes(NamedTuple):
    """What the six passes make; rec and idt, which a loss alone reads, are unfinished."""

    fake_B: Tensor
    rec_A: Tensor
    idt_A: Tensor | None  # None where the loss is left out
    fake_A: Tensor
    rec_B: Tensor
    idt_B: Tensor | None


def in_turn(
    G_A: Generator, G_B: Generator, batch: Batch, weights: Weights, arrangement: Arrangement
) -> Passes:
    """Upstream's order, which dropout's randomness and batch norm's running statistics see."""
    del arrangement
    fake_B = G_A(batch.real_A)
    rec_A = G_B.unfinished(fake_B)
    fake_A = G_B(batch.real_B)
    rec_B = G_A.unfinished(fake_A)
    idt_A = G_A.unfinished(batch.real_B) if weights.identity_A is not None else None
    idt_B = G_B.unfinished(batch.real_A) if weights.identity_B is not None else None
    return Passes(fake_B, rec_A, idt_A, fake_A, rec_B, idt_B)


def arranged(
    G_A: Generator, G_B: Generator, batch: Batch, weights: Weights, arrangement: Arrangement
) -> Passes:
    """G_A in the first branch, G_B in the second, each with its identity; the same is made."""

    def first(
        net: Generator, real: Tensor, other: Tensor, identity: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if identity is None:
            return net(real), None
        fake, same = arrangement.both(net.unfinished, real, other)
        return net.finish(fake), same

    with arrangement.second():
        fake_A, idt_B = first(G_B, batch.real_B, batch.real_A, weights.identity_B)
    fake_B, idt_A = first(G_A, batch.real_A, batch.real_B, weights.identity_A)
    arrangement.join(fake_A, idt_B)
    with arrangement.second(fake_B):
        rec_A = G_B.unfinished(fake_B)
    rec_B = G_A.unfinished(fake_A)
    return Passes(fake_B, rec_A, idt_A, fake_A, rec_B, idt_B)
