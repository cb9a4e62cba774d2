# SPDX-License-Identifier: MIT
"""The emulator notices what is wrong with a kernel; and our kernels pass under the sanitizers."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import emulator  # noqa: E402

pytestmark = pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))
THREADS = 64


def faulty(name: str = "faulty") -> ctypes.CDLL:
    sources = {emulator.HERE / f"{name}.cu": emulator.KERNEL}
    functions = ctypes.CDLL(str(emulator.library(name, sources, sanitize=False)))
    functions.cudaGetErrorString.restype = ctypes.c_char_p
    return functions


def run(
    kernel: str,
    schedule: str = "forward",
    seed: int = 3,
    source: str = "faulty",
    threads: int = THREADS,
) -> tuple[torch.Tensor, str]:
    """What the kernel makes of 0, 1, 2 ..., and what was said against it."""
    functions = faulty(source)
    functions.cuda_emulator_set_schedule(emulator.SCHEDULES.index(schedule), seed)
    values = torch.arange(threads, dtype=torch.float32)
    status = getattr(functions, kernel)(ctypes.c_void_p(values.data_ptr()))
    return values, functions.cudaGetErrorString(status).decode() if status else ""


@pytest.mark.parametrize("schedule", emulator.SCHEDULES)
def test_a_right_kernel_is_right_in_every_schedule(schedule):
    values, failure = run("right", schedule)
    assert not failure and values.tolist() == list(range(THREADS - 1, -1, -1))


def test_a_race_shows_in_another_schedule():
    assert (
        len(
            {
                tuple(run("race", schedule)[0].nan_to_num(-1).tolist())
                for schedule in emulator.SCHEDULES
            }
        )
        == 3
    )


def test_a_warp_that_gets_ahead_shows_a_missing_barrier():
    right = run("early_reuse")[0]
    found = [run("early_reuse", "random", seed)[0] for seed in range(20)]
    assert any(not torch.equal(values, right) for values in found)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("divergent", "divergent __syncthreads: block (0, 0, 0) thread (40, 0, 0) waits at"),
        ("missing_lanes", "deadlock: block (0, 0, 0) thread (3, 0, 0) waits at"),
        ("wrong_mask", "thread (16, 0, 0) is not in its own mask"),
        ("lane_outside_mask", "thread (0, 0, 0) reads lane 16, which is not in the mask"),
        ("too_many_threads", "a launch that no GPU takes: 2048 threads"),
    ],
)
def test_a_faulty_kernel_is_named(kernel, message):
    assert message in run(kernel)[1]
    assert not run("right")[1], "and the next one runs"


@pytest.mark.parametrize("schedule", emulator.SCHEDULES)
@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("unpublished", "given away before products can see it"),
        ("not_begun", "a product whose sums a thread may still be touching"),
        ("nobody_comes", "waits for the end of a barrier's phase, which never comes"),
        ("within_pattern", "a pattern that begins within another one"),
        ("beyond", "an operand that reaches beyond the block's shared memory"),
    ],
)
def test_a_wrong_use_of_hoppers_instructions_is_named(kernel, message, schedule):
    assert message in run(kernel, schedule, source="faulty_hopper", threads=128)[1]


@pytest.mark.parametrize("schedule", emulator.SCHEDULES)
def test_a_product_is_there_once_it_is_waited_for(schedule):
    ones, failure = run("right", schedule, source="faulty_hopper", threads=128)
    assert not failure and ones.tolist() == [16.0] * 128
    early, failure = run("not_waited", schedule, source="faulty_hopper", threads=128)
    assert not failure and early.tolist() == [-1.0] * 128


def test_shared_memory_is_not_zero_at_first():
    values, failure = run("uninitialised_shared")
    assert not failure and values.isnan().nonzero().flatten().tolist() == [5]


def sanitized(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **emulator.sanitizer_environment()}
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("kernel", "finding"),
    [("beyond_shared", "heap-buffer-overflow"), ("overflow", "signed integer overflow")],
)
def test_the_sanitizers_see_into_kernels(kernel, finding):
    path = emulator.library(
        "faulty-sanitized", {emulator.HERE / "faulty.cu": emulator.KERNEL}, sanitize=True
    )
    done = sanitized(
        "-c",
        "import ctypes, sys; values = (ctypes.c_int * 64)(*[1] * 64); "
        f"ctypes.CDLL({str(path)!r}).{kernel}(values)",
    )
    assert done.returncode != 0 and finding in done.stderr


EVERY_OP = "every_option or losses or pad2d and shape1 or pool or augment or test_generator_loss"
SANITIZED = {
    "ops": ("test_emulated_k*.py", f"dtype0 and ({EVERY_OP}) or unaligned or spike"),
    "hopper": (
        "test_emulated_h*.py",
        "not direct and (each_alone or no_byte or norm_before_far or behind_tanh)",
    ),
}


@pytest.mark.parametrize("part", SANITIZED)
def test_the_sanitizers_find_nothing_in_ours(part):
    """Every kernel once more, with AddressSanitizer and UndefinedBehaviorSanitizer."""
    emulator.build(sanitize=True, part=part)
    files, some = SANITIZED[part]
    tests = map(str, sorted(Path(__file__).parent.glob(files)))
    done = sanitized(
        "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests,
        "-k", f"forward and ({some})",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
