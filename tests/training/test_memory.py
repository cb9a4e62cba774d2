# SPDX-License-Identifier: MIT
"""The memory of a step, predicted and counted: bytes of live tensors, not of the process."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import toy

from cyclegan_fast import backend
from cyclegan_fast.training import Trainer, memory, step
from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.memory import Footprint, LiveBytes, pictures_like, predict

# What a prediction may miss. Nothing is known that it misses: on a CPU it is the figure itself.
MARGIN = 0.01

CASES = {
    "one by one": dict(merge="off"),
    "one by one, joined": dict(merge="off", join="on"),
    "merged": {},
    "merged, not joined": dict(merge="on", join="off"),
    "batch 2": dict(batch_size=2),
    "crop 128": dict(crop_size=128, load_size=128),
    "bf16": dict(precision="bf16"),
    "fp16": dict(precision="fp16", batch_size=2),
    "blocks again": dict(checkpoint="blocks"),
    "blocks again, one by one": dict(checkpoint="blocks", merge="off", batch_size=2),
    "blocks again, bf16, in pairs": dict(
        checkpoint="blocks", precision="bf16", merge="on", pair="on"
    ),
    "averages, no pool": dict(ema=0.9, pool_size=0),
    "no identity": dict(lambda_identity=0.0),
    "grey to colour": dict(input_nc=1, lambda_identity=0.0, direction="BtoA"),
    "dropout": dict(dropout=True),
    "wgangp": dict(gan_mode="wgangp"),
    "unet": dict(netG="unet_128", crop_size=128, load_size=128),
    "plain": dict(accelerate=False),
}


def config(**changes) -> TrainConfig:
    return toy.config(**{**dict(crop_size=64, load_size=64, ngf=4, ndf=4), **changes})


def counted(config: TrainConfig, steps: int = 3) -> int:
    """The most that lived while a trainer was made and made some steps."""
    with LiveBytes() as live:
        trainer = Trainer(config)
        for _ in range(steps):
            trainer.step(pictures_like(config, torch.zeros))
    return live.peak


@pytest.mark.parametrize("name", CASES)
def test_what_is_predicted_is_what_is_counted(name):
    chosen = config(**CASES[name])
    found = predict(Trainer(chosen))
    assert isinstance(found, Footprint)
    assert found.peak == pytest.approx(counted(chosen), rel=MARGIN)


def test_blocks_run_again_take_less():
    chosen = config(netG="resnet_9blocks")
    kept, again = (
        counted(dataclasses.replace(chosen, checkpoint=value), 2) for value in ("off", "blocks")
    )
    assert again < 0.6 * kept


def test_other_options_are_predicted_of_the_same_trainer():
    trainer = Trainer(config())
    for changes in (dict(checkpoint="blocks"), dict(batch_size=2), dict(precision="bf16")):
        expected = predict(Trainer(config(**changes)))
        assert predict(trainer, **changes) == expected != predict(trainer)


def test_its_parts_add_up():
    trainer = Trainer(config(precision="bf16", ema=0.9, pool_size=4))
    found = predict(trainer, pictures=1000)
    weights = sum(p.nbytes for _, net in trainer.networks.items() for p in net.parameters())
    assert found.standing["weights"] == weights
    assert found.standing["moments"] == pytest.approx(2 * weights, rel=0.01)
    assert found.standing["pictures"] == 1000
    assert found.standing["pools"] == 2 * 5 * 3 * 64 * 64 * 2
    assert {"16-bit weights", "averages"} <= found.standing.keys()
    assert found.peak == sum(found.standing.values()) + found.step


def test_nothing_is_touched():
    chosen = config(dropout=True)
    trainer = Trainer(chosen)
    before = {k: v.clone() for k, v in trainer.state_dict()["tensors"]["G_A"].items()}
    chance = torch.get_rng_state()
    with backend.record() as served:
        predict(trainer)
    assert torch.equal(chance, torch.get_rng_state())
    assert not served and trainer.step_count == 0
    for key, value in trainer.state_dict()["tensors"]["G_A"].items():
        assert torch.equal(value, before[key])
    losses = trainer.step(toy.Data(side=64).batch(0, 1))
    assert all(loss.isfinite() for loss in losses.values())


def test_it_takes_no_memory_itself():
    """A step of more than a terabyte, on whatever machine this runs on."""
    assert predict(Trainer(config()), crop_size=2**15, load_size=2**15).peak > 1e12


def test_what_cannot_be_predicted_is_said(monkeypatch):
    ragged = Trainer(toy.config(preprocess="none"))
    assert "keep their sizes" in predict(ragged)
    trainer = Trainer(config())
    monkeypatch.setattr(
        backend, "resolve", lambda op, kind, dtype: "reference" if kind == "cpu" else "triton"
    )
    monkeypatch.setattr(trainer, "device", torch.device("cuda"))
    assert "compiled kernels" in predict(trainer)


def test_a_view_counts_once_and_what_was_there_before_not_at_all():
    there = torch.ones(100)
    with LiveBytes() as live:
        assert there[:10].sum() == 10
        made = torch.ones(1000)
        part = made[10:20]
        assert live.now == 4000
        del made
        assert live.now == 4000
        del part
    assert live.now == 0 and 4000 <= live.peak < 4100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(dropout=True), "checkpoint is blocks, but dropout"),
        (dict(netG="unet_128", crop_size=128, load_size=128), "G_A runs under autograd.*Function"),
        (dict(accelerate=False), "G_A runs under autograd.*not accelerated.*--checkpoint off"),
        (dict(checkpoint="block"), r"one of off, blocks, got 'block' \(did you mean blocks"),
    ],
)
def test_blocks_that_cannot_be_run_again_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Trainer(config(**{"checkpoint": "blocks", **changes}))


def smaller_pictures(monkeypatch):
    right = step.run
    monkeypatch.setattr(
        memory._Rehearsal,
        "_runner",
        lambda self: (
            lambda batch, decisions: right(
                self.engine, batch._replace(real_A=batch.real_B[..., ::2, ::2]), decisions
            )
        ),
    )


def first_step_only(monkeypatch):
    monkeypatch.setattr(memory, "_STEPS", 1)


@pytest.mark.parametrize("wrong", [smaller_pictures, first_step_only])
def test_a_wrong_prediction_is_noticed(wrong, monkeypatch):
    wrong(monkeypatch)
    with pytest.raises(AssertionError):
        test_what_is_predicted_is_what_is_counted("one by one")
