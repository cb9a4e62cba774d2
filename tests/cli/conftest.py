# SPDX-License-Identifier: MIT
"""Fixtures of the commands' tests: running a command, a data folder."""

import pytest
from small import picture

from cyclegan_fast.cli import main


class Outcome:
    """What a command returned and printed."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def run(capsys):
    """Run a command in this process; --help and parser errors exit, which is their status."""

    def command(*arguments):
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            status = exit_.code
        return Outcome(status, *capsys.readouterr())

    return command


@pytest.fixture
def domains(tmp_path):
    """A data folder with four training and two test pictures in each domain."""
    root = tmp_path / "data"
    for number, folder in enumerate(("trainA", "trainB", "testA", "testB")):
        for index in range(4 if folder.startswith("train") else 2):
            picture(root / folder / f"{index}.png", 32, 32, seed=10 * number + index)
    return root
