# SPDX-License-Identifier: MIT
"""Processes that begin at once: a fork server imports what they need once.

The test process is none to fork, for a test may have let PyTorch make threads in it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys

import pytest


def started(target, *arguments):
    """Start a function of a module of this folder in a process of its own; return the process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([target.__module__])
    with pytest.MonkeyPatch.context() as patch:
        # Python 3.11's fork server finds what it is to import in the environment's path only.
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        process = context.Process(target=target, args=arguments)
        process.start()
    return process
