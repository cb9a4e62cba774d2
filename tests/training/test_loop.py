# SPDX-License-Identifier: MIT
"""The loop: what it reports, when, and how it begins, goes on and ends."""

import dataclasses

import pytest
import torch
import toy

from cyclegan_fast import backend
from cyclegan_fast.errors import CheckpointError, DataError
from cyclegan_fast.training import Reporter, Trainer, checkpoint, train
from cyclegan_fast.training.metrics_log import FILE_NAME, HEADER


class Recorder(Reporter):
    """Writes down every call."""

    def __init__(self):
        self.calls, self.stats, self.samples, self.info, self.result = [], [], {}, None, None

    def on_start(self, info):
        self.info = info
        self.calls.append("start")

    def on_progress(self, step):
        self.calls.append(f"progress {step}")

    def on_step(self, stats):
        self.calls.append(f"step {stats.step}")
        self.stats.append(stats)

    def on_sample(self, step, pictures):
        self.calls.append(f"sample {step}")
        self.samples[step] = pictures

    def on_epoch(self, epoch, seconds):
        self.calls.append(f"epoch {epoch}")

    def on_save(self, path, step, seconds):
        self.calls.append(f"save {path.name}")

    def on_end(self, result):
        self.result = result
        self.calls.append("end")

    def of(self, kind):
        return [call for call in self.calls if call.startswith(kind)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recorder = Recorder()
    config = toy.config(
        tmp_path_factory.mktemp("run"), batch_size=2, print_freq=5, display_freq=12,
        save_latest_freq=10, save_epoch_freq=2, save_format="both",
    )  # fmt: skip
    train(config, toy.Data(), recorder, samples=toy.Data().batch(99, 3))
    return config, recorder


def test_frequencies_count_images_and_fire_when_passed(run):
    _, recorder = run
    # Two images a step: multiples of 5 are reached or passed at images 6, 10, 16, 20, 26, 30, 36.
    assert [stats.step for stats in recorder.stats] == [3, 5, 8, 10, 13, 15, 18]
    assert [stats.images for stats in recorder.stats] == [6, 10, 16, 20, 26, 30, 36]
    assert recorder.of("sample") == ["sample 0", "sample 6", "sample 12", "sample 18"]
    assert recorder.of("epoch ") == ["epoch 1", "epoch 2", "epoch 3"]
    assert recorder.of("save") == [
        "save step-00000005", "save step-00000010", "save epoch-0002", "save step-00000012",
        "save step-00000015", "save step-00000018",
    ]  # fmt: skip
    assert recorder.of("progress") == [f"progress {step}" for step in range(1, 19)]


def test_first_and_last_calls(run):
    config, recorder = run
    assert recorder.calls[:3] == ["start", "sample 0", "progress 1"]
    assert recorder.calls[-5:] == [
        "step 18", "sample 18", "epoch 3", "save step-00000018", "end",
    ]  # fmt: skip
    info, result = recorder.info, recorder.result
    assert (info.start_step, info.total_steps, info.steps_per_epoch, info.notes) == (0, 18, 6, [])
    assert info.run_dir == result.run_dir == config.run_dir
    assert result.finished and result.exit_code == 0 and result.step == 18
    assert result.saved == config.run_dir / "step-00000018"


def test_reports(run):
    _, recorder = run
    first, last = recorder.stats[0], recorder.stats[-1]
    assert (first.epoch, last.epoch, first.total_steps) == (1, 3, 18)
    assert first.lr == 2e-4 and last.lr == pytest.approx(1e-4)
    assert list(first.losses) == HEADER.split(",")[4:]
    assert all(value > 0 for value in first.losses.values())
    assert first.images_per_second > 0 and 0 <= first.data_wait <= 1
    assert last.eta_seconds == 0 < first.eta_seconds
    assert first.skipped is None


def test_the_log_holds_every_report(run):
    config, recorder = run
    lines = (config.run_dir / FILE_NAME).read_text().splitlines()
    assert lines[0] == HEADER and len(lines) == 1 + len(recorder.stats)
    for line, stats in zip(lines[1:], recorder.stats, strict=True):
        fields = line.split(",")
        assert [int(field) for field in fields[:3]] == [stats.step, stats.epoch, stats.images]
        expected = [stats.lr, *stats.losses.values()]
        assert [float(field) for field in fields[3:]] == pytest.approx(expected, rel=1e-8)


def test_samples_are_of_the_given_pictures_and_change_with_training(run):
    _, recorder = run
    names = {"real_A", "fake_B", "rec_A", "idt_B", "real_B", "fake_A", "rec_B", "idt_A"}
    for pictures in recorder.samples.values():
        assert set(pictures) == names
        assert all(
            p.shape == (3, 3, 16, 16) and p.dtype == torch.float32 for p in pictures.values()
        )
        assert torch.equal(pictures["real_A"], toy.Data().batch(99, 3)["A"])
    assert not torch.equal(recorder.samples[0]["fake_B"], recorder.samples[18]["fake_B"])


def test_the_result_says_who_served_the_ops(tmp_path):
    with backend.use_backend("native"):
        native = backend.why_not("generator_loss", "native", "cpu", torch.float32) is None
    config = toy.config(tmp_path, max_steps=2)
    served = train(config, toy.Data()).served
    expected = "native" if native else "reference"
    # Once a step; samples have no loss.
    assert served["generator_loss", expected] == 2
    reference = train(dataclasses.replace(config, name="two", backend="reference"), toy.Data())
    assert {name for _, name in reference.served} == {"reference"}


def test_upstreams_files_are_written(run):
    config, recorder = run
    names = {path.name for path in config.run_dir.glob("*.pth")}
    networks = ("G_A", "G_B", "D_A", "D_B")
    assert names == {f"{label}_net_{n}.pth" for label in ("2", "latest") for n in networks}


def test_a_finished_run_is_not_overwritten_but_can_be_prolonged(run):
    config, _ = run
    with pytest.raises(CheckpointError, match="holds a run of 18 steps. Use --continue_train"):
        train(config, toy.Data())
    recorder = Recorder()
    longer = dataclasses.replace(config, continue_train=True, n_epochs=3, display_freq=1000)
    train(longer, toy.Data(), recorder)
    assert recorder.info.start_step == 18 and recorder.info.total_steps == 24
    assert "n_epochs 2 -> 3" in recorder.info.notes[0]
    assert recorder.of("sample") == ["sample 24"]
    assert recorder.result.step == 24


def test_continue_without_a_save_begins_and_says_so(tmp_path):
    recorder = Recorder()
    train(toy.config(tmp_path, continue_train=True, max_steps=2), toy.Data(), recorder)
    assert recorder.info.start_step == 0
    assert "holds no save: the run begins at step 0" in recorder.info.notes[0]


def test_a_damaged_save_is_said_and_the_run_goes_on(tmp_path):
    config = toy.config(tmp_path, max_steps=8, save_latest_freq=4)
    train(config, toy.Data())
    (config.run_dir / "step-00000008" / "G_A.safetensors").write_bytes(b"")
    recorder = Recorder()
    longer = dataclasses.replace(config, continue_train=True, max_steps=10)
    train(longer, toy.Data(), recorder)
    assert recorder.info.start_step == 4
    assert "G_A.safetensors is damaged" in recorder.info.notes[0]
    assert "4 steps before the newest save" in recorder.info.notes[1]
    assert checkpoint.load_latest(config.run_dir, Trainer(config, steps_per_epoch=6)).step == 10


def test_a_log_that_was_cut_is_said(tmp_path):
    config = toy.config(tmp_path, max_steps=4)
    train(config, toy.Data())
    (config.run_dir / FILE_NAME).write_text("")
    recorder = Recorder()
    train(dataclasses.replace(config, continue_train=True, max_steps=6), toy.Data(), recorder)
    assert "losses.csv is shorter than it was at the save" in recorder.info.notes[0]
    assert (config.run_dir / FILE_NAME).read_text().startswith(HEADER)


def test_data_that_ends_keep_what_was_trained(tmp_path):
    class Broken(toy.Data):
        def batch(self, step, batch_size):
            if step == 5:
                raise DataError("picture 5 is no picture")
            return super().batch(step, batch_size)

    config = toy.config(tmp_path, save_latest_freq=1000)
    with pytest.raises(DataError, match="picture 5"):
        train(config, Broken())
    assert [step for step, _ in checkpoint.saves(config.run_dir)] == [5]


def test_process_wide_switches_are_put_back(tmp_path):
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.allow_tf32,
        backend.policy(),
    )
    seen = []

    class Look(Reporter):
        def on_start(self, info):
            seen.append(
                (
                    torch.are_deterministic_algorithms_enabled(),
                    torch.backends.cudnn.benchmark,
                    torch.backends.cudnn.allow_tf32,
                    backend.policy(),
                )
            )

    options = dict(deterministic=True, tf32=False, backend="reference", max_steps=1)
    train(toy.config(tmp_path, **options), toy.Data(), Look())
    assert seen == [(True, False, False, "reference")]
    after = (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.allow_tf32,
        backend.policy(),
    )
    assert after == before


def test_goes_on_from_a_save_that_the_trainer_made_alone(tmp_path):
    config = toy.config(tmp_path, max_steps=3, continue_train=True)
    trainer = Trainer(config, steps_per_epoch=6)
    trainer.step(toy.Data().batch(0, 1))
    checkpoint.save(config.run_dir, trainer)
    recorder = Recorder()
    train(config, toy.Data(), recorder)
    assert recorder.info.start_step == 1 and recorder.info.notes == []
    assert (config.run_dir / FILE_NAME).read_text().startswith(HEADER)
