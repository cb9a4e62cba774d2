# SPDX-License-Identifier: MIT
"""A process that watches others: for test_peers.py."""

import os
import time

from cyclegan_fast.training.peers import Beside, Peer

# Far longer than a test waits: a process that nobody ends is a failure.
LONG = 120


def watches(pipe, log, rank, how):
    """Tell who this is, hear who the others are, and wait in the watched block for what never is.

    Args:
        pipe: to the test.
        log: file for what is said on stderr.
        rank: of this process.
        how: "busy", in the interpreter, as a rank that trains; "blocked" in one call, as one that
            waits for its GPU; or "after" the block, which has ended.
    """
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
    pipe.send(Peer.of_this_process(rank))
    with Beside(rank, pipe.recv()).watched():
        if how != "after":
            pipe.send("watching")
            until = time.monotonic() + LONG
            while how == "busy" and time.monotonic() < until:
                pass
            time.sleep(LONG)
    pipe.send("watching")
    time.sleep(LONG)
