# SPDX-License-Identifier: MIT
"""``train --gpus N``: torchrun, started for you."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from cyclegan_fast.cli.failures import UsageError


def start(gpus: int, device: str, arguments: list[str]) -> NoReturn:
    """Become torchrun with one process for each GPU of this machine.

    Args:
        gpus: processes, 2 or more.
        device: of the options; with "cpu" the processes share the CPU, to try a run out.
        arguments: of ``train``, as typed. The processes see that they were started, and start none.

    Raises:
        UsageError: there are fewer GPUs.
    """
    import torch

    found = torch.cuda.device_count()
    if device != "cpu" and found < gpus:
        what = f"{found} GPU{'s' * (found != 1)}" if found else "no GPU"
        raise UsageError(
            f"--gpus {gpus}: PyTorch sees {what} here. Give --gpus at most their number, or start "
            "torchrun on several machines: docs/scaling.md."
        )
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus)]
    command = [sys.executable, *launcher, "-m", "cyclegan_fast", "train", *arguments]
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execv(sys.executable, command)
