# SPDX-License-Identifier: MIT
"""The CPU kernels of every instruction set: chosen as asked, and right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cyclegan_fast import _extension

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILT = _extension.build_info()["instruction_sets"]

# Every kernel in every element type and layout, on the shapes whose tails differ most.
FAST_TESTS = (
    "equal_the_formula and (1x70x9x33 or 2x3x5x7 or 1x4x1x300) or "
    "l1_value or l1_gradient or lsgan_value or copies or adjoint or rounded"
)

# What the kernels are compiled for, as Linux names it.
NEEDS = {
    "default": "",
    "avx2": "avx2 fma",
    "avx512": "avx2 fma avx512f avx512bw avx512dq avx512vl",
    "avx512_bf16": "avx2 fma avx512f avx512bw avx512dq avx512vl avx512_bf16",
}
PROGRAM = f"""
import sys, pytest, torch, cyclegan_fast._extension
print("serving", torch.ops.cyclegan_fast_C.cpu_instruction_set())
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", {FAST_TESTS!r}, *sys.argv[1:]]))
"""


def processor_has(isa: str) -> bool:
    info = Path("/proc/cpuinfo")
    return set(NEEDS[isa].split()) <= set(info.read_text().split() if info.exists() else [])


# Unasked, the best of all serves, which the other tests of this folder have tried.
@pytest.mark.parametrize("isa", [isa for isa in BUILT if isa != "avx512_bf16"])
def test_chosen_as_asked_and_right(isa):
    if not processor_has(isa):
        pytest.skip(f"this processor has no {isa}")
    files = sorted(HERE.glob("test_raw_*.py"))
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, files)],
        cwd=ROOT,
        env=os.environ | {"ATEN_CPU_CAPABILITY": isa, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
    assert f"serving {isa}\n" in result.stdout


def test_the_best_is_chosen_unasked():
    unasked = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY"}
    program = PROGRAM.split("sys.exit")[0]
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, env=unasked, capture_output=True, text=True)
    assert result.stdout == f"serving {[isa for isa in BUILT if processor_has(isa)][-1]}\n"
