# SPDX-License-Identifier: MIT
"""What is not finite stops a run before it is saved, and is named."""

import pytest
import torch
import toy

from cyclegan_fast.errors import NonFiniteError
from cyclegan_fast.training import Trainer, checkpoint, train

NAN = float("nan")


class BadData(toy.Data):
    """One picture that is not a picture."""

    def __init__(self, bad_step, value):
        super().__init__()
        self.bad_step, self.value = bad_step, value

    def batch(self, step, batch_size):
        batch = super().batch(step, batch_size)
        if step == self.bad_step:
            batch["A"][0, 0, 3, 3] = self.value
        return batch


@pytest.mark.parametrize("value", [NAN, float("inf")])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_stops_and_keeps_its_last_good_save(tmp_path, value, precision):
    config = toy.config(tmp_path, precision=precision, save_latest_freq=2, print_freq=2)
    # Step 7 is the seventh, step number 6 counted from 0; losses are read after step 8.
    with pytest.raises(NonFiniteError, match="step 7: .*cycle_A.* not finite.*--lr"):
        train(config, BadData(6, value))
    steps = [step for step, _ in checkpoint.saves(config.run_dir)]
    assert steps == [6, 4]
    trainer = Trainer(config, steps_per_epoch=6)
    assert checkpoint.load_latest(config.run_dir, trainer).step == 6
    trainer.check_finite()


def test_losses_are_watched_at_every_step_though_read_rarely():
    trainer, data = Trainer(toy.config()), toy.Data()
    for step in range(3):
        batch = data.batch(step, 1)
        if step == 1:
            batch["B"][0, 0, 0, 0] = NAN
        trainer.step(batch)
    with pytest.raises(NonFiniteError, match="step 2: "):
        trainer.check()


def tensors_of(trainer):
    """One tensor of every kind that a checkpoint holds."""
    engine = trainer.engine
    return {
        "G_A: model.1.weight": trainer.networks.G_A.state_dict()["model.1.weight"],
        "D_B: model.0.bias": trainer.networks.D_B.state_dict()["model.0.bias"],
        "ema_G_B: model.1.weight": engine.averages[1].state_dict()["model.1.weight"],
        "optimizer: D/D_A.model.0.weight/exp_avg_sq": engine.optimizer_D.state_dict()[
            "D_A.model.0.weight/exp_avg_sq"
        ],
        "pools: fake_B/pictures": engine.pool_B.state_dict()["pictures"],
    }


@pytest.mark.parametrize(
    "name",
    [
        "G_A: model.1.weight",
        "D_B: model.0.bias",
        "ema_G_B: model.1.weight",
        "optimizer: D/D_A.model.0.weight/exp_avg_sq",
        "pools: fake_B/pictures",
    ],
)
def test_no_part_of_the_state_is_saved_unless_finite(tmp_path, name):
    trainer = Trainer(toy.config(ema=0.9))
    trainer.step(toy.Data().batch(0, 1))
    checkpoint.save(tmp_path, trainer)
    trainer.step(toy.Data().batch(1, 1))
    with torch.no_grad():
        tensor = tensors_of(trainer)[name]
        tensor[(0,) * tensor.dim()] = NAN
    with pytest.raises(NonFiniteError, match=f"after step 2: {name}"):
        checkpoint.save(tmp_path, trainer)
    with pytest.raises(NonFiniteError):
        checkpoint.save_weights(tmp_path, trainer, 1)
    assert [step for step, _ in checkpoint.saves(tmp_path)] == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000001"]
