# SPDX-License-Identifier: MIT
"""No CPU kernel touches memory beyond its tensors, with any instruction set."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_instruction_sets import BUILT, processor_has

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("fenced.py")


@pytest.mark.skipif(sys.platform != "linux", reason="pages are protected as Linux does it")
@pytest.mark.parametrize("isa", BUILT)
def test_kernels_stay_between_the_fences(isa):
    if not processor_has(isa):
        pytest.skip(f"this processor has no {isa}")
    result = subprocess.run(
        [sys.executable, str(PROGRAM), "0", "300"],
        cwd=ROOT,
        env=os.environ | {"ATEN_CPU_CAPABILITY": isa, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    last = result.stdout.strip().splitlines()[-1:]
    assert result.returncode == 0, f"died of signal {-result.returncode} in {last}: {result.stderr}"
    assert last[0].startswith("300 calls")


@pytest.mark.skipif(sys.platform != "linux", reason="pages are protected as Linux does it")
@pytest.mark.parametrize(("at_end", "offset"), [(True, 20), (False, -1)])
def test_one_byte_too_far_is_deadly(at_end, offset):
    program = (
        "import ctypes, torch, fenced\n"
        f"t = fenced.Fences({at_end}).tensor((5,), torch.float32)\n"
        "t.fill_(1.0)\n"
        f"ctypes.string_at(t.data_ptr() + {offset}, 1)"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=PROGRAM.parent)
    assert result.returncode == -signal.SIGSEGV
