# SPDX-License-Identifier: MIT
"""Everything that needs a GPU, in parts that can be cut short and begun again.

    python benchmarks/gpu_report.py [--part tests|step|ops|train] [--results-dir DIR]
        [--commit NAME] [--upstream DIR] [--dataroot DIR [--runs DIR]] [--budget SECONDS] [--again]

Takes the Python that runs it, its PyTorch and nothing from the network; builds the kernels in place
if they are not compiled. Each part is a list of units (report_units.py), each unit a process whose
end is noted in results/<gpu>.json at once; a unit that fails does not keep the next from running. A
part stops at the border of a unit when its budget is spent. A restart on the same sources goes on
with what is left, then with what failed. After each part <gpu>.md and <gpu>.png are written anew.
The exit status is 0 if all is done and good, 1 if something failed, 3 if something is left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import records
import report_pages
from records import ROOT
from report_run import Runner
from report_units import PARTS, Request, Unit, units

FAILED, LEFT = 1, 3
DONE = ("passed", "no tests", "not found")
SOURCES = ("csrc", "cyclegan_fast", "benchmarks", "tests")
ALMOST_ALL = 0.9
# Of a part's budget: what is taken off for writing the pages.
RESERVE = 10.0


def main() -> int:
    """Run the parts asked for and return the exit status."""
    options = _options()
    results = options.results_dir.resolve()
    tree = digest()
    if options.commit:
        os.environ[records.COMMIT_VARIABLE] = options.commit
    if records.commit() == "unknown":
        os.environ[records.COMMIT_VARIABLE] = f"tree {tree}"
    os.environ[records.RESULTS_VARIABLE] = str(results)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(paths)}
    runner = Runner(shlex.split(options.python), environment)
    deadline = time.monotonic() + options.budget - RESERVE  # building counts as the first part's
    build(runner, options.device)
    facts = json.loads(runner.ask(["benchmarks/harness.py", options.device]).splitlines()[-1])
    report = Report(results / facts["file"], runner, tree, facts["machine"])
    given = [options.upstream, options.dataroot, options.runs]
    request = Request(options.device, options.rehearse, *given, runner.ask)
    for part in [options.part] if options.part else PARTS:
        try:
            report.run(units(part, request), deadline, options.budget, again=options.again)
        finally:
            report.pages()
        deadline = time.monotonic() + options.budget - RESERVE
    return report.status()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS, help="default: all of them, one after another")
    parser.add_argument("--results-dir", type=Path, default=records.RESULTS)
    parser.add_argument("--commit", help="of a tree that came without .git")
    parser.add_argument("--upstream", type=Path, help="checkout of upstream to time unmodified")
    parser.add_argument("--dataroot", type=Path, help="data set of the part train, not seasons")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="gets that run's folder")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--budget", type=float, default=460, help="seconds of each part")
    parser.add_argument("--again", action="store_true", help="do what is done once more")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes: to try the report")
    parser.add_argument("--python", default=sys.executable, help="the command that runs the units")
    options = parser.parse_args()
    for name in ("upstream", "dataroot", "runs"):
        if getattr(options, name):
            setattr(options, name, getattr(options, name).resolve())
    if options.dataroot and not (options.dataroot / "trainA").is_dir():
        parser.error(f"--dataroot must be a folder with trainA and trainB, got {options.dataroot}")
    return options


def digest() -> str:
    """What the sources hold, in 12 characters: results of other sources are not gone on with."""
    found = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".cpp", ".cu", ".h", ".cuh", ".in", ".cmake"):
                found.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:12]


def build(runner: Runner, device: str) -> None:
    """Compile the kernels in place, unless they are there and newer than their sources."""
    libraries = [ROOT / "cyclegan_fast" / "_C.so"]
    libraries += [ROOT / "cyclegan_fast" / "_cuda.so"] if device == "cuda" else []
    newest = max(path.stat().st_mtime for path in (ROOT / "csrc").rglob("*") if path.is_file())
    if all(path.is_file() and path.stat().st_mtime > newest for path in libraries):
        return
    print("building the kernels", flush=True)
    probe = "import torch; print('.'.join(map(str, torch.cuda.get_device_capability())))"
    if device == "cuda" and "TORCH_CUDA_ARCH_LIST" not in os.environ:
        runner.environment["TORCH_CUDA_ARCH_LIST"] = runner.ask(["-c", probe]).split()[-1]
    entry = runner.run(Unit("build", "build", ["setup.py", "build_ext", "--inplace"]), 460)
    if entry["status"] != "passed":
        # Triton's kernels may serve yet, and the tests say what does not.
        print(f"the build {entry['status']}: {entry.get('error', '')}", file=sys.stderr)


class Report:
    """The record of a device and what is put into it.

    Args:
        path: of the record.
        runner: starts the units.
        tree: digest of the sources.
        machine: its facts, of harness.machine.
    """

    def __init__(self, path: Path, runner: Runner, tree: str, machine: dict[str, Any]) -> None:
        self.path = path
        self._runner = runner
        self._tree = tree
        self._machine = machine
        self._failed: list[str] = []
        self._left: list[str] = []

    def run(self, found: list[Unit], deadline: float, budget: float, *, again: bool) -> None:
        """Run units until all are done or the time is over; what failed before comes last."""
        before = {_key(unit): self._status(_key(unit)) for unit in found}
        todo = [unit for unit in found if again or before[_key(unit)] not in DONE]
        todo.sort(key=lambda unit: before[_key(unit)] == "failed")
        skipped = len(found) - len(todo)
        if skipped:
            print(f"{found[0].part}: {skipped} of {len(found)} units were done before", flush=True)
        for unit in todo:
            if unit.spared_by and self._status(f"{unit.part}: {unit.spared_by}") == "passed":
                continue
            left = deadline - time.monotonic()
            if left < unit.least:  # a shorter one may fit yet
                self._left.append(_key(unit))
                continue
            entry = self._runner.run(unit, left)
            if entry["status"] == "cut short" and left > ALMOST_ALL * budget:
                entry["status"] = "failed"  # it will not fit another time either
                entry["error"] = f"takes longer than a part may\n{entry['error']}"
            self._note(unit, entry)
            told = entry["status"] + _numbers(entry)
            print(f"{_key(unit)}: {told}, {entry['seconds']:.0f} s", flush=True)
            if entry["status"] == "failed":
                self._failed.append(_key(unit))
                print(entry["error"], file=sys.stderr)
            if entry["status"] == "cut short":
                self._left.append(_key(unit))

    def _status(self, key: str) -> str | None:
        content = json.loads(self.path.read_text()) if self.path.exists() else {}
        entry = content.get("report", {}).get("units", {}).get(key)
        return entry["status"] if entry and entry["tree"] == self._tree else None

    def _note(self, unit: Unit, entry: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry |= {"commit": records.commit(), "tree": self._tree, "date": now}
        with records.open_record(self.path) as content:
            report = content.setdefault("report", {"units": {}})
            report["machine"] = self._machine
            report["units"][_key(unit)] = entry

    def pages(self) -> None:
        """Write <gpu>.md and <gpu>.png from the record."""
        if self.path.exists():
            for written in report_pages.write(self.path):
                print(f"written: {written}", flush=True)

    def status(self) -> int:
        """Say what failed and what is left; return the exit status."""
        if self._left:
            print(f"left for another run: {', '.join(self._left)}")
        if self._failed:
            print(f"failed: {', '.join(self._failed)}")
        return FAILED if self._failed else LEFT if self._left else 0


def _key(unit: Unit) -> str:
    return f"{unit.part}: {unit.name}"


def _numbers(entry: dict[str, Any]) -> str:
    tests = entry.get("tests")
    if not tests:
        return ""
    return f" ({tests['passed']} passed, {tests['failed']} failed, {tests['skipped']} skipped)"


if __name__ == "__main__":
    sys.exit(main())
