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

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cyclegan_fast import fusion
from cyclegan_fast.training.arrangement import Arrangement
from cyclegan_fast.training.engine import Decisions, Engine
from cyclegan_fast.training.networks import Networks, frozen
from cyclegan_fast.training.objectives import discriminator_objective, generator_objective
from cyclegan_fast.training.passes import Batch, Generator, Given, Weights, arranged, in_turn
from cyclegan_fast.training.stats import LOSS_NAMES
from cyclegan_fast.training.walked import walked, walks_of


class Generated(NamedTuple):
    """What the generators' phase leaves behind."""

    total: Tensor  # 0-d, with a graph, scaled
    losses: dict[str, Tensor]  # 0-d each, weighted
    fake_A: Tensor
    fake_B: Tensor


def run(engine: Engine, given: Given, decisions: Decisions) -> dict[str, Tensor]:
    """Train one step.

    Args:
        engine: updated in place.
        given: the pictures, or what they are made of.
        decisions: of the pools, for this batch.

    Returns:
        The eight losses by upstream's names, 0-d, detached, weighted as in the sum.
    """
    batch = given.made()
    walks = walks_of(engine, batch)
    losses, overflows = (
        by_autograd(engine, batch, decisions)
        if walks is None
        else walked(engine, batch, decisions, walks)
    )
    skipped = engine.scaler.update(*overflows) if engine.scaler else None
    if engine.averages is not None:
        for net, mean in zip(engine.networks.generators, engine.averages, strict=True):
            average(net, mean, engine.ema)
    losses = engine.joined({name: losses[name].detach() for name in LOSS_NAMES})
    engine.record.observe(losses, skipped)
    return losses


def by_autograd(
    engine: Engine, batch: Batch, decisions: Decisions
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Run both halves of the step as a user of PyTorch would; see `walked` for the other way.

    Returns:
        The losses, and what overflowed in fp16.
    """
    nets = engine.networks
    with frozen(*nets.discriminators):
        with engine.arithmetic():
            made = generator_losses(
                nets,
                batch,
                engine.weights,
                engine.gan_mode,
                engine.arrangement,
                engine.scaler.factor if engine.scaler else None,
            )
        engine.optimizer_G.zero_grad()
        made.total.backward()
        overflows = engine.update(engine.optimizer_G)
    shown_A = engine.pool_A.query(made.fake_A, decisions.fake_A)
    shown_B = engine.pool_B.query(made.fake_B, decisions.fake_B)
    with engine.arithmetic():
        judged = discriminator_losses(
            nets, batch, shown_A, shown_B, engine.gan_mode, engine.arrangement
        )
    total = judged["D_A"] + judged["D_B"]
    engine.optimizer_D.zero_grad()
    (engine.scaler.scale(total) if engine.scaler else total).backward()
    overflows += engine.update(engine.optimizer_D)
    return made.losses | judged, overflows


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
    total, losses = generator_objective(
        (pred_A, pred_B),
        (made.rec_A, made.rec_B),
        (made.idt_A, made.idt_B),
        batch,
        weights,
        gan_mode,
        scale=scale,
        tanh=tanh,
    )
    return Generated(total, losses, made.fake_A, made.fake_B)


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
        return discriminator_objective(*arrangement.both(judge, real, shown), gan_mode)

    with arrangement.second():
        second = loss(nets.D_B, batch.real_A, shown_A)
    first = loss(nets.D_A, batch.real_B, shown_B)
    arrangement.join(second)
    return {"D_A": first, "D_B": second}


@torch.no_grad()
def average(net: nn.Module, mean: nn.Module, decay: float) -> None:
    """Move a network's moving average: e <- decay e + (1 - decay) w; buffers are copied."""
    torch._foreach_lerp_(list(mean.parameters()), list(net.parameters()), 1 - decay)
    for buffer, kept in zip(net.buffers(), mean.buffers(), strict=True):
        kept.copy_(buffer)
