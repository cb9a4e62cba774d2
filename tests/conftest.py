# SPDX-License-Identifier: MIT
"""Fixtures of the whole suite: NaN memory, back ends, devices."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch

INTERPRET = "TRITON_INTERPRET"
if not torch.cuda.is_available():
    # Before Triton decorates its own library, which PyTorch's custom ops import. For this process,
    # not for those that tests start.
    os.environ[INTERPRET] = "1"
import triton  # noqa: E402

from cyclegan_fast import backend  # noqa: E402
from cyclegan_fast.ops import _common  # noqa: E402

# tests/numerics.py, from every folder below, and what runs kernels on the CPU.
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "interpreter"), str(HERE / "emulator")]
import emulator  # noqa: E402
import interpreter  # noqa: E402

if INTERPRET in os.environ:
    triton.knobs.runtime.interpret = True
    del os.environ[INTERPRET]
    interpreter.install()

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none, and say so.

    On a GPU the reference back end is PyTorch's own kernels, which are not ours to test: their
    deterministic reflection_pad2d backward reads out of bounds in some builds (pytorch#193694).
    """
    items[:] = [item for item in items if not _reference_on_gpu(item)]
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


def _reference_on_gpu(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return (parameters.get("device"), parameters.get("each_backend")) == ("cuda", "reference")


@pytest.fixture(autouse=True)
def nan_memory():
    """Fill every uninitialised tensor with NaN, so that an element nobody wrote cannot pass."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """A device that exists here."""
    return request.param


class _EmulatedKernels:
    """The CUDA kernels executed on the CPU, in the place of the CPU's own."""

    def __init__(self) -> None:
        self._ops, set_schedule = emulator.load(sanitize=False)
        set_schedule("random", seed=1)

    def __getattr__(self, name: str):
        return getattr(self._ops, name)

    def instance_norm_act_workspace(self, *sizes_and_layout) -> int:
        return self._ops.instance_norm_act_workspace(*sizes_and_layout[:-1], "cuda")


@contextmanager
def _use(name: str, device: str):
    with ExitStack() as stack:
        if name not in ("native", "reference") and device == "cpu" and torch.cuda.is_available():
            pytest.skip("the GPU's kernels are tested on the GPU that is there")
        if name == "triton" and device == "cpu":
            stack.enter_context(interpreter.big_tiles())  # small ones: test_triton_tiles.py
        if name == "emulated":
            if device == "cuda":
                pytest.skip("on a GPU nothing is emulated")
            if why_not := emulator.why_not():
                pytest.skip(why_not)
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            kernels = _EmulatedKernels()
            patch.setattr(_common, "kernels", lambda _stem, _backend_name: kernels)
            name = "native"
        stack.enter_context(backend.use_backend(name))
        yield name


@pytest.fixture(params=["native", "emulated", "triton"])
def fused_backend(request: pytest.FixtureRequest, device: str):
    """Every back end with kernels of ours; a missing one is a failure where there is a compiler."""
    with _use(request.param, device) as name:
        yield name


@pytest.fixture(params=["reference", "native", "emulated", "triton"])
def each_backend(request: pytest.FixtureRequest, device: str):
    """Every back end of the ops."""
    with _use(request.param, device) as name:
        yield name
