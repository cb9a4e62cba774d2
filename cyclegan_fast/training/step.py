# SPDX-License-Identifier: MIT
"""One training step as phases: pure functions of networks, pictures, pool decisions and scalars.

No phase reads a tensor on the host, draws from the host's generators or branches on a value, so
the whole step can be captured in a CUDA graph; capture wraps it, and it does not know.

The order is upstream's of 2025: both fakes, both reconstructions and both identities; one step of
the generators with the discriminators frozen; then one step of the discriminators on the pictures
made before the generators moved.

Source: Zhu et al. 2017, arXiv:1703.10593, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cyclegan_fast import fusion, ops
from cyclegan_fast.fusion.half_weights import HalfWeights
from cyclegan_fast.training.arrangement import Arrangement
from cyclegan_fast.training.losses import FAKE, REAL, adversarial_loss, reconstruction_loss
from cyclegan_fast.training.networks import Networks, frozen
from cyclegan_fast.training.optimizer import Adam
from cyclegan_fast.training.passes import Batch, Generator, Weights, arranged, in_turn
from cyclegan_fast.training.pool import Decision, ImagePool, RaggedPool
from cyclegan_fast.training.precision import Precision
from cyclegan_fast.training.scaler import LossScaler
from cyclegan_fast.training.stats import LOSS_NAMES, LossRecord

# In the order in which ops.generator_loss numbers them.
GENERATOR_LOSSES = ("G_A", "G_B", "cycle_A", "cycle_B", "idt_A", "idt_B")


class Decisions(NamedTuple):
    """What the two pools do in one step."""

    fake_A: Decision | None
    fake_B: Decision | None


class Generated(NamedTuple):
    """What the generators' phase leaves behind."""

    total: Tensor  # 0-d, with a graph, scaled
    losses: dict[str, Tensor]  # 0-d each, weighted
    fake_A: Tensor
    fake_B: Tensor


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


def run(engine: Engine, batch: Batch, decisions: Decisions) -> dict[str, Tensor]:
    """Train one step.

    Args:
        engine: updated in place.
        batch: the pictures.
        decisions: of the pools, for this batch.

    Returns:
        The eight losses by upstream's names, 0-d, detached, weighted as in the sum.
    """
    nets = engine.networks
    with frozen(*nets.discriminators):
        with _precision(engine):
            made = generator_losses(
                nets,
                batch,
                engine.weights,
                engine.gan_mode,
                engine.arrangement,
                engine.scaler.factor if engine.scaler else None,
            )
        overflows = _update(engine, engine.optimizer_G, made.total)
    shown_A = engine.pool_A.query(made.fake_A, decisions.fake_A)
    shown_B = engine.pool_B.query(made.fake_B, decisions.fake_B)
    with _precision(engine):
        judged = discriminator_losses(
            nets, batch, shown_A, shown_B, engine.gan_mode, engine.arrangement
        )
    total = judged["D_A"] + judged["D_B"]
    total = engine.scaler.scale(total) if engine.scaler else total
    overflows += _update(engine, engine.optimizer_D, total)
    skipped = engine.scaler.update(*overflows) if engine.scaler else None
    if engine.averages is not None:
        for net, mean in zip(nets.generators, engine.averages, strict=True):
            average(net, mean, engine.ema)
    made.losses.update(judged)
    losses = {name: made.losses[name].detach() for name in LOSS_NAMES}
    engine.record.observe(losses, skipped)
    return losses


