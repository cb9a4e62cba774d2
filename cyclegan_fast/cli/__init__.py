# SPDX-License-Identifier: MIT
"""The command line: ``cyclegan-fast demo | train | translate | benchmark | tune | doctor``.

This module imports nothing but the standard library, so that ``--help`` answers at once; each
command's module is imported when the command is run.
"""

from __future__ import annotations

import difflib
import importlib
import io
import os
import sys

from cyclegan_fast._version import __version__

PROGRAM = "cyclegan-fast"
COMMANDS = {
    "demo": "make a small data set, train on it, evaluate and report: minutes, no GPU needed",
    "train": "train on your own pictures in trainA/ and trainB/",
    "translate": "run a trained generator over a picture or a tree of pictures",
    "benchmark": "time the whole training iteration here, against PyTorch and torch.compile",
    "tune": "measure here which convolution kernels are the fastest, for later trainings",
    "doctor": "show what is installed, what serves which op and why, and what to do",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; None takes the process's.

    Returns:
        Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that has no "→" or a picture's name shows "?" there; it must not end the run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    first = arguments[0] if arguments else None
    if first in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if first in ("-V", "--version"):
        print(f"{PROGRAM} {__version__}")
        return 0
    if first not in COMMANDS:
        near = difflib.get_close_matches(first or "", COMMANDS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        said = "no command given" if first is None else f"{first!r} is no command{hint}"
        print(f"{PROGRAM}: {said}\n\n{_usage()}", file=sys.stderr)
        return 2
    from cyclegan_fast.cli.failures import guarded

    # Under torchrun several processes write to one terminal.
    rank = f", rank {os.environ['RANK']}" if "RANK" in os.environ else ""
    module = importlib.import_module(f"cyclegan_fast.cli.{first}")
    try:
        status = guarded(f"{PROGRAM} {first}{rank}", module.main, arguments[1:])
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader of our output has gone (``| head``). Python would complain once more when it
        # flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [OPTIONS]",
            "",
            "Unpaired image-to-image translation (CycleGAN): fused kernels and a complete trainer.",
            "",
            *lines,
            "",
            f"{PROGRAM} COMMAND --help lists a command's options. Begin with: {PROGRAM} demo",
        ]
    )
