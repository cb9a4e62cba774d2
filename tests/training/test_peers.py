# SPDX-License-Identifier: MIT
"""A process that sees its peer die leaves, within seconds and with the peer's name."""

import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import fork_server
import peer_work
import pytest

from cyclegan_fast.training import peers
from cyclegan_fast.training.peers import Beside, Peer

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there nobody is watched")


class Process:
    """A rank, and the pipe to it."""

    def __init__(self, folder, rank, how):
        self.rank = rank
        self._log = folder / f"log {rank}"
        self.pipe, there = multiprocessing.Pipe()
        work = peer_work.watches
        self.process = fork_server.started(work, there, str(self._log), rank, how)

    def ended(self):
        """Its status, waiting for it."""
        self.process.join(30)
        return self.process.exitcode

    def said(self):
        return self._log.read_text()


@contextmanager
def run(folder, *ways):
    """The ranks of a run, and one more, which knows of nobody; all killed at the end."""
    started = [Process(folder, rank, how) for rank, how in enumerate(ways)]
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        everyone = [each.pipe.recv() for each in started]
        victim = Peer.of_this_process(len(ways))._replace(pid=other.pid)
        for each in started:
            each.pipe.send([*everyone, victim])
        assert [each.pipe.recv() for each in started] == ["watching"] * len(started)
        yield *started, other, victim
    finally:
        other.kill()
        other.wait()
        for each in started:
            each.process.kill()
            each.process.join()


def end(process):
    """Let a process end, and be gone: one that nobody has waited for can still be signalled."""
    process.kill()
    process.wait(timeout=10)


def test_the_peers_of_one_that_is_killed_end_with_its_name(tmp_path):
    """One waits in the interpreter, one in a blocking call."""
    with run(tmp_path, "busy", "blocked") as (first, second, other, victim):
        end(other)
        began = time.monotonic()
        for each in (first, second):
            assert each.ended() == 1
            assert each.said() == f"rank {each.rank} leaves: {victim} has ended\n"
        took = time.monotonic() - began
    # Not before the ways that end with a message of their own had their time.
    assert peers._GRACE - 1 < took < 10
    assert str(victim).startswith(f"rank 2 (process {other.pid} on ")


def test_nobody_leaves_while_all_are_there_nor_after_the_block(tmp_path):
    with run(tmp_path, "blocked", "after") as (first, left, other, _victim):
        time.sleep(peers._GRACE + 2)
        assert first.process.is_alive() and left.process.is_alive()
        end(other)
        assert first.ended() == 1
        assert left.process.is_alive() and left.said() == ""


def test_a_peer_on_another_machine_is_not_looked_for():
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = Peer.of_this_process(0)
    there = Peer(1, "another", dead.pid)
    assert Beside(0, [here, there]).dead() == []
    assert Beside(0, [here, there]).missing() is None


def test_who_is_missing_is_named():
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        here, peer = Peer.of_this_process(0), Peer.of_this_process(1)._replace(pid=other.pid)
        beside = Beside(0, [here, peer])
        assert beside.dead() == [] and beside.missing() is None
        end(other)
        assert beside.dead() == [peer]
        assert beside.missing() == f"{peer} has ended"
    finally:
        other.kill()
        other.wait()
