# SPDX-License-Identifier: MIT
"""A step with its networks walked by hand: what can be done together is.

The discriminators change at the end of a step only, so one pass shows each of them the generated
picture (whose own gradient the generator wants), the real one and the one of the pool (of which the
discriminator learns). A generator's three uses give one weight gradient per convolution. The
mathematics is that of upstream's order; only sums are taken in another one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cyclegan_fast import fusion
from cyclegan_fast.fusion.autograd_walk import AutogradWalk
from cyclegan_fast.fusion.hand import HandWalk, Steps
from cyclegan_fast.fusion.hand_runs import Part, Pass
from cyclegan_fast.fusion.steps import Plan
from cyclegan_fast.training.beside import beside
from cyclegan_fast.training.engine import Decisions, Engine
from cyclegan_fast.training.objectives import discriminator_objective, generator_objective
from cyclegan_fast.training.passes import Batch

Walk = HandWalk | AutogradWalk


@dataclass
class Walks:
    """How each network of a step is run.

    Attributes:
        tanh: the generators leave their last tanh to whoever reads the result.
    """

    G_A: Walk
    G_B: Walk
    D_A: Walk
    D_B: Walk
    tanh: bool

    def finish(self, z: Tensor) -> Tensor:
        """Return the picture that a generator was making."""
        return z.tanh() if self.tanh else z

    def unfinished(self, gradient: Tensor, picture: Tensor) -> Tensor:
        """Return the gradient of what the generator made, from its picture's."""
        return torch.ops.aten.tanh_backward(gradient, picture) if self.tanh else gradient


class Made(NamedTuple):
    """What the losses of the generators read beside predictions; a list is empty or has one."""

    idt_A: list[Tensor]
    idt_B: list[Tensor]
    rec_A: list[Tensor]
    rec_B: list[Tensor]


class LossGradients(NamedTuple):
    """Gradients of the losses: `Made`'s, and those of the predictions part by part."""

    idt_A: list[Tensor]
    idt_B: list[Tensor]
    rec_A: list[Tensor]
    rec_B: list[Tensor]
    judged_A: list[Tensor]
    judged_B: list[Tensor]


def reasons(engine: Engine) -> dict[str, str]:
    """Say why networks run under autograd, by their name; those walked by hand are left out."""
    found = {}
    for name, net in engine.networks.items():
        weight = next(net.parameters())
        x = torch.empty((1, 1, 1, 1), dtype=weight.dtype, device=weight.device)
        reason = _by_hand(engine, net, x, tanhless=False)
        if isinstance(reason, str):
            found[name] = reason
    return found


def check_checkpoint(engine: Engine) -> None:
    """Raise unless blocks can be run again where the arrangement says so.

    Raises:
        ValueError: a generator runs under autograd, which keeps what is in its blocks.
    """
    if not engine.arrangement.checkpoint:
        return
    found = {name: why for name, why in reasons(engine).items() if name.startswith("G")}
    for name, why in found.items():
        raise ValueError(
            f"config: checkpoint is blocks, but {name} runs under autograd, which keeps what is in "
            f"its blocks: {why}. Use --checkpoint off, and a smaller --batch_size or --crop_size "
            "where memory does not suffice."
        )


def walks_of(engine: Engine, batch: Batch) -> Walks | None:
    """Return how the networks are run in this step; None: under autograd, pass by pass.

    So it is where neither join nor checkpoint asks for a walk, and where no network can be walked
    by hand.
    """
    arrangement = engine.arrangement
    merge, checkpoint = arrangement.merge, arrangement.checkpoint
    if not arrangement.by_hand and not checkpoint:
        return None
    tanh = engine.gan_mode == "lsgan" and all(
        fusion.ends_in_tanh(net, real)
        for net, real in zip(engine.networks.generators, batch, strict=True)
    )
    n = len(batch.real_A)
    identity = engine.weights.identity_A is not None
    walks: dict[str, Walk] = {}
    for name, net in engine.networks.items():
        generator = name.startswith("G")
        found = _by_hand(engine, net, batch.real_A, tanhless=tanh and generator)
        if isinstance(found, str):
            call = functools.partial(fusion.before_tanh, net) if tanh and generator else net
            walks[name] = AutogradWalk(net, call, together=merge)
        else:
            plan, modules = found
            images = n * (2 + identity if generator else 3)
            read = functools.partial(_read, engine)
            half = engine.precision.half
            walks[name] = HandWalk(
                plan, modules, read, half, images, together=merge, again=checkpoint
            )
    if not any(isinstance(walk, HandWalk) for walk in walks.values()):
        return None
    return Walks(**walks, tanh=tanh)


