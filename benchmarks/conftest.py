# SPDX-License-Identifier: MIT
"""Options and the result file of the op benchmarks.

    pytest benchmarks -o python_files='bench_*.py' -o python_functions='bench_*'

measures on the GPU where there is one, else on the CPU, and writes benchmarks/results.
"""

from __future__ import annotations

import importlib.util
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
    group.addoption("--bench-size", type=int, default=256, help="pixels of a picture's side")
    group.addoption("--bench-batch", type=int, default=1)


@pytest.fixture(scope="session")
def bench_device(request: pytest.FixtureRequest) -> str:
    """The device to measure on."""
    return request.config.getoption("--bench-device")


@pytest.fixture(scope="session")
def bench_size(request: pytest.FixtureRequest) -> int:
    """Pixels of a picture's side; shapes.py says what that makes of each layer."""
    return request.config.getoption("--bench-size")


@pytest.fixture(scope="session")
def bench_batch(request: pytest.FixtureRequest) -> int:
    """Images per call."""
    return request.config.getoption("--bench-batch")


@pytest.fixture(scope="session")
def with_compile(request: pytest.FixtureRequest, bench_device: str) -> bool:
    """Whether torch.compile takes part."""
    return bench_device == "cuda" or request.config.getoption("--bench-compile")


@pytest.fixture
def rows(request: pytest.FixtureRequest, bench_device: str, bench_batch: int):
    """Rows of one case, put into the device's result file when the case is through.

    A run that is cut short keeps what it had measured.
    """
    collected: list[dict] = []
    yield collected
    if collected and not request.config.getoption("--benchmark-disable", default=False):
        stem = request.module.__name__.removeprefix("bench_")
        size = request.config.getoption("--bench-size")
        for row in collected:
            row["key"] = f"{row['case']}, {row['direction']}"
        harness.merge(f"{stem} {size} batch {bench_batch}", bench_device, collected, key="key")


if importlib.util.find_spec("pytest_benchmark") is None:

    class _Bare:
        """What the suites use of pytest-benchmark's fixture, where it is not installed."""

        def __init__(self) -> None:
            self.extra_info: dict = {}

        def pedantic(self, function, **_how) -> None:
            function()

    @pytest.fixture
    def benchmark() -> _Bare:
        """Only calls: the figures in the record are not pytest-benchmark's."""
        return _Bare()
