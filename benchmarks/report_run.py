# SPDX-License-Identifier: MIT
"""Runs a unit of the GPU report in a process of its own, and says how it ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from records import ROOT
from report_units import Unit

NO_TESTS_COLLECTED = 5  # pytest's exit status
GRACE = 15.0  # seconds between asking a process to stop and stopping it
KEPT = 3000  # characters of a failed unit's output
NAMED = 20  # failures told one by one


@dataclass(frozen=True)
class Runner:
    """How processes are started.

    Attributes:
        python: the command that stands for Python.
        environment: of the processes.
    """

    python: list[str]
    environment: dict[str, str]

    def ask(self, arguments: list[str]) -> str:
        """Run Python with arguments and return what it printed, whatever its exit status.

        Raises:
            RuntimeError: it printed nothing and failed.
        """
        done = subprocess.run(
            [*self.python, *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if done.returncode and not done.stdout.strip():
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-KEPT:]}")
        return done.stdout

    def run(self, unit: Unit, seconds: float) -> dict[str, Any]:
        """Run a unit for at most so many seconds; return its entry in the record."""
        if unit.tool is None:
            return {"status": "not found", "seconds": 0.0}
        with tempfile.TemporaryDirectory(prefix="gpu-report-") as folder:
            report, log = Path(folder) / "tests.xml", Path(folder) / "log"
            command = [*unit.tool, *self.python, *unit.arguments]
            if unit.tests:
                command += ["--junitxml", str(report)]
            if unit.fills:
                command += ["--seconds", str(int(seconds))]
            began = time.monotonic()
            status = self._until(command, unit.environment, log, seconds)
            entry: dict[str, Any] = {"seconds": round(time.monotonic() - began, 1)}
            text = log.read_text(errors="replace")
            if report.exists():
                entry["tests"] = counted(report)
            if status is None:
                entry["status"] = "cut short"
            elif status == NO_TESTS_COLLECTED and unit.tests:
                entry["status"] = "no tests"
            else:
                entry["status"] = "passed" if status == 0 else "failed"
            if entry["status"] in ("failed", "cut short"):
                entry["error"] = f"exit status {status}\n{_tail(text)}"
            return entry

    def _until(
        self, command: list[str], variables: dict[str, str], log: Path, seconds: float
    ) -> int | None:
        """Run to the end, or stop it when the time is over and return None."""
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment | variables,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None
            finally:
                _stop(process)


def _stop(process: subprocess.Popen) -> None:
    """End a process and whatever it has started."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, sent)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue


def _tail(text: str) -> str:
    """The last of what a process printed, without terminals' colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)[-KEPT:]


def counted(report: Path) -> dict[str, Any]:
    """Return what a JUnit report tells: numbers, functions that ran, and the first failures."""
    counts: Counter[str] = Counter()
    functions, failures = set(), []
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("name", "")
        trouble = next((e for e in case if e.tag in ("failure", "error")), None)
        if trouble is not None:
            counts["failed"] += 1
            message = (trouble.get("message") or "").strip().splitlines() or [""]
            failures.append(f"{name}: {message[0][:200]}")
        elif case.find("skipped") is not None:
            counts["skipped"] += 1
            continue
        else:
            counts["passed"] += 1
        functions.add(name.split("[")[0])
    told: dict[str, Any] = {key: counts[key] for key in ("passed", "failed", "skipped")}
    told["functions"] = sorted(functions)
    if failures:
        told["failures"] = failures[:NAMED]
    return told
