# SPDX-License-Identifier: MIT
"""What Triton makes of our kernels for real GPUs: nothing spills, and every block fits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from triton_compile import BRIEFLY, SHARED_LIMIT  # noqa: E402


@pytest.mark.parametrize("architecture", SHARED_LIMIT)
def test_every_kernel_compiles_without_a_spill(architecture):
    # Another process: here kernels are interpreted.
    script = str(BENCHMARKS / "triton_compile.py")
    command = [sys.executable, script, "--brief", str(architecture)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=BENCHMARKS.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    compiled = json.loads(done.stdout)
    names = " ".join(kernel["name"] for kernel in compiled)
    for stem in (
        "instance_norm_act",
        "reflect_pad2d",
        "l1_loss",
        "lsgan_loss",
        "generator_loss",
    ):
        assert f"{stem}_fwd_kernel" in names and f"{stem}_bwd_kernel" in names
    assert "pool_exchange_fwd_kernel" in names and "augment_fwd_kernel" in names
    assert "adam_count_kernel" in names and "adam_update_kernel" in names
    # Its table never takes Triton where there is no tensor-core code.
    assert ("reflect_conv2d" in names) == (architecture >= 80)
    for way in ("fwd", "bwd", "weight", "sum") if architecture >= 80 else ():
        assert f"reflect_conv2d_{way}_kernel" in names
    for way in ("fwd", "bwd", "weight") if architecture in BRIEFLY else ():
        assert f"reflect_conv2d_rows_{way}_kernel" in names
    for way in ("norm_statistics", "norm_sums") if architecture in BRIEFLY else ():
        assert f"reflect_conv2d_{way}_kernel" in names
    for way in ("fwd", "bwd", "weight", "sum") if architecture in BRIEFLY else ():
        assert f"reflect_conv2d_factored_{way}_kernel" in names
    for kernel in compiled:
        assert kernel["architecture"] == architecture
        assert kernel["local"] == kernel["stack"] == 0, f"registers do not suffice: {kernel}"
        assert kernel["shared"] <= SHARED_LIMIT[architecture], kernel
