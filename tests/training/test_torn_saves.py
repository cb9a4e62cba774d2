# SPDX-License-Identifier: MIT
"""A save in which the N-th system call fails, or is the last of the process, for every N.

The method is SQLite's: whatever happens, the run finds the new save or the one before, intact.
"""

import errno
import os
import shutil
from contextlib import suppress
from functools import partial

import pytest
import toy

from cyclegan_fast.errors import CheckpointError
from cyclegan_fast.training import Trainer, checkpoint, durable, manifest

CALLS = ("open", "write", "fsync", "close", "mkdir", "rename", "replace")


class FaultyOs:
    """Stands in for `os` in durable.py; its N-th call to change the disk goes wrong.

    Args:
        fatal: number of the call, from 0; None for a disk without fault.
        end: called then; None to raise "no space left" instead, after half of a write.
    """

    def __init__(self, fatal=None, end=None):
        self.fatal, self.end = fatal, end
        self.calls = []
        self.unflushed = []  # own handles of files not yet flushed
        self._own = {}  # handle -> own handle of the same file
        self.unlisted = []  # (own handle of a folder, name) of entries not yet flushed

    def __getattr__(self, name):
        call = getattr(os, name)
        return (lambda *args: self._call(name, call, args)) if name in CALLS else call

    def _call(self, name, call, args):
        number = len(self.calls)
        self.calls.append(name)
        if number == self.fatal:
            if self.end is not None:
                self.end(self)
            if name == "write":
                os.write(args[0], args[1][: len(args[1]) // 2])
            if name == "close":
                os.close(args[0])  # Linux closes even when it reports an error
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        result = call(*args)
        if name == "open" and args[1] & os.O_WRONLY:
            self._own[result] = os.dup(result)
            self.unflushed.append(self._own[result])
            folder, _, file = str(args[0]).rpartition("/")
            self.unlisted.append((os.open(folder, os.O_RDONLY), file))
        if name == "fsync" and args[0] in self._own:
            self.unflushed.remove(self._own[args[0]])
        elif name == "fsync":
            flushed = os.fstat(args[0])
            self.unlisted = [
                entry
                for entry in self.unlisted
                if not os.path.samestat(os.fstat(entry[0]), flushed)
            ]
        if name == "close":
            self._own.pop(args[0], None)
        return result


def cut_power(faulty):
    """End the process at once; what had not been flushed is gone."""
    for handle in faulty.unflushed:
        os.ftruncate(handle, os.fstat(handle).st_size // 2)
    for folder, name in faulty.unlisted:
        with suppress(FileNotFoundError):  # renamed since
            os.unlink(name, dir_fd=folder)
    os._exit(0)


def in_a_child(function):
    """Run a function in a process of its own; True if it ended by `cut_power` or in peace."""
    child = os.fork()
    if child == 0:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


@pytest.fixture(scope="module")
def trainer():
    trainer, data = Trainer(toy.config()), toy.Data()
    for step in range(2):
        trainer.step(data.batch(step, 1))
    return trainer


@pytest.fixture(scope="module")
def before(trainer, tmp_path_factory):
    """A run folder with a save of step 1."""
    folder = tmp_path_factory.mktemp("before")
    trainer.step_count = 1
    checkpoint.save(folder, trainer)
    trainer.step_count = 2
    return folder


def faulty_save(trainer, run_dir, monkeypatch, fatal=None, end=None):
    faulty = FaultyOs(fatal, end)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "os", faulty)
        checkpoint.save(run_dir, trainer, checkpoint.Keep(last=1))
    return faulty


def number_of_calls(trainer, before, folder, monkeypatch):
    shutil.copytree(before, folder)
    calls = faulty_save(trainer, folder, monkeypatch).calls
    assert {"open", "write", "fsync", "close", "mkdir", "rename", "replace"} == set(calls)
    assert [step for step, _ in checkpoint.saves(folder)] == [2]
    return len(calls)


def assert_old_or_new(run_dir):
    """Some save is intact, and nothing is damaged under a save's name."""
    found = checkpoint.saves(run_dir)
    assert found, "both saves are gone"
    for step, path in found:
        assert manifest.read_files(path)[0]["step"] == step
    return {step for step, _ in found}


def test_the_nth_call_fails(trainer, before, tmp_path, monkeypatch):
    outcomes = set()
    for fatal in range(number_of_calls(trainer, before, tmp_path / "whole", monkeypatch)):
        run_dir = tmp_path / str(fatal)
        shutil.copytree(before, run_dir)
        with pytest.raises(CheckpointError) as caught:
            faulty_save(trainer, run_dir, monkeypatch, fatal)
        found = assert_old_or_new(run_dir)
        outcomes |= found
        assert not list(run_dir.glob("*.tmp-*")), "a failed save leaves nothing behind"
        text = str(caught.value)
        assert str(run_dir) in text and "No space left on device" in text
        assert "bytes are needed" in text and "bytes are free" in text
        assert "step-0000000" in text and "is untouched" in text
        # The disk is well again: the next save works.
        checkpoint.save(run_dir, trainer, checkpoint.Keep(last=1))
        assert [step for step, _ in checkpoint.saves(run_dir)] == [2]
        shutil.rmtree(run_dir)
    assert outcomes == {1, 2}


def test_the_power_is_cut_at_the_nth_call(trainer, before, tmp_path, monkeypatch):
    outcomes = set()
    for fatal in range(number_of_calls(trainer, before, tmp_path / "whole", monkeypatch)):
        run_dir = tmp_path / str(fatal)
        shutil.copytree(before, run_dir)
        assert in_a_child(partial(faulty_save, trainer, run_dir, monkeypatch, fatal, cut_power))
        outcomes |= assert_old_or_new(run_dir)
        checkpoint.clean(run_dir)
        names = {path.name for path in run_dir.iterdir()}
        assert names <= {"latest", "step-00000001", "step-00000002"}
        shutil.rmtree(run_dir)
    assert outcomes == {1, 2}


def hasty_write_folder(path, files):
    """A writer without temporary name and without flushing."""
    durable.os.mkdir(path)
    for name, data in files.items():
        handle = durable.os.open(path / name, os.O_WRONLY | os.O_CREAT, 0o666)
        durable.os.write(handle, data)
        durable.os.close(handle)


def unflushed_write_file(path, data):
    """A writer that forgets to flush."""
    handle = durable.os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    durable.os.write(handle, data)
    durable.os.close(handle)


CARELESS = {
    "write_folder": hasty_write_folder,
    "write_file": unflushed_write_file,
    "sync_folder": lambda path: None,
}


@pytest.mark.parametrize("name", CARELESS)
def test_a_careless_writer_is_caught(trainer, before, tmp_path, monkeypatch, name):
    monkeypatch.setattr(durable, name, CARELESS[name])
    caught = False
    for fatal in range(1, 100, 4):
        run_dir = tmp_path / str(fatal)
        shutil.copytree(before, run_dir)
        in_a_child(partial(faulty_save, trainer, run_dir, monkeypatch, fatal, cut_power))
        try:
            assert_old_or_new(run_dir)
        except CheckpointError:
            caught = True
    assert caught, "the power-cut test does not see a save that can be torn"


def test_a_failed_replacement_puts_the_old_folder_back(tmp_path, monkeypatch):
    folder = tmp_path / "epoch-0001"
    durable.write_folder(folder, {"a": b"old"})
    calls = FaultyOs()
    with monkeypatch.context() as patch:
        patch.setattr(durable, "os", calls)
        durable.write_folder(folder, {"a": b"old"})
    second_rename = [i for i, name in enumerate(calls.calls) if name == "rename"][1]
    with monkeypatch.context() as patch:
        patch.setattr(durable, "os", FaultyOs(second_rename))
        with pytest.raises(OSError, match="No space left"):
            durable.write_folder(folder, {"a": b"new"})
    assert (folder / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0001"]
