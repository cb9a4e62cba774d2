# SPDX-License-Identifier: MIT
"""A full disk, a file limit, a folder that cannot be written: said in a line, nothing lost."""

import errno
import os
import resource

import pytest
import toy

from cyclegan_fast.errors import CheckpointError
from cyclegan_fast.training import (
    Reporter,
    Trainer,
    checkpoint,
    durable,
    manifest,
    metrics_log,
    train,
)


class Listener(Reporter):
    """Remembers what it hears."""

    def __init__(self):
        self.messages, self.saves = [], []

    def on_message(self, text):
        self.messages.append(text)

    def on_save(self, path, step, seconds):
        self.saves.append(step)


@pytest.fixture
def trainer():
    trainer = Trainer(toy.config())
    trainer.step(toy.Data().batch(0, 1))
    return trainer


def test_a_file_limit_at_every_level(trainer, tmp_path):
    """RLIMIT_FSIZE: the write that crosses the limit fails, after a part of the file."""
    checkpoint.save(tmp_path, trainer)
    sizes = [path.stat().st_size for path in (tmp_path / "step-00000001").iterdir()]
    trainer.step(toy.Data().batch(1, 1))
    for level in range(20):
        limit = max(sizes) * level // 20
        receiver, sender = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                checkpoint.save(tmp_path, trainer)
            except CheckpointError as error:
                os.write(sender, str(error).encode())
            finally:
                os._exit(0)
        os.close(sender)
        text = os.read(receiver, 1000).decode()
        os.close(receiver)
        os.waitpid(child, 0)
        assert text.startswith(f"cannot write {tmp_path}/step-00000002: File too large; "), text
        assert "step-00000001, is untouched" in text and "\n" not in text
        assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000001"]
        manifest.verify(tmp_path / "step-00000001")
    checkpoint.save(tmp_path, trainer)


def test_room_is_looked_for_before_anything_is_written(trainer, tmp_path, monkeypatch):
    usage = checkpoint.shutil.disk_usage(tmp_path)
    checkpoint.save(tmp_path, trainer)
    trainer.step(toy.Data().batch(1, 1))
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage._replace(free=1234))
    monkeypatch.setattr(durable, "write_folder", lambda *_: pytest.fail("it wrote"))
    expected = (
        r"No space left on device; \d{3},\d{3} bytes are needed, 1,234 bytes are free; "
        "the save before, step-00000001, is untouched"
    )
    with pytest.raises(CheckpointError, match=expected):
        checkpoint.save(tmp_path, trainer)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_the_reason_is_the_disks(trainer, tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(durable, "write_folder", refuse)
    with pytest.raises(CheckpointError, match=f"{os.strerror(code)}.*no save before it"):
        checkpoint.save(tmp_path, trainer)


def test_a_run_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError, match="cannot make the run's folder .*file/run: Not a dir"):
        train(toy.config(tmp_path / "file"), toy.Data())


def refusing(monkeypatch, *numbers):
    """Let the saves of these numbers fail."""
    right, count = durable.write_folder, iter(range(1000))

    def write_folder(path, files):
        if next(count) in numbers:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        right(path, files)

    monkeypatch.setattr(durable, "write_folder", write_folder)


def test_training_goes_on_and_saves_at_the_next_report(tmp_path, monkeypatch):
    refusing(monkeypatch, 0, 1)
    listener = Listener()
    config = toy.config(tmp_path, save_latest_freq=4, print_freq=2)
    result = train(config, toy.Data(), listener)
    assert result.finished and result.step == 18
    assert len(listener.messages) == 2
    assert "No space left" in listener.messages[0]
    assert listener.messages[0].endswith("Training goes on and saves at the next report.")
    # Saves due at 4, 8, 12, 16 and the end: the first failed, and so did the next at 6.
    assert listener.saves == [8, 12, 16, 18]


def test_the_third_refusal_in_a_row_ends_the_run(tmp_path, monkeypatch):
    refusing(monkeypatch, *range(1, 100))
    listener = Listener()
    config = toy.config(tmp_path, save_latest_freq=4, print_freq=2)
    with pytest.raises(CheckpointError, match="No space left.*step-00000004, is untouched"):
        train(config, toy.Data(), listener)
    assert listener.saves == [4] and len(listener.messages) == 2
    assert checkpoint.load_latest(config.run_dir, Trainer(config, steps_per_epoch=6)).step == 4


def test_the_last_save_has_one_try(tmp_path, monkeypatch):
    refusing(monkeypatch, *range(100))
    with pytest.raises(CheckpointError, match="No space left"):
        train(toy.config(tmp_path, save_latest_freq=1000), toy.Data(steps=2))


def test_lines_of_the_log_wait_for_room(tmp_path, monkeypatch):
    right, count = metrics_log.os.write, iter(range(1000))

    class FullAtFirst:
        """`os`, but the second and third write leave half a line and fail."""

        def __getattr__(self, name):
            return getattr(os, name)

        def write(self, handle, data):
            if next(count) in (1, 2):
                right(handle, data[: len(data) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return right(handle, data)

    listener = Listener()
    config = toy.config(tmp_path, save_latest_freq=1000, max_steps=8)
    train(toy.config(tmp_path / "whole", save_latest_freq=1000, max_steps=8), toy.Data())
    with monkeypatch.context() as patch:
        patch.setattr(metrics_log, "os", FullAtFirst())
        train(config, toy.Data(), listener)
    assert (
        listener.messages
        == ["cannot write losses.csv: No space left on device; kept for later"] * 2
    )
    whole = tmp_path / "whole" / "run" / "losses.csv"
    assert (config.run_dir / "losses.csv").read_bytes() == whole.read_bytes()