def generator_losses(
    nets: Networks,
    batch: Batch,
    weights: Weights,
    gan_mode: str,
    arrangement: Arrangement,
    scale: Tensor | None = None,
) -> Generated:
    """Run the generators forward and sum their losses.

        total = gan(D_A(fake_B), real) + gan(D_B(fake_A), real)
                + cycle_A |G_B(fake_B) - A| + cycle_B |G_A(fake_A) - B|
                + identity_A |G_A(B) - B| + identity_B |G_B(A) - A|

    Args:
        nets: the discriminators frozen.
        batch: the pictures.
        weights: of the reconstruction losses.
        gan_mode: see `adversarial_loss`.
        arrangement: G_A and D_A run in the first branch, G_B and D_B in the second.
        scale: 0-d, multiplies the total (fp16's loss scale); None for 1.
    """
    tanh = gan_mode == "lsgan" and all(
        fusion.ends_in_tanh(net, real) for net, real in zip(nets.generators, batch, strict=True)
    )
    generators = Generator(nets.G_A, tanh), Generator(nets.G_B, tanh)
    run_passes = in_turn if arrangement.ordered else arranged
    made = run_passes(*generators, batch, weights, arrangement)
    with arrangement.second():
        pred_B = nets.D_B(made.fake_A)
    pred_A = nets.D_A(made.fake_B)
    arrangement.join(pred_B, made.rec_A)
    if gan_mode == "lsgan":
        pictures = (made.rec_A, made.rec_B, made.idt_A, made.idt_B, *batch)
        total, values = ops.generator_loss(
            pred_A, pred_B, *pictures, weights.together, scale=scale, tanh=tanh
        )
        losses = dict(zip(GENERATOR_LOSSES, values.unbind(), strict=True))
        return Generated(total, losses, made.fake_A, made.fake_B)
    losses = {
        "G_A": adversarial_loss(pred_A, REAL, gan_mode),
        "G_B": adversarial_loss(pred_B, REAL, gan_mode),
        "cycle_A": reconstruction_loss(made.rec_A, batch.real_A, weights.cycle_A),
        "cycle_B": reconstruction_loss(made.rec_B, batch.real_B, weights.cycle_B),
    }
    if made.idt_A is not None and weights.identity_A is not None:
        losses["idt_A"] = reconstruction_loss(made.idt_A, batch.real_B, weights.identity_A)
    if made.idt_B is not None and weights.identity_B is not None:
        losses["idt_B"] = reconstruction_loss(made.idt_B, batch.real_A, weights.identity_B)
    total = torch.stack(list(losses.values())).sum()
    for name in ("idt_A", "idt_B"):
        losses.setdefault(name, torch.zeros_like(total))
    return Generated(total if scale is None else total * scale, losses, made.fake_A, made.fake_B)


def discriminator_losses(
    nets: Networks,
    batch: Batch,
    shown_A: Tensor,
    shown_B: Tensor,
    gan_mode: str,
    arrangement: Arrangement,
) -> dict[str, Tensor]:
    """Return each discriminator's loss: the mean of its loss on real and on generated pictures.

    Args:
        nets: D_A judges domain B, D_B domain A.
        batch: the real pictures.
        shown_A: [N, C, H, W], from the pool of fake_A.
        shown_B: [N, C, H, W], from the pool of fake_B.
        gan_mode: see `adversarial_loss`.
        arrangement: D_A judges in the first branch, D_B in the second.

    Returns:
        "D_A" and "D_B", 0-d, with a graph.
    """

    def loss(judge: nn.Module, real: Tensor, shown: Tensor) -> Tensor:
        of_real, of_fake = arrangement.both(judge, real, shown)
        on_real = adversarial_loss(of_real, REAL, gan_mode)
        on_fake = adversarial_loss(of_fake, FAKE, gan_mode)
        return (on_real + on_fake) * 0.5

    with arrangement.second():
        second = loss(nets.D_B, batch.real_A, shown_A)
    first = loss(nets.D_A, batch.real_B, shown_B)
    arrangement.join(second)
    return {"D_A": first, "D_B": second}


@contextmanager
def _precision(engine: Engine) -> Iterator[None]:
    """Run networks forward in the run's arithmetic, on the 16-bit weights that Adam has written."""
    with engine.precision.autocast():
        if engine.halves is None:
            yield
        else:
            with engine.halves.used():
                yield


def _update(engine: Engine, optimizer: Adam, total: Tensor) -> list[Tensor]:
    """Take one step on a total that fp16's loss scale has multiplied; return what overflowed."""
    optimizer.zero_grad()
    overflows = []
    total.backward()
    if engine.scaler is not None:
        overflows.append(engine.scaler.unscale(optimizer))
    optimizer.step()
    if engine.halves is not None:
        engine.halves.written(optimizer.halves)
    return overflows


@torch.no_grad()
def average(net: nn.Module, mean: nn.Module, decay: float) -> None:
    """Move a network's moving average: e <- decay e + (1 - decay) w; buffers are copied."""
    torch._foreach_lerp_(list(mean.parameters()), list(net.parameters()), 1 - decay)
    for buffer, kept in zip(net.buffers(), mean.buffers(), strict=True):
        kept.copy_(buffer)
