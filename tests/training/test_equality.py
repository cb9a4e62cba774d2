# SPDX-License-Identifier: MIT
"""Twenty steps of the trainer against upstream's iteration, float64, both fed the same draws."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import toy
import upstream_iteration as upstream

from cyclegan_fast import backend, models
from cyclegan_fast.fusion.hand import HandWalk
from cyclegan_fast.training import (
    Networks,
    StepDraws,
    Trainer,
    arrangement,
    pool,
    schedule,
    step,
    walked,
)
from cyclegan_fast.training.passes import Weights
from cyclegan_fast.training.pool import PoolDraws

STEPS, PER_EPOCH, BOUND = 20, 4, 1e-9


@dataclass
class Case:
    """One setting; the pool is small so that it fills and replaces within the run."""

    backend: str = "native"  # "off": not accelerated
    netG: str = "resnet"
    norm: str = "instance"
    dropout: bool = False
    gan_mode: str = "lsgan"
    identity: float = 0.5
    batch: int = 1
    pool: int = 3
    memory_format: str = "contiguous"
    merge: str = "auto"
    join: str = "auto"
    pair: str = "auto"
    checkpoint: str = "off"


def networks(case):
    """The package's networks and upstream's, with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if case.netG == "resnet":
            shape = (3, 3, 3, case.norm, case.dropout)
            ours = [models.ResnetGenerator(*shape, n_blocks=2) for _ in range(2)]
            theirs = [upstream.Resnet(*shape, blocks=2) for _ in range(2)]
        else:
            ours = [models.UnetGenerator(3, 3, 5, 2, case.norm) for _ in range(2)]
            theirs = [upstream.Unet(3, 3, 2, case.norm, 5) for _ in range(2)]
        ours += [models.NLayerDiscriminator(3, 3, 2, case.norm) for _ in range(2)]
        theirs += [upstream.Patch(3, 3, case.norm, 2) for _ in range(2)]
        for net, other in zip(ours, theirs, strict=True):
            # A wider spread than upstream's 0.02: every layer then matters within 20 steps.
            models.init_weights(net.double(), "normal", 0.2)
            other.double().load_state_dict(net.state_dict())
    return Networks(*ours), theirs


def run(case):
    """Train both sides; returns losses per step and networks of each."""
    config = toy.config(
        precision="fp32",
        gan_mode=case.gan_mode,
        lambda_identity=case.identity,
        lambda_A=8.0,
        lambda_B=12.0,
        pool_size=case.pool,
        batch_size=case.batch,
        n_epochs=2,
        n_epochs_decay=3,
        lr=2e-4,
        accelerate=case.backend != "off",
        memory_format=case.memory_format,
        merge=case.merge,
        join=case.join,
        pair=case.pair,
        checkpoint=case.checkpoint,
    )
    names = [field.name for field in dataclasses.fields(upstream.Options)]
    options = upstream.Options(**{name: getattr(config, name) for name in names})
    ours, theirs = networks(case)
    plain = upstream.Upstream(*theirs, options)
    trainer = Trainer(config, ours, steps_per_epoch=PER_EPOCH)
    data = toy.Data(side=32 if case.netG == "unet" else 16, dtype=torch.float64)
    random = np.random.default_rng(0)
    losses = []
    for number in range(STEPS):
        batch = data.batch(number, case.batch)
        draws = StepDraws(
            *(
                PoolDraws(
                    random.random(case.batch), random.integers(0, max(case.pool, 1), case.batch)
                )
                for _ in range(2)
            )
        )
        torch.manual_seed(number)  # dropout draws in the same order on both sides
        expected = plain.step(batch["A"], batch["B"], draws.fake_A, draws.fake_B)
        torch.manual_seed(number)
        got = trainer.step(batch, draws)
        losses.append((expected, {name: float(value) for name, value in got.items()}))
        if (number + 1) % PER_EPOCH == 0:
            plain.end_epoch()
    return losses, theirs, [net for _, net in trainer.networks.items()]


def wrong_pool(monkeypatch):
    monkeypatch.setattr(pool.ImagePool, "query", lambda self, pictures, _: pictures.detach())


