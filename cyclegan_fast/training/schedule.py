# SPDX-License-Identifier: MIT
"""The learning rate of each epoch: upstream's four policies, in both of its eras.

A policy gives the learning rate after k steps of the schedule. Upstream steps its schedule after
each epoch since 2025, so that epoch e (from 1) runs at k = e - 1; until 2024 it stepped before,
at k = e: epoch 100 already decayed and epoch 200 trained at a rate of 0.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from cyclegan_fast.training.config import TrainConfig

_STEP_GAMMA = 0.1
# torch.optim.lr_scheduler.ReduceLROnPlateau as upstream configures it; the last is torch's default.
_PLATEAU_FACTOR, _PLATEAU_THRESHOLD, _PLATEAU_PATIENCE, _PLATEAU_SMALLEST = 0.2, 0.01, 5, 1e-8


def for_ranks(config: TrainConfig, ranks: int) -> TrainConfig:
    """Return options whose learning rate follows lr_rule: times the ranks, or their root, or 1."""
    factor = {"none": 1.0, "linear": float(ranks), "sqrt": math.sqrt(ranks)}[config.lr_rule]
    return dataclasses.replace(config, lr=config.lr * factor)


class Schedule:
    """Learning rate as a function of the epoch, and for plateau of how the epochs went.

        linear:  lr * (1 - max(0, k + epoch_count - n_epochs) / (n_epochs_decay + 1))
        step:    lr * 0.1 ^ floor(k / lr_decay_iters)
        cosine:  lr * (1 + cos(pi k / n_epochs)) / 2
        plateau: a fifth, whenever the metric has not fallen by 1 % for more than 5 epochs

    The plateau's metric is the epoch's mean cycle loss. Upstream's is a constant 0, which makes
    its plateau fall every sixth epoch whatever happens; that is not imitated.

    Args:
        config: lr, lr_policy, lr_era, lr_decay_iters, n_epochs, n_epochs_decay, epoch_count.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._plateau_lr = config.lr
        self._best = math.inf
        self._bad_epochs = 0

    @property
    def needs_metric(self) -> bool:
        """True if `end_epoch` wants the epoch's mean cycle loss."""
        return self._config.lr_policy == "plateau"

    def lr(self, epoch: int) -> float:
        """Return the learning rate of an epoch, which is epoch_count or later."""
        config = self._config
        k = epoch - config.epoch_count + (1 if config.lr_era == "2020" else 0)
        if config.lr_policy == "linear":
            past = max(0, k + config.epoch_count - config.n_epochs)
            return config.lr * (1.0 - past / (config.n_epochs_decay + 1))
        if config.lr_policy == "step":
            return config.lr * _STEP_GAMMA ** (k // config.lr_decay_iters)
        if config.lr_policy == "cosine":
            return config.lr * (1.0 + math.cos(math.pi * k / max(1, config.n_epochs))) / 2
        return self._plateau_lr

    def end_epoch(self, metric: float) -> None:
        """Take note of an epoch's mean cycle loss; plateau alone listens."""
        if not self.needs_metric:
            return
        if metric < self._best * (1 - _PLATEAU_THRESHOLD):
            self._best, self._bad_epochs = metric, 0
        else:
            self._bad_epochs += 1
        if self._bad_epochs > _PLATEAU_PATIENCE:
            self._bad_epochs = 0
            lower = self._plateau_lr * _PLATEAU_FACTOR
            if self._plateau_lr - lower > _PLATEAU_SMALLEST:
                self._plateau_lr = lower

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        best = None if math.isinf(self._best) else self._best
        return {"plateau_lr": self._plateau_lr, "best": best, "bad_epochs": self._bad_epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`'s values."""
        self._plateau_lr = state["plateau_lr"]
        self._best = math.inf if state["best"] is None else state["best"]
        self._bad_epochs = state["bad_epochs"]
