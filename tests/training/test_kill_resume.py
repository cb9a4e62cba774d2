# SPDX-License-Identifier: MIT
"""Kill a run at any moment, start it again: the same bits come out, to the last log line.

The test process is a fork server: it imports once, and each start of the run is a fork of it.
`CYCLEGAN_FAST_TEST_KILLS` sets the number of kills (30; 200 by night).
"""

import os
import random
import signal
import time
import traceback
from functools import partial

import pytest
import torch
import toy

from cyclegan_fast.training import Reporter, Trainer, checkpoint, loop, manifest, metrics_log
from cyclegan_fast.training import schedule as schedule_module
from cyclegan_fast.training import state as state_module
from cyclegan_fast.training.optimizer import Adam
from cyclegan_fast.training.pool import ImagePool

KILLS = int(os.environ.get("CYCLEGAN_FAST_TEST_KILLS", "30"))
STEPS, PER_EPOCH = 16, 2
OPTIONS = dict(
    dropout=True, ema=0.9, lr_policy="plateau", n_epochs=50, save_latest_freq=3, save_epoch_freq=5,
    lr=1e-5, lambda_identity=0.0, continue_train=True,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def warm():
    """Import and trace once, so that a fork begins at once; threads do not survive a fork."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    Trainer(toy.config(**OPTIONS))
    yield
    torch.set_num_threads(threads)


class KillAt(Reporter):
    """Kills its own process after a step."""

    def __init__(self, step):
        self.step = step

    def on_progress(self, step):
        if step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def start(folder, steps, reporter=None, mutate=None, **options):
    """Begin or resume the run in a process of its own; return its id."""
    child = os.fork()
    if child:
        return child
    try:
        # PyTorch makes its thread pool anew at the first call after a fork, and two loader threads
        # that do so at once trip over each other.
        torch.set_num_threads(1)
        if mutate is not None:
            mutate()
        # Saves hold the options, so all runs must call their folder the same.
        folder.mkdir(exist_ok=True)
        os.chdir(folder)
        config = toy.config(**{**OPTIONS, **options}, max_steps=steps)
        loop.train(config, toy.Data(PER_EPOCH), reporter)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def ended(child, flags=0):
    """None while the process lives, else its exit code, negative for a signal."""
    found, status = os.waitpid(child, flags)
    return os.waitstatus_to_exitcode(status) if found else None


def outcome(folder):
    """Everything a run leaves behind: the digests of its saves and copies, and its log."""
    run_dir = folder / "run"
    checkpoint.clean(run_dir)
    left = {path.name: manifest.read(path)["sha256"] for path in run_dir.glob("*-0*")}
    for path in run_dir.iterdir():
        if path.is_file():
            left[path.name] = path.read_bytes()
    return left


def test_killed_at_random_moments(tmp_path):
    steps, timing = 30, []
    for _ in range(2):  # the whole run, and a start that finds it finished
        began = time.monotonic()
        assert ended(start(tmp_path / "whole", steps)) == 0
        timing.append(time.monotonic() - began)
    expected = outcome(tmp_path / "whole")
    assert {"losses.csv", "latest", "epoch-0005", "epoch-0015", "step-00000030"} <= set(expected)
    # Kills fall anywhere from the start to about six steps and two saves after the first new one.
    longest = timing[1] + 6 * timing[0] / steps

    moments, kills, rounds = random.Random(7), 0, 0
    while kills < KILLS:
        rounds += 1
        folder = tmp_path / f"killed-{rounds}"
        while kills < KILLS:
            child = start(folder, steps)
            time.sleep(moments.random() * longest)
            os.kill(child, signal.SIGKILL)
            code = ended(child)
            assert code in (0, -signal.SIGKILL)
            if code == 0:
                break
            kills += 1
        assert ended(start(folder, steps)) == 0
        assert outcome(folder) == expected, f"after {kills} kills"


def resumed_in_the_middle(folder, mutate=None, **options):
    """A run killed at step 15, after the report of step 14, and resumed from step 12."""
    assert ended(start(folder, STEPS, KillAt(15), **options)) == -signal.SIGKILL
    assert ended(start(folder, STEPS, mutate=mutate, **options)) == 0
    return outcome(folder)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert ended(start(folder, STEPS, accelerate=False)) == 0
    return outcome(folder)


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(norm="batch", gan_mode="vanilla", preprocess="none"),
        dict(precision="bf16", batch_size=2, memory_format="contiguous"),
        dict(precision="fp16", num_threads=2, lambda_identity=0.5),
    ],
)
def test_resumed_in_the_middle(tmp_path, options):
    assert ended(start(tmp_path / "whole", STEPS, **options)) == 0
    expected = outcome(tmp_path / "whole")
    assert resumed_in_the_middle(tmp_path / "killed", **options) == expected


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


@pytest.mark.parametrize("part", FORGOTTEN)
def test_a_forgotten_part_is_noticed(tmp_path, uninterrupted, part):
    forget = partial(setattr, *FORGOTTEN[part])
    assert resumed_in_the_middle(tmp_path, forget, accelerate=False) != uninterrupted


def test_the_parts_are_all_that_is_needed(tmp_path, uninterrupted):
    assert resumed_in_the_middle(tmp_path, accelerate=False) == uninterrupted
