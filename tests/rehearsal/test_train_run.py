# SPDX-License-Identifier: MIT
"""The timed training on a given data set: what its record holds, and where its pictures stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cyclegan_fast.data import seasons

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import report_pages  # noqa: E402
from report_units import Request, units  # noqa: E402


@pytest.fixture
def pictures(tmp_path):
    return seasons.write(tmp_path / "meadows", size=32, n_train=3, n_test=2)


def test_a_given_data_set_is_trained_on_and_its_pictures_stay_beside_the_run(tmp_path, pictures):
    results, runs = tmp_path / "results", tmp_path / "runs"
    given = Request("cpu", True, None, pictures, runs, lambda _: "")
    (unit,) = units("train", given)
    assert unit.name == "meadows"
    done = subprocess.run(
        [sys.executable, *unit.arguments, "--seconds", "60"],
        cwd=ROOT,
        env=os.environ | {"CYCLEGAN_FAST_RESULTS": str(results), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (record,) = results.iterdir()  # and no picture
    content = json.loads(record.read_text())
    row = content["train 32 batch 1, meadows"]["rows"]
    assert row["data"] == "meadows" and row["sheet"] is None and row["saved"]
    assert row["steps"] == 6 and row["peak_memory_mib"] is None
    assert row["iterations_per_s"] == pytest.approx(6 / row["seconds"], rel=0.01, abs=1e-3)
    assert str(tmp_path) not in record.read_text()
    (folder,) = runs.iterdir()
    assert folder.name.startswith("meadows-") and list(folder.rglob("latest.png"))
    content["train 32 batch 1, meadows"]["rows"]["peak_memory_mib"] = 12
    page = report_pages.markdown("cpu", content)
    assert "## Training, 32 batch 1, meadows" in page and "at most 12 MiB" in page
    assert "![Samples]" not in page


def test_without_a_data_set_seasons_are_painted():
    (unit,) = units("train", Request("cuda", False, None, None, Path("runs"), lambda _: ""))
    assert unit.name == "seasons" and "--dataroot" not in unit.arguments


def test_a_data_set_that_is_none_is_refused_before_anything_runs(tmp_path):
    command = [sys.executable, "benchmarks/gpu_report.py", "--dataroot", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "must be a folder with trainA and trainB" in done.stderr