def wrong_discriminator_weight(monkeypatch):
    right = step.discriminator_losses

    def doubled(*args):
        return {name: 2 * loss for name, loss in right(*args).items()}

    monkeypatch.setattr(step, "discriminator_losses", doubled)


def wrong_identity_weights(monkeypatch):
    right = Weights.of

    def swapped(*arguments):
        weights = right(*arguments)
        return weights._replace(together=weights.together[[0, 1, 3, 2]])

    monkeypatch.setattr(Weights, "of", swapped)


def wrong_half(monkeypatch):
    right = arrangement.Arrangement.both

    def swapped(*args):
        first, second = right(*args)
        return second, first

    monkeypatch.setattr(arrangement.Arrangement, "both", swapped)


def wrong_schedule(monkeypatch):
    monkeypatch.setattr(schedule.Schedule, "lr", lambda self, epoch: self._config.lr)


def wrong_order(monkeypatch):
    right = step.discriminator_losses

    def on_later_pictures(nets, batch, shown_A, shown_B, *rest):
        return right(nets, batch, nets.G_B(batch.real_B), nets.G_A(batch.real_A), *rest)

    monkeypatch.setattr(step, "discriminator_losses", on_later_pictures)


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-300))


def largest_error(case):
    """The largest relative difference of any loss of any step, or of any weight at the end."""
    losses, theirs, ours = run(case)
    errors = {}
    for number, (expected, got) in enumerate(losses):
        assert expected.keys() == got.keys()
        for name in got:
            scale = max(abs(expected[name]), 1e-3)
            errors[f"step {number}, loss {name}"] = abs(got[name] - expected[name]) / scale
    for number, (net, other) in enumerate(zip(ours, theirs, strict=True)):
        dead = upstream.dead_biases(other)
        state = net.state_dict()
        for key, value in other.state_dict().items():
            if key not in dead and value.is_floating_point():
                errors[f"network {number}, {key}"] = relative(state[key], value)
    return max(errors.items(), key=lambda item: item[1])


CASES = {
    "native": Case(),
    "reference": Case(backend="reference"),
    "plain": Case(backend="off"),
    "vanilla": Case(gan_mode="vanilla", batch=2),
    "wgangp": Case(gan_mode="wgangp", identity=0.0),
    "no identity, batch 2": Case(identity=0.0, batch=2),
    "plain, batch 2, no pool": Case(backend="off", batch=2, pool=0),
    "unet": Case(netG="unet", batch=2),
    "unet, reference": Case(netG="unet", backend="reference", identity=0.0),
    "unet, plain": Case(netG="unet", backend="off"),
    "batch norm": Case(norm="batch", batch=2),
    # The mask of a dropout follows the layout, so only the same layout draws the same mask.
    "plain, batch norm, dropout": Case(norm="batch", dropout=True, backend="off", batch=2),
    "dropout": Case(dropout=True),
    "channels_last": Case(memory_format="channels_last", batch=2),
    "norms in pairs": Case(merge="on", pair="on"),
    "blocks again": Case(checkpoint="blocks"),
    "blocks again, in pairs": Case(checkpoint="blocks", merge="on", pair="on", batch=2),
    "blocks again, one by one": Case(checkpoint="blocks", merge="off"),
    "one by one": Case(merge="off"),
    "one by one, joined": Case(merge="off", join="on", batch=2),
    "one by one, joined, in pairs": Case(merge="off", join="on", pair="on"),
    "merged, not joined": Case(merge="on", join="off", batch=2),
    "one by one, no identity": Case(merge="off", identity=0.0, batch=2),
}


@pytest.mark.parametrize("name", CASES)
def test_twenty_steps_equal_upstream(name):
    case = CASES[name]
    with backend.use_backend("auto" if case.backend == "off" else case.backend):
        where, error = largest_error(case)
    assert error <= BOUND, f"{where} differs by {error:.2e}"


@pytest.mark.parametrize(
    "wrong",
    [
        wrong_pool,
        wrong_discriminator_weight,
        wrong_identity_weights,
        wrong_half,
        wrong_schedule,
        wrong_order,
    ],
)
def test_a_wrong_trainer_differs(wrong, monkeypatch):
    wrong(monkeypatch)
    where, error = largest_error(CASES["plain"])
    assert error > 1e4 * BOUND, f"nothing noticed {wrong.__name__}; the largest is {where}"


