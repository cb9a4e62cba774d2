# SPDX-License-Identifier: MIT
"""Fixtures of the whole suite: NaN memory, back ends, devices."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch

from cyclegan_fast import backend

INTERPRET = "TRITON_INTERPRET"
if not torch.cuda.is_available():
    # Before Triton decorates its own library. For this process, not for those that tests start.
    os.environ[INTERPRET] = "1"
import triton  # noqa: E402

# tests/numerics.py, from every folder below, and the interpreter.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "interpreter")]
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


@contextmanager
def _use(name: str, device: str):
    with ExitStack() as stack:
        if (name, device) == ("triton", "cpu"):
            if torch.cuda.is_available():
                pytest.skip("Triton's kernels are tested on the GPU that is there")
            stack.enter_context(interpreter.big_tiles())  # small ones: test_triton_tiles.py
        yield stack.enter_context(backend.use_backend(name))


@pytest.fixture(params=["native", "triton"])
def fused_backend(request: pytest.FixtureRequest, device: str):
    """Every back end with kernels of ours; a missing one is a failure where there is a compiler."""
    with _use(request.param, device):
        yield request.param


@pytest.fixture(params=["reference", "native", "triton"])
def each_backend(request: pytest.FixtureRequest, device: str):
    """Every back end of the ops."""
    with _use(request.param, device):
        yield request.param
