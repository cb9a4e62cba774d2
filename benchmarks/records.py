# SPDX-License-Identifier: MIT
"""Where records lie, how they are changed, and of which commit they tell; needs no PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# The package of this tree, installed or not; its pages need no PyTorch either.
sys.path.insert(0, str(ROOT))
RESULTS_VARIABLE, COMMIT_VARIABLE = "CYCLEGAN_FAST_RESULTS", "CYCLEGAN_FAST_COMMIT"
# The variable is what gpu_report.py gives to the processes that it starts.
RESULTS = Path(os.environ.get(RESULTS_VARIABLE, ROOT / "benchmarks" / "results"))


@contextmanager
def open_record(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a record's content to be changed; it is written when the block ends, whole or not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.loads(path.read_text()) if path.exists() else {}
    yield content
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    partial.replace(path)


def commit() -> str:
    """CYCLEGAN_FAST_COMMIT, for a copy of a tree; else the checkout's, "+dirty" with changes.

    Records do not count as changes: one benchmark writes what the next one finds.
    """
    stated = os.environ.get(COMMIT_VARIABLE, "unknown")
    # An unpacked tree may lie in somebody else's checkout, or carry the .git of an earlier one.
    if stated != "unknown" or not (ROOT / ".git").exists():
        return stated
    try:
        head = run(["git", "-C", str(ROOT), "rev-parse", "HEAD"])
        status = ["status", "--porcelain", "--untracked-files=no"]
        paths = ["--", ".", ":(exclude)benchmarks/results"]
        changes = run(["git", "-C", str(ROOT), *status, *paths])
    except (OSError, subprocess.CalledProcessError):
        return stated
    return head + ("+dirty" if changes else "")


def run(command: list[str]) -> str:
    """Run a command and return what it printed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