def shown_for_real(monkeypatch):
    right = walked._judge
    monkeypatch.setattr(walked, "_judge", lambda *args: right(*args[:3], args[4], args[3]))


def lost_derivative_of_tanh(monkeypatch):
    monkeypatch.setattr(walked.Walks, "unfinished", lambda self, gradient, picture: gradient)


def wrong_weight_of_a_discriminator(monkeypatch):
    right = walked.discriminator_objective
    monkeypatch.setattr(walked, "discriminator_objective", lambda *args: 2 * right(*args))


def lost_gradient_of_a_discriminator(monkeypatch):
    right = HandWalk.backward

    def backward(self, of, gradients):
        found = yield from right(self, of, gradients)
        return [g * (len(of.outputs) != 3) for g in found]

    monkeypatch.setattr(HandWalk, "backward", backward)


@pytest.mark.parametrize(
    "wrong",
    [
        wrong_pool,
        wrong_identity_weights,
        shown_for_real,
        lost_derivative_of_tanh,
        wrong_weight_of_a_discriminator,
        lost_gradient_of_a_discriminator,
    ],
)
def test_a_wrong_walk_differs(wrong, monkeypatch):
    wrong(monkeypatch)
    where, error = largest_error(CASES["native"])
    assert error > 1e4 * BOUND, f"nothing noticed {wrong.__name__}; the largest is {where}"


def test_weight_gradients_taken_twice_are_noticed(monkeypatch):
    """Blocks run again take them run by run: what one run leaves must not count in the next."""
    monkeypatch.setattr(HandWalk, "_let_go", lambda self, i: None)
    where, error = largest_error(CASES["blocks again"])
    assert error > 1e4 * BOUND, f"nothing noticed; the largest is {where}"


def test_networks_are_walked_by_hand_unless_a_step_stands_against_it():
    for case, expected in (
        (CASES["native"], {}),
        (CASES["unet"], {"G_A": "FunctionStep of", "G_B": "FunctionStep of"}),
        (CASES["dropout"], {"G_A": "(Dropout)", "G_B": "(Dropout)"}),
    ):
        ours, _ = networks(case)
        trainer = Trainer(toy.config(precision="fp32"), ours)
        reasons = walked.reasons(trainer.engine)
        assert reasons.keys() == expected.keys()
        assert all(part in reasons[name] for name, part in expected.items())


# Of each compiled op, the arguments it writes, as positions.
WRITTEN = {
    "instance_norm_act_fwd": (8,),
    "instance_norm_act_bwd": (10, 11),
    "reflect_pad2d_copy": (2,),
    "reflect_pad2d_bwd": (2,),
    "generator_loss_fwd": tuple(range(11, 19)),
    "generator_loss_bwd": tuple(range(7, 13)),
    "pool_exchange_fwd": (0, 4),
    "lsgan_loss_fwd": (3,),
    "lsgan_loss_bwd": (4, 5),
}


@pytest.mark.parametrize("op", WRITTEN)
@pytest.mark.parametrize("how", ["a little off", "one element wrong"])
def test_a_broken_kernel_is_noticed(op, how, monkeypatch):
    """The run is the default one: each compiled kernel has its part in the twenty steps."""
    right = getattr(torch.ops.cyclegan_fast_C, op)
    calls = []

    def broken(*arguments):
        right(*arguments)
        calls.append(op)
        for position in WRITTEN[op]:
            written = arguments[position]
            if written is None or not written.is_floating_point():
                continue
            if how == "a little off":
                # Not everywhere: Adam does not see gradients that grow all alike.
                (written[..., ::2] if written.dim() else written).mul_(1 + 1e-6)
            elif written.numel():
                written.view(-1)[written.numel() // 2] += 1e-3

    monkeypatch.setattr(torch.ops.cyclegan_fast_C, op, broken)
    where, error = largest_error(CASES["native"])
    assert calls and error > BOUND, f"nothing noticed a broken {op}; the largest is {where}"
