# SPDX-License-Identifier: MIT
"""Loss scaling for fp16: skips what overflows, has a floor, and an end."""

import pytest
import torch
import toy

from cyclegan_fast.errors import LossScaleError
from cyclegan_fast.training import Trainer
from cyclegan_fast.training.optimizer import Adam
from cyclegan_fast.training.scaler import LossScaler

CPU = torch.device("cpu")


def parameter_and_adam():
    parameter = torch.nn.Parameter(torch.arange(4.0))
    return parameter, Adam([("w", parameter)], lr=0.1, beta1=0.5)


def step(scaler, parameter, adam, factor):
    adam.zero_grad()
    scaler.scale((parameter * factor).sum()).backward()
    overflow = scaler.unscale(adam)
    adam.step()
    return scaler.update(overflow)


def test_gradients_are_divided_again():
    scaler, (parameter, adam) = LossScaler(CPU), parameter_and_adam()
    adam.zero_grad()
    scaler.scale((parameter * 3).sum()).backward()
    assert torch.equal(parameter.grad, torch.full((4,), 3.0 * 2**16))
    assert scaler.unscale(adam) == 0
    assert torch.equal(parameter.grad, torch.full((4,), 3.0))


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_an_overflow_is_skipped_and_halves_the_scale(bad):
    scaler, (parameter, adam) = LossScaler(CPU), parameter_and_adam()
    assert not step(scaler, parameter, adam, 1.0)
    weights, moments = parameter.clone(), {k: v.clone() for k, v in adam.state_dict().items()}
    assert step(scaler, parameter, adam, bad)
    assert torch.equal(parameter, weights)
    for name, moment in adam.state_dict().items():
        assert torch.equal(moment, moments[name]), name
    assert scaler.state_dict()["scale"] == 2**15
    assert scaler.skipped == 1


def test_the_scale_grows_after_2000_good_steps_to_a_ceiling():
    scaler = LossScaler(CPU)
    for _ in range(1999):
        scaler.update(torch.zeros(()))
    assert scaler.state_dict()["scale"] == 2**16
    scaler.update(torch.zeros(()))
    assert scaler.state_dict()["scale"] == 2**17
    scaler.state_dict()["scale"].fill_(2.0**24)
    for _ in range(2000):
        scaler.update(torch.zeros(()))
    assert scaler.state_dict()["scale"] == 2**24


def test_the_floor_and_the_end():
    scaler, overflow, fine = LossScaler(CPU), torch.ones(()), torch.zeros(())
    for _ in range(31):
        scaler.update(fine, overflow)  # one of the two optimizers is enough
    scaler.check()
    assert scaler.state_dict()["scale"] == 1.0
    scaler.update(overflow, fine)
    with pytest.raises(LossScaleError, match="last 32 steps were all skipped.*bf16"):
        scaler.check()
    scaler.update(fine, fine)
    scaler.check()


def test_goes_on_from_its_state():
    whole, half = LossScaler(CPU), LossScaler(CPU)
    for overflow in (0.0, 1.0, 1.0):
        whole.update(torch.tensor(overflow))
        half.update(torch.tensor(overflow))
    other = LossScaler(CPU)
    other.load_state_dict(half.state_dict())
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in other.state_dict().items())


def calm(trainer):
    """Begin with a scale at which the first steps of a toy do not overflow."""
    if trainer.engine.scaler is not None:
        trainer.engine.scaler.state_dict()["scale"].fill_(2.0**8)


def test_a_training_in_fp16_follows_the_one_in_fp32():
    losses = {}
    for precision in ("fp32", "fp16"):
        trainer = Trainer(toy.config(precision=precision, ngf=4, ndf=4))
        calm(trainer)
        data = toy.Data()
        losses[precision] = [
            torch.stack(list(trainer.step(data.batch(step, 2)).values())) for step in range(6)
        ]
        trainer.check_finite()
    for step, (full, half) in enumerate(zip(losses["fp32"], losses["fp16"], strict=True)):
        # 2^-10 is one unit of fp16; a dozen layers deep, in a loss around 1, stays below 20 of it.
        assert torch.allclose(full, half, rtol=0.02, atol=0.02), (step, full, half)
    assert trainer.engine.scaler.skipped == 0


def test_a_step_that_overflows_in_fp16_leaves_no_trace_but_the_count():
    trainer = Trainer(toy.config(precision="fp16"))
    calm(trainer)
    data = toy.Data()
    trainer.step(data.batch(0, 1))
    parts = ("G_A", "G_B", "D_A", "D_B", "optimizer")
    before = {
        part: {
            name: tensor.clone() for name, tensor in trainer.state_dict()["tensors"][part].items()
        }
        for part in parts
    }
    bad = {name: picture * float("inf") for name, picture in data.batch(1, 1).items()}
    trainer.step(bad)
    trainer.check()  # a skipped step is no failure
    for part in parts:
        for name, tensor in trainer.state_dict()["tensors"][part].items():
            assert torch.equal(tensor, before[part][name]), (part, name)
    trainer.check_finite()
    assert trainer.engine.scaler.skipped == 1
