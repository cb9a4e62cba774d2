# SPDX-License-Identifier: MIT
"""train --gpus 2: torchrun and two processes, on the CPU; what is said, and how such a run ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small import TINY

from cyclegan_fast.cli import launch, train

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
COMMAND = [sys.executable, "-m", "cyclegan_fast", "train", "--gpus", "2"]


class Job:
    """A run of two ranks, killed at the end of the block whatever is left of it."""

    def __init__(self, domains, folder, *more):
        place = ["--dataroot", str(domains), "--checkpoints_dir", str(folder), "--name", "run"]
        self.run_dir = folder / "run"
        self._log = folder.parent / "log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*COMMAND, *place, *TINY, "--evaluate", "0", *map(str, more)],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            )
        self.ranks = {}

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        for pid in (self.process.pid, *self.ranks.values()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()

    def wait_for_steps(self):
        """Wait until the run reports, and find its processes."""
        losses = self.run_dir / "losses.csv"
        for _ in range(1200):
            if losses.exists() and len(losses.read_text().splitlines()) > 2:
                break
            assert self.process.poll() is None, self.said()
            time.sleep(0.1)
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            found = [v for v in variables if v.startswith(b"RANK=")]
            if parent == self.process.pid and found:
                self.ranks[int(found[0][5:])] = int(entry.name)
        assert sorted(self.ranks) == [0, 1]

    def said(self):
        return self._log.read_text()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_ends_the_job_with_its_name(domains, tmp_path, rank):
    with Job(domains, tmp_path / "runs", "--n_epochs", 9999) as job:
        job.wait_for_steps()
        os.kill(job.ranks[rank], signal.SIGKILL)
        began = time.monotonic()
        status = job.process.wait(timeout=60)
        assert time.monotonic() - began < 10
        assert status != 0
        said = job.said()
        other = 1 - rank
        assert f"rank {other}: error: rank {rank} (process {job.ranks[rank]} on " in said
        cause = said.partition("Root Cause")[2]
        assert f"rank      : {rank} " in cause and "SIGKILL" in cause, said
        for pid in job.ranks.values():
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


@pytest.mark.parametrize("how", ["SIGTERM", "Ctrl-C"])
def test_a_stop_is_saved_and_one_process_goes_on(domains, tmp_path, run, how):
    with Job(domains, tmp_path / "runs", "--n_epochs", 9999, "--lr_rule", "sqrt") as job:
        job.wait_for_steps()
        if how == "SIGTERM":
            job.process.send_signal(signal.SIGTERM)
        else:
            os.killpg(job.process.pid, signal.SIGINT)  # as a terminal does, to all its processes
        job.process.wait(timeout=60)
        said = job.said()
    for text in (
        "ranks    2 through gloo · global batch 2 (1 × 2) · lr_rule sqrt: lr 0.000282843 · a pool "
        "of 50 pictures on each",
        "of 2 an epoch",
    ):
        assert said.count(text) == 1, said
    (line,) = [row for row in said.splitlines() if row.startswith("resume ")]
    words = line.split()[2:]
    assert words[-2:] == ["--gpus", "2"]
    saved = next((tmp_path / "runs" / "run").glob("step-*"))
    step = int(saved.name.removeprefix("step-"))
    assert f"stopped  at step {step:,} of" in said
    again = run(*words[:-2], "--max_steps", step + 1, "--evaluate", 0)
    assert again.status == 0, again.err
    assert f"resumed  at step {step:,}" in again.out
    assert "the save is of 2 ranks, and the run goes on with 1" in again.out


def test_torchrun_gets_the_arguments(domains, monkeypatch):
    class Became(Exception):
        pass

    def become(program, command):
        raise Became(program, command)

    monkeypatch.setattr(launch.os, "execv", become)
    typed = ["--dataroot", str(domains), "--gpus", "3", "--device", "cpu"]
    with pytest.raises(Became) as found:
        train.main(typed)
    program, command = found.value.args
    assert program == command[0] == sys.executable
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    assert command[1:] == [*launcher, "-m", "cyclegan_fast", "train", *typed]


def test_more_gpus_than_there_are(domains, run):
    asked = 1000
    done = run("train", "--dataroot", domains, "--gpus", asked)
    assert done.status == 2 and f"--gpus {asked}: PyTorch sees " in done.err
    assert run("train", "--dataroot", domains, "--gpus", 0).status == 2
