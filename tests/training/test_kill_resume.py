# SPDX-License-Identifier: MIT
"""Kill a run at any moment, start it again: the same bits come out, to the last log line.

`CYCLEGAN_FAST_TEST_KILLS` sets the number of kills (30; 200 by night).
"""

import os
import random
import signal
import time

import pytest
from resume_work import FORGOTTEN, ended, start

from cyclegan_fast.training import checkpoint, manifest

KILLS = int(os.environ.get("CYCLEGAN_FAST_TEST_KILLS", "30"))
STEPS = 16


def outcome(folder):
    """Everything a run leaves behind: the digests of its saves and copies, and its log."""
    run_dir = folder / "run"
    checkpoint.clean(run_dir)
    left = {path.name: manifest.read(path)["sha256"] for path in run_dir.glob("*-0*")}
    for path in run_dir.iterdir():
        if path.is_file():
            left[path.name] = path.read_bytes()
    return left


def test_killed_at_random_moments(tmp_path):
    steps, timing = 30, []
    for _ in range(2):  # the whole run, and a start that finds it finished
        began = time.monotonic()
        assert ended(start(tmp_path / "whole", steps)) == 0
        timing.append(time.monotonic() - began)
    expected = outcome(tmp_path / "whole")
    assert {"losses.csv", "latest", "epoch-0005", "epoch-0015", "step-00000030"} <= set(expected)
    # Kills fall anywhere from the start to about six steps and two saves after the first new one.
    longest = timing[1] + 6 * timing[0] / steps

    moments, kills, rounds = random.Random(7), 0, 0
    while kills < KILLS:
        rounds += 1
        folder = tmp_path / f"killed-{rounds}"
        while kills < KILLS:
            process = start(folder, steps)
            time.sleep(moments.random() * longest)
            process.kill()
            code = ended(process)
            assert code in (0, -signal.SIGKILL)
            if code == 0:
                break
            kills += 1
        assert ended(start(folder, steps)) == 0
        assert outcome(folder) == expected, f"after {kills} kills"


def resumed_in_the_middle(folder, forget=None, **options):
    """A run killed at step 15, after the report of step 14, and resumed from step 12."""
    assert ended(start(folder, STEPS, kill_at=15, **options)) == -signal.SIGKILL
    assert ended(start(folder, STEPS, forget=forget, **options)) == 0
    return outcome(folder)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert ended(start(folder, STEPS, accelerate=False)) == 0
    return outcome(folder)


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(norm="batch", gan_mode="vanilla", preprocess="none"),
        dict(precision="bf16", batch_size=2, memory_format="contiguous"),
        dict(precision="fp16", num_threads=2, lambda_identity=0.5),
    ],
)
def test_resumed_in_the_middle(tmp_path, options):
    assert ended(start(tmp_path / "whole", STEPS, **options)) == 0
    expected = outcome(tmp_path / "whole")
    assert resumed_in_the_middle(tmp_path / "killed", **options) == expected


@pytest.mark.parametrize("part", FORGOTTEN)
def test_a_forgotten_part_is_noticed(tmp_path, uninterrupted, part):
    assert resumed_in_the_middle(tmp_path, part, accelerate=False) != uninterrupted


def test_the_parts_are_all_that_is_needed(tmp_path, uninterrupted):
    assert resumed_in_the_middle(tmp_path, accelerate=False) == uninterrupted
