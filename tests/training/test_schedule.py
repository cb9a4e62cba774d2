# SPDX-License-Identifier: MIT
"""The learning rate of each epoch, against upstream's figures and PyTorch's schedulers."""

import itertools

import pytest
import torch

from cyclegan_fast.training import TrainConfig
from cyclegan_fast.training.schedule import Schedule, for_ranks

LR = 2e-4


def schedule(**options):
    return Schedule(TrainConfig(**options))


# Of the default run of 100 + 100 epochs. Upstream's rule in exact fractions: since 2025 epoch 100
# is the last at the full rate and epoch 200 runs at 1/101; until 2024 everything came an epoch
# earlier, and epoch 200 ran at 0.
@pytest.mark.parametrize(
    ("era", "epoch", "numerator"),
    [
        ("2025", 1, 101),
        ("2025", 100, 101),
        ("2025", 101, 100),
        ("2025", 199, 2),
        ("2025", 200, 1),
        ("2020", 1, 101),
        ("2020", 99, 101),
        ("2020", 100, 100),
        ("2020", 101, 99),
        ("2020", 199, 1),
        ("2020", 200, 0),
    ],
)
def test_linear_at_the_epochs_that_matter(era, epoch, numerator):
    assert schedule(lr_era=era).lr(epoch) == pytest.approx(LR * numerator / 101, rel=1e-12, abs=0)


def torch_scheduler(optimizer, config):
    if config.lr_policy == "linear":

        def rule(k):
            past = max(0, k + config.epoch_count - config.n_epochs)
            return 1.0 - past / float(config.n_epochs_decay + 1)

        return torch.optim.lr_scheduler.LambdaLR(optimizer, rule)
    if config.lr_policy == "step":
        return torch.optim.lr_scheduler.StepLR(optimizer, config.lr_decay_iters, 0.1)
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.n_epochs, 0)


@pytest.mark.parametrize("era", ["2025", "2020"])
@pytest.mark.parametrize("first", [1, 7])
@pytest.mark.parametrize("policy", ["linear", "step", "cosine"])
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_every_epoch_equals_torchs_scheduler_stepped_as_upstream(policy, first, era):
    config = TrainConfig(
        lr_policy=policy, lr_era=era, epoch_count=first, n_epochs=20, n_epochs_decay=15,
        lr_decay_iters=8,
    )  # fmt: skip
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=config.lr)
    scheduler = torch_scheduler(optimizer, config)
    ours = Schedule(config)
    for epoch in range(first, config.last_epoch + 1):
        if era == "2020":
            scheduler.step()
        expected = optimizer.param_groups[0]["lr"]
        assert ours.lr(epoch) == pytest.approx(expected, rel=1e-9, abs=1e-18), epoch
        if era == "2025":
            scheduler.step()


@pytest.mark.parametrize("metric", ["constant", "noisy"])
def test_plateau_equals_torchs(metric):
    values = itertools.repeat(0.0, 60)
    if metric == "noisy":
        noise = torch.rand(60, generator=torch.Generator().manual_seed(0)).tolist()
        values = [1 / (1 + min(epoch, 20)) + 0.01 * n for epoch, n in enumerate(noise)]
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=LR)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="min", factor=0.2, threshold=0.01, patience=5
    )
    ours = schedule(lr_policy="plateau")
    seen = set()
    for epoch, value in enumerate(values, start=1):
        assert ours.lr(epoch) == optimizer.param_groups[0]["lr"], epoch
        seen.add(ours.lr(epoch))
        ours.end_epoch(value)
        theirs.step(value)
    assert len(seen) > 3, "the rate never fell: the test shows nothing"


def test_plateau_goes_on_from_its_state():
    whole, first = schedule(lr_policy="plateau"), schedule(lr_policy="plateau")
    for metric in (1.0, 0.5, 0.5, 0.5, 0.5):
        whole.end_epoch(metric)
        first.end_epoch(metric)
    second = schedule(lr_policy="plateau")
    second.load_state_dict(first.state_dict())
    for metric in (0.5, 0.5, 0.5):
        whole.end_epoch(metric)
        second.end_epoch(metric)
    assert second.lr(9) == whole.lr(9) == pytest.approx(LR / 5)


def test_other_policies_do_not_listen_to_the_metric():
    linear = schedule()
    for _ in range(20):
        linear.end_epoch(1.0)
    assert linear.lr(1) == LR


@pytest.mark.parametrize(("rule", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
@pytest.mark.parametrize("policy", ["linear", "step", "cosine"])
def test_the_rule_of_the_ranks_multiplies_every_epochs_rate(policy, rule, factor):
    config = TrainConfig(
        lr_policy=policy, lr_rule=rule, n_epochs=5, n_epochs_decay=5, lr_decay_iters=3
    )
    alone, ours = Schedule(config), Schedule(for_ranks(config, 4))
    for epoch in range(1, config.last_epoch + 1):
        assert ours.lr(epoch) == pytest.approx(factor * alone.lr(epoch), rel=1e-12, abs=0)
    assert for_ranks(config, 1) == config
