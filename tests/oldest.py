# SPDX-License-Identifier: MIT
"""Interpret Triton's kernels with the PyTorch and the Triton that run this: the oldest, say.

    python tests/oldest.py [PATH ...]

Without paths all of the ops' tests are run, and benchmarks/results/versions.json tells of it.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
import triton

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
import records  # noqa: E402

ALL = ["tests/ops", "tests/interpreter", "tests/csrc/test_registration.py"]
# Compiling for every architecture takes as long as all the rest.
CHOSEN = "(triton or conv_ or registration or interpreter) and not compiled"


class Count:
    """Counts outcomes, of tests that workers run too."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.outcome] += 1


def main(paths: list[str]) -> int:
    """Run the tests and return the exit status."""
    os.chdir(ROOT)
    versions = f"torch {torch.__version__}, Triton {triton.__version__}"
    print(f"{versions}, Python {sys.version.split()[0]}", flush=True)
    # Workers are processes of their own, and find the package in the checkout.
    os.environ["PYTHONPATH"] = str(ROOT)
    count, began = Count(), time.perf_counter()
    chosen = ["-q", "-n", "auto", "-p", "no:cacheprovider", "-k", CHOSEN, *(paths or ALL)]
    status = pytest.main(chosen, plugins=[count])
    if not paths:
        with records.open_record(records.RESULTS / "versions.json") as content:
            content[versions] = {
                "commit": records.commit(),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "python": sys.version.split()[0],
                "seconds": round(time.perf_counter() - began),
                **count.outcomes,
            }
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
