# SPDX-License-Identifier: MIT
"""Ctrl-C, SIGTERM and SIGUSR1: the step ends, the state is saved, the exit code says why."""

import os
import signal
import threading
import time

import pytest
import toy

from cyclegan_fast.training import Reporter, Trainer, checkpoint, durable, train
from cyclegan_fast.training.signals import StopRequested, StopSignals

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


class SignalAt(Reporter):
    """Sends signals to its own process after a step."""

    def __init__(self, step, *numbers):
        self.step, self.numbers = step, numbers

    def on_progress(self, step):
        if step == self.step:
            for number in self.numbers:
                os.kill(os.getpid(), number)


def handlers():
    return [signal.getsignal(number) for number in ALL]


@pytest.mark.parametrize("number", ALL)
def test_saves_and_leaves(tmp_path, number):
    config, before = toy.config(tmp_path, save_latest_freq=1000), handlers()
    result = train(config, toy.Data(), SignalAt(5, number))
    assert (result.step, result.signal, result.exit_code) == (5, number, 128 + number)
    assert not result.finished and result.saved.name == "step-00000005"
    assert handlers() == before

    whole = train(toy.config(tmp_path / "whole", save_latest_freq=1000), toy.Data())
    again = train(toy.config(tmp_path, save_latest_freq=1000, continue_train=True), toy.Data())
    assert again.finished and again.exit_code == 0 and again.step == whole.step == 18
    parts = (r.trainer.state_dict()["tensors"] for r in (whole, again))
    for name, tensors in next(parts).items():
        other = again.trainer.state_dict()["tensors"][name]
        assert all(value.equal(other[key]) for key, value in tensors.items()), name


def test_a_second_sigterm_changes_nothing(tmp_path):
    signals = SignalAt(3, signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1)
    result = train(toy.config(tmp_path), toy.Data(), signals)
    assert (result.step, result.exit_code) == (3, 143)


def test_a_second_ctrl_c_leaves_at_once_and_the_newest_save_is_intact(tmp_path, monkeypatch):
    right = durable.write_file

    def interrupted(path, data):
        right(path, data)
        if "step-00000007" in str(path):
            os.kill(os.getpid(), signal.SIGINT)  # while the save of the first one is on its way

    monkeypatch.setattr(durable, "write_file", interrupted)
    config = toy.config(tmp_path, save_latest_freq=4)
    with pytest.raises(KeyboardInterrupt):
        train(config, toy.Data(), SignalAt(7, signal.SIGINT))
    assert sorted(path.name for path in config.run_dir.iterdir()) == [
        "latest", "losses.csv", "step-00000004",
    ]  # fmt: skip
    assert checkpoint.load_latest(config.run_dir, Trainer(config, steps_per_epoch=6)).step == 4


class StalledData(toy.Data):
    """A disk that stops answering."""

    def batch(self, step, batch_size):
        if step == 4:
            time.sleep(100)
        return super().batch(step, batch_size)


@pytest.mark.parametrize("threads", [0, 2])
def test_waiting_for_data_does_not_keep_a_signal_waiting(tmp_path, threads):
    config = toy.config(tmp_path, num_threads=threads, save_latest_freq=1000)
    timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    began = time.monotonic()
    result = train(config, StalledData())
    timer.join()
    assert (result.step, result.exit_code) == (4, 143)
    assert result.saved.name == "step-00000004"
    assert time.monotonic() - began < 60, "it waited for the disk"


def test_a_signal_before_the_first_step(tmp_path):
    class AtStart(Reporter):
        def on_start(self, info):
            os.kill(os.getpid(), signal.SIGTERM)

    result = train(toy.config(tmp_path), toy.Data(), AtStart())
    assert (result.step, result.saved, result.exit_code) == (0, None, 143)


def test_a_signal_at_the_last_step_is_no_early_end(tmp_path):
    result = train(toy.config(tmp_path), toy.Data(), SignalAt(18, signal.SIGTERM))
    assert result.finished and result.exit_code == 0


def test_in_another_thread_no_handler_is_set(tmp_path):
    results = []
    before = handlers()
    config = toy.config(tmp_path, max_steps=2)
    thread = threading.Thread(target=lambda: results.append(train(config, toy.Data())))
    thread.start()
    thread.join()
    assert results[0].step == 2 and handlers() == before


def test_a_signal_outside_of_a_wait_is_noted_and_raised_at_the_next():
    with StopSignals() as signals:
        with signals.waiting():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        with pytest.raises(StopRequested), signals.waiting():
            pytest.fail("it waited")
