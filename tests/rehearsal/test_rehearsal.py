# SPDX-License-Identifier: MIT
"""Every part of the GPU report, to its end without a GPU; and no test marked gpu that never ran.

The report runs under the null CUDA runtime at tiny shapes: its processes, its record and its pages
are those of a machine with a GPU. What kernels compute is judged elsewhere, by the emulator and the
interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "null_cuda"))
import null_cuda  # noqa: E402

sys.path.insert(0, str(ROOT / "benchmarks"))
from report_units import DECIDING  # noqa: E402

from cyclegan_fast.benchmark.ratios import UPSTREAM  # noqa: E402

pytestmark = [
    pytest.mark.skipif(null_cuda.why_not() is not None, reason=str(null_cuda.why_not())),
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU makes the report itself"),
]
# Stands for NVIDIA's tool, which needs a driver: takes its options off and runs the rest.
SANITIZER = '#!/bin/sh\nshift 4\nexec "$@"\n'


def rehearse(part: str, results: Path, **variables: str) -> dict:
    """The record of a part that was rehearsed, all of whose units must have passed."""
    under = f"{sys.executable} {ROOT / 'tests' / 'null_cuda' / 'under.py'}"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_report.py"), "--rehearse"]
    command += ["--part", part, "--results-dir", str(results), "--python", under]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    assert (results / "null-device.md").read_text().startswith("# null-device")
    return json.loads((results / "null-device.json").read_text())


def functions(*options: str) -> dict[tuple[str, str], set[str]]:
    """(file, function) -> the parameters of its tests that pytest collects."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *options, "tests"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found: dict[tuple[str, str], set[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("tests/") and "::" in line:
            file, _, name = line.partition("::")
            function, _, parameters = name.partition("[")
            found.setdefault((file, function), set()).add(parameters.rstrip("]"))
    return found


def test_tests_and_that_each_test_marked_gpu_runs_somewhere(tmp_path):
    tool = tmp_path / "bin" / "compute-sanitizer"
    tool.parent.mkdir()
    tool.write_text(SANITIZER)
    tool.chmod(0o755)
    record = rehearse("tests", tmp_path, PATH=f"{tool.parent}:{os.environ['PATH']}")
    units = record["report"]["units"]
    assert {f"tests: compute-sanitizer {tool}" for tool in ("memcheck", "racecheck")} < set(units)
    assert all(unit["status"] == "passed" for unit in units.values()), units

    under_null = {
        (name.removeprefix("tests: "), function)
        for name, unit in units.items()
        for function in unit["tests"]["functions"]
    }
    # On a CPU the body runs in the ordinary suite, its device "cpu", by interpreter and emulator.
    on_cpu = {
        test
        for test, parameters in functions("-m", "not gpu").items()
        if any("cpu" in values.split("-") for values in parameters)
    }
    marked = set(functions("-m", "gpu"))
    assert len(marked) > 30
    never = marked - under_null - on_cpu
    assert not never, f"marked gpu, and never executed without one: {sorted(never)}"


def test_ops(tmp_path):
    record = rehearse("ops", tmp_path)
    rows = record["instance_norm_act 32 batch 1"]["rows"]
    contenders = {"ours", "ours in Triton", "eager", "torch.compile", "copy of the same bytes"}
    assert all(contenders < set(row["microseconds"]) for row in rows)
    assert {"trunk second", "patch 4"} <= {row["case"].split(" [")[0] for row in rows}
    assert (tmp_path / "null-device.png").stat().st_size > 1000


def test_step_and_train_in_one_record(tmp_path):
    rehearse("step", tmp_path)
    record = rehearse("train", tmp_path)
    beside = {row["contender"]: row["beside"] for row in record["step 32 batch 1"]["rows"]}
    deciding = [name for name in DECIDING if name != UPSTREAM]
    assert [beside[name] for name in deciding] == [len(deciding) - 1] * len(deciding)
    assert set(deciding) < set(beside)
    assert record["profile 32 batch 1"]["rows"] is not None
    trained = record["train 32 batch 1"]["rows"]
    assert trained["graph"] == "captured" and trained["steps"] == 6 and trained["saved"]
    assert (tmp_path / trained["sheet"]).stat().st_size > 100
    assert {name.split(":")[0] for name in record["report"]["units"]} == {"step", "train"}
