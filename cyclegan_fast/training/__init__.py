# SPDX-License-Identifier: MIT
"""The trainer: upstream's CycleGAN of 2025, step by step, and the run around it."""

from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.loop import train
from cyclegan_fast.training.networks import Networks, build
from cyclegan_fast.training.reporter import Reporter, RunInfo, RunResult, StepStats
from cyclegan_fast.training.trainer import StepDraws, Trainer

__all__ = [
    "Networks",
    "Reporter",
    "RunInfo",
    "RunResult",
    "StepDraws",
    "StepStats",
    "TrainConfig",
    "Trainer",
    "build",
    "train",
]
