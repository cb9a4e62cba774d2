# SPDX-License-Identifier: MIT
"""A run to be killed and resumed, in a process of its own."""

from __future__ import annotations

import os
import signal

import fork_server
import torch
import toy

from cyclegan_fast.training import Reporter, loop, metrics_log
from cyclegan_fast.training import schedule as schedule_module
from cyclegan_fast.training import state as state_module
from cyclegan_fast.training.optimizer import Adam
from cyclegan_fast.training.pool import ImagePool

PER_EPOCH = 2
OPTIONS = dict(
    dropout=True, ema=0.9, lr_policy="plateau", n_epochs=50, save_latest_freq=3, save_epoch_freq=5,
    lr=1e-5, lambda_identity=0.0, continue_train=True,
)  # fmt: skip


class KillAt(Reporter):
    """Kills its own process after a step."""

    def __init__(self, step):
        self.step = step

    def on_progress(self, step):
        if step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def start(folder, steps, kill_at=None, forget=None, **options):
    """Begin or resume the run; return its process.

    Args:
        folder: it works in.
        steps: at the end of which it ends.
        kill_at: the step after which it kills itself.
        forget: a part of the resumption that is to be left out, of FORGOTTEN.
        options: beside OPTIONS.
    """
    return fork_server.started(_run, folder, steps, kill_at, forget, options)


def ended(process):
    """Wait for a run; return its exit code, negative for a signal."""
    process.join()
    return process.exitcode


def _run(folder, steps, kill_at, forget, options):
    # Two loader threads that make PyTorch's thread pool at once trip over each other.
    torch.set_num_threads(1)
    if forget is not None:
        setattr(*FORGOTTEN[forget])
    # Saves hold the options, so all runs must call their folder the same.
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    config = toy.config(**{**OPTIONS, **options}, max_steps=steps)
    reporter = None if kill_at is None else KillAt(kill_at)
    loop.train(config, toy.Data(PER_EPOCH), reporter)


def nothing(*_args, **_options):
    """Stands in for a part of the resumption that was forgotten."""


def without_optimizer_D(adam, tensors, right=Adam.load_state_dict):
    if not any(name.startswith("D_A") for name in tensors):
        right(adam, tensors)


def without_average(trainer, right=state_module._weights):
    return [(name, net) for name, net in right(trainer) if not name.startswith("ema")]


def without_images(trainer, saved, right=state_module.restore):
    right(trainer, saved)
    trainer.images = 0


def with_another_step(trainer, saved, right=state_module.restore):
    right(trainer, saved)
    trainer.step_count -= 1


def whole_log(log, path, size=0, right=metrics_log.MetricsLog.__init__):
    right(log, path, path.stat().st_size if size else 0)


FORGOTTEN = {
    "pools": (ImagePool, "load_state_dict", nothing),
    "optimizer of D": (Adam, "load_state_dict", without_optimizer_D),
    "generator of dropout": (state_module.torch, "set_rng_state", nothing),
    "plateau": (schedule_module.Schedule, "load_state_dict", nothing),
    "averages": (state_module, "_weights", without_average),
    "images seen": (state_module, "restore", without_images),
    "step": (state_module, "restore", with_another_step),
    "end of the log": (metrics_log.MetricsLog, "__init__", whole_log),
}
