# SPDX-License-Identifier: MIT
"""Options and the result file of the op benchmarks.

    pytest benchmarks -o python_files='bench_*.py' -o python_functions='bench_*'

measures on the GPU where there is one, else on the CPU, and writes benchmarks/results.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import harness  # noqa: E402 - found through the line above


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what a run may vary."""
    group = parser.getgroup("cyclegan_fast benchmarks")
    group.addoption("--bench-device", default="cuda" if torch.cuda.is_available() else "cpu")
    group.addoption(
        "--bench-compile",
        action="store_true",
        help="time torch.compile too (always on a GPU; on a CPU it compiles for minutes)",
    )
    group.addoption("--bench-batch", type=int, default=1)


@pytest.fixture(scope="session")
def bench_device(request: pytest.FixtureRequest) -> str:
    """The device to measure on."""
    return request.config.getoption("--bench-device")


@pytest.fixture(scope="session")
def bench_batch(request: pytest.FixtureRequest) -> int:
    """Images per call."""
    return request.config.getoption("--bench-batch")


@pytest.fixture(scope="session")
def with_compile(request: pytest.FixtureRequest, bench_device: str) -> bool:
    """Whether torch.compile takes part."""
    return bench_device == "cuda" or request.config.getoption("--bench-compile")


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest, bench_device: str, bench_batch: int):
    """Rows of one bench file, written to the device's result file when the file is through."""
    collected: list[dict] = []
    yield collected
    if collected and not request.config.getoption("--benchmark-disable"):
        section = request.module.__name__.removeprefix("bench_")
        harness.write(f"{section} batch {bench_batch}", bench_device, collected)