def walked(
    engine: Engine, batch: Batch, decisions: Decisions, walks: Walks
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Run both halves of the step.

    Args:
        engine: updated in place.
        batch: the pictures.
        decisions: of the pools, for this batch.
        walks: `walks_of` this engine and batch.

    Returns:
        The losses, and what overflowed in fp16.
    """
    aside = engine.arrangement
    identity = engine.weights.identity_A is not None
    engine.optimizer_G.zero_grad()
    engine.optimizer_D.zero_grad()
    with engine.arithmetic():
        of_A, of_B = beside(
            aside,
            _translate(walks.G_A, batch.real_A, batch.real_B, identity=identity),
            _translate(walks.G_B, batch.real_B, batch.real_A, identity=identity),
        )
        aside.join(*of_B.outputs)
        fake_B, fake_A = (walks.finish(made.outputs[0]) for made in (of_A, of_B))
        shown_A = engine.pool_A.query(fake_A, decisions.fake_A)
        shown_B = engine.pool_B.query(fake_B, decisions.fake_B)
        (back_B, judged_A), (back_A, judged_B) = beside(
            aside,
            _judge(walks.G_A, walks.D_A, (fake_A, fake_B), batch.real_B, shown_B),
            _judge(walks.G_B, walks.D_B, (fake_B, fake_A), batch.real_A, shown_A),
            fake_B,
            fake_A,
            shown_A,
        )
        aside.join(*back_A.outputs, *judged_B.outputs)
    made = Made(of_A.outputs[1:], of_B.outputs[1:], back_A.outputs, back_B.outputs)
    losses, gradients = _losses(
        engine, batch, made, (judged_A.outputs, judged_B.outputs), tanh=walks.tanh
    )
    (from_D_A, from_back_B), (from_D_B, from_back_A) = beside(
        aside,
        _back((walks.D_A, judged_A, gradients.judged_A), (walks.G_A, back_B, gradients.rec_B)),
        _back((walks.D_B, judged_B, gradients.judged_B), (walks.G_B, back_A, gradients.rec_A)),
        *gradients.idt_B,
        *gradients.judged_B,
        *gradients.rec_A,
    )
    aside.join(from_D_B, from_back_A)
    # Several ranks put means in the gradients' place; their memory is not to be used again so soon.
    held = [parameter.grad for parameter in engine.optimizer_D.parameters]
    with aside.meanwhile():  # the generators' backward asks nothing of the discriminators any more
        overflow_D = engine.update(engine.optimizer_D)
    of_fake_B = walks.unfinished(from_D_A + from_back_A, fake_B)
    of_fake_A = walks.unfinished(from_D_B + from_back_B, fake_A)
    beside(
        aside,
        walks.G_A.backward(of_A, [of_fake_B, *gradients.idt_A]),
        walks.G_B.backward(of_B, [of_fake_A, *gradients.idt_B]),
        of_fake_A,
    )
    aside.join()
    overflow_G = engine.update(engine.optimizer_G)
    aside.finish()
    del held
    return losses, overflow_G + overflow_D


def _translate(walk: Walk, real: Tensor, other: Tensor, *, identity: bool) -> Steps[Pass]:
    """Run a generator on the pictures to be translated, and on those to be left alone."""
    parts = [Part(real, weights=True, picture=False)]
    if identity:
        parts.append(Part(other, weights=True, picture=False))
    return walk.forward(parts)


def _judge(
    generator: Walk, judge: Walk, fakes: tuple[Tensor, Tensor], real: Tensor, shown: Tensor
) -> Steps[tuple[Pass, Pass]]:
    """Translate the first generated picture back; judge the second, a real one and the pool's."""
    back = yield from generator.forward([Part(fakes[0], weights=True, picture=True)])
    judged = yield from judge.forward(
        [
            Part(fakes[1], weights=False, picture=True),
            Part(real, weights=True, picture=False),
            Part(shown, weights=True, picture=False),
        ]
    )
    return back, judged


def _back(*passes: tuple[Walk, Pass, list[Tensor]]) -> Steps[list[Tensor]]:
    """Run passes backward one after the other; of each, one picture's gradient is wanted."""
    found: list[Tensor] = []
    for walk, of, gradients in passes:
        found += yield from walk.backward(of, gradients)
    return found


def _losses(
    engine: Engine,
    batch: Batch,
    made: Made,
    judged: tuple[list[Tensor], list[Tensor]],
    *,
    tanh: bool,
) -> tuple[dict[str, Tensor], LossGradients]:
    """Return the losses of all four networks, and their gradients."""
    leaves = [[t.detach().requires_grad_() for t in each] for each in (*made, *judged)]
    idt_A, idt_B, (rec_A,), (rec_B,), of_A, of_B = leaves
    total, losses = generator_objective(
        (of_A[0], of_B[0]),
        (rec_A, rec_B),
        (idt_A[0] if idt_A else None, idt_B[0] if idt_B else None),
        batch,
        engine.weights,
        engine.gan_mode,
        scale=engine.scaler.factor if engine.scaler else None,
        tanh=tanh,
    )
    losses["D_A"] = discriminator_objective(of_A[1], of_A[2], engine.gan_mode)
    losses["D_B"] = discriminator_objective(of_B[1], of_B[2], engine.gan_mode)
    of_D = losses["D_A"] + losses["D_B"]
    total = total + (engine.scaler.scale(of_D) if engine.scaler else of_D)
    found = iter(torch.autograd.grad(total, [leaf for each in leaves for leaf in each]))
    return losses, LossGradients(*([next(found) for _ in each] for each in leaves))


def _by_hand(
    engine: Engine, net: nn.Module, x: Tensor, *, tanhless: bool
) -> tuple[Plan, dict[str, nn.Module]] | str:
    return fusion.by_hand(net, x, engine.precision.half or x.dtype, tanhless=tanhless)


def _read(engine: Engine, parameter: nn.Parameter) -> Tensor:
    """Return what convolutions compute with for a parameter."""
    copy = None if engine.halves is None else engine.halves.copy_of(parameter)
    if copy is not None:
        return copy
    half = engine.precision.half
    return parameter.detach() if half is None else parameter.detach().to(half)
