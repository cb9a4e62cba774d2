# SPDX-License-Identifier: MIT
"""The processes of a run on one machine, each of which sees when another one has died.

A rank that waits in a GPU's queue for one that has died cannot be told, so a thread looks.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

_LOOK_EVERY = 0.5
# Seconds before the thread ends its process: for the ways that end with a message of their own.
_GRACE = 4.0


class Peer(NamedTuple):
    """A process of the run."""

    rank: int
    host: str
    pid: int

    @classmethod
    def of_this_process(cls, rank: int) -> Peer:
        """Return what the others are to know."""
        return cls(rank, socket.gethostname(), os.getpid())

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.pid} on {self.host})"


class Beside:
    """The other ranks on this machine.

    Args:
        rank: of this process.
        peers: all of the run.
    """

    def __init__(self, rank: int, peers: list[Peer]) -> None:
        self._rank = rank
        here = Peer.of_this_process(rank)
        self._others = [p for p in peers if p.host == here.host and p != here and _alive(p)]

    def dead(self) -> list[Peer]:
        """Return those that have ended."""
        return [peer for peer in self._others if not _alive(peer)]

    def missing(self) -> str | None:
        """Return in words who has ended, waiting a little for it to show; None if nobody has."""
        until = time.monotonic() + _GRACE / 2
        while time.monotonic() < until:
            dead = self.dead()
            if dead:
                # torchrun takes the first process that ends for the cause: let it see which.
                time.sleep(1)
                return f"{', '.join(map(str, dead))} has ended"
            time.sleep(0.1)
        return None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Leave the process, with a message, when one of them dies during the block."""
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _watch(self, over: threading.Event) -> None:
        first: Peer | None = None  # to end: others leave for the same reason, and are not it
        since = 0.0
        while not over.wait(_LOOK_EVERY):
            dead = self.dead()
            if dead and first is None:
                first, since = dead[0], time.monotonic()
            if first is not None and time.monotonic() - since > _GRACE:
                text = f"rank {self._rank} leaves: {first} has ended"
                print(text, file=sys.stderr, flush=True)
                os._exit(1)


def _alive(peer: Peer) -> bool:
    if os.name == "nt":
        return True  # there the call below would be no question
    try:
        os.kill(peer.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
