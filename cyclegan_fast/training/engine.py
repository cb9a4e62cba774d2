# SPDX-License-Identifier: MIT
"""What a training step works on, and the update at the end of each of its halves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cyclegan_fast.fusion.half_weights import HalfWeights
from cyclegan_fast.training.arrangement import Arrangement
from cyclegan_fast.training.buckets import Buckets
from cyclegan_fast.training.networks import Networks
from cyclegan_fast.training.optimizer import Adam
from cyclegan_fast.training.passes import Weights
from cyclegan_fast.training.pool import Decision, ImagePool, RaggedPool
from cyclegan_fast.training.precision import Precision
from cyclegan_fast.training.ranks import Ranks
from cyclegan_fast.training.scaler import LossScaler
from cyclegan_fast.training.stats import LOSS_NAMES, LossRecord


class Decisions(NamedTuple):
    """What the two pools do in one step."""

    fake_A: Decision | None
    fake_B: Decision | None


@dataclass(frozen=True)
class Engine:
    """Everything a step works on; all of it stays where it is from step to step."""

    networks: Networks
    averages: tuple[nn.Module, nn.Module] | None  # of G_A and G_B
    ema: float
    optimizer_G: Adam  # noqa: N815 - upstream's name
    optimizer_D: Adam  # noqa: N815 - upstream's name
    pool_A: ImagePool | RaggedPool  # noqa: N815 - of fake_A, for D_B
    pool_B: ImagePool | RaggedPool  # noqa: N815 - of fake_B, for D_A
    weights: Weights
    gan_mode: str
    precision: Precision
    halves: HalfWeights | None  # of the convolutions of all four networks, in 16 bits
    arrangement: Arrangement
    scaler: LossScaler | None
    record: LossRecord
    ranks: Ranks | None  # of a run on several GPUs
    buckets: dict[Adam, Buckets]  # of each optimizer's gradients; none where ranks is None

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Run networks forward in the run's arithmetic, on the 16-bit weights that Adam wrote."""
        with self.precision.autocast():
            if self.halves is None:
                yield
            else:
                with self.halves.used():
                    yield

    def update(self, optimizer: Adam) -> list[Tensor]:
        """Take one step on gradients that fp16's loss scale has multiplied; return overflows.

        All ranks step alike: they have one mean of the gradients, and an overflow is in it.
        """
        if optimizer in self.buckets:
            self.buckets[optimizer].average()
        overflows = [] if self.scaler is None else [self.scaler.unscale(optimizer)]
        optimizer.step()
        if self.halves is not None:
            self.halves.written(optimizer.halves)
        return overflows

    def joined(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the means of losses over the ranks, which is what the joined batch's would be."""
        if self.ranks is None:
            return losses
        values = torch.stack([losses[name] for name in LOSS_NAMES])
        self.ranks.begin_mean(values)()
        return dict(zip(LOSS_NAMES, values.unbind(), strict=True))
