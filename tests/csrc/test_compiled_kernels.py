# SPDX-License-Identifier: MIT
"""What nvcc made of the CUDA kernels: nothing spills, and every block fits on every chip."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import compile_report  # noqa: E402

pytestmark = pytest.mark.skipif(
    not compile_report.LIBRARY.exists(), reason="the CUDA kernels were not compiled: no nvcc"
)
STATIC_LIMIT = 48 << 10  # of every architecture, without asking for more


def test_every_stem_is_compiled_for_one_and_the_same_set_of_architectures():
    found: dict[str, set[str]] = {}
    for kernel in compile_report.kernels():
        found.setdefault(kernel.name, set()).add(kernel.architecture)
    text = " ".join(found)
    for part in ("nchw_forward", "nchw_backward", "nhwc_moments", "nhwc_write", "nhwc_sums"):
        assert f"{part}_kernel<" in text
    for part in ("nhwc_resident_forward", "nhwc_resident_backward", "reflect_pad2d_fwd"):
        assert f"{part}_kernel<" in text
    for part in ("reflect_pad2d_bwd", "loss_partial", "loss_gradient"):
        assert f"{part}_kernel<" in text
    hopper = {name: found.pop(name) for name in list(found) if "hopper" in name}
    assert len({frozenset(architectures) for architectures in found.values()}) == 1
    # Two dtypes: forward and back three tiles each, folded two, of the weight's gradient two, and
    # the sum of its splits; for one architecture, if that is built for.
    (everywhere,) = {frozenset(architectures) for architectures in found.values()}
    assert len(hopper) == (22 if everywhere & {"sm_90", "sm_90a"} else 0)
    assert all(architectures == {"sm_90a"} for architectures in hopper.values())


def test_no_kernel_spills_or_outgrows_a_chip():
    for kernel in compile_report.kernels():
        assert kernel.local == kernel.stack == 0, f"{kernel}: registers do not suffice"
        # The NCHW forward keeps planes in 32 KB of dynamic shared memory beside its own.
        dynamic = 32 << 10 if "nchw_forward" in kernel.name else 0
        assert kernel.shared + dynamic <= STATIC_LIMIT, kernel
