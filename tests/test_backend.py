# SPDX-License-Identifier: MIT
"""The policy of back ends: no silent fallback, reasons for everything, an honest record."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import triton

from cyclegan_fast import backend
from cyclegan_fast.errors import BackendUnavailableError
from cyclegan_fast.ops import instance_norm_act, reflect_pad2d
from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.runtime import configured

X = torch.randn(1, 2, 4, 4)


def test_explicit_backend_that_cannot_serve_raises_with_the_reason(monkeypatch):
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    monkeypatch.setattr(triton.knobs, "propagate_env", False)
    with backend.use_backend("triton"):
        with pytest.raises(BackendUnavailableError, match="'triton' was asked for.*for GPUs"):
            reflect_pad2d(X, 1)


def test_native_raises_where_nothing_was_compiled(monkeypatch):
    monkeypatch.setattr("cyclegan_fast._extension.available", lambda: False)
    monkeypatch.setattr("cyclegan_fast._extension.why_not", lambda: "no compiler was found")
    with backend.use_backend("native"), pytest.raises(BackendUnavailableError, match="no compiler"):
        reflect_pad2d(X, 1)
    with backend.record() as served:
        reflect_pad2d(X, 1)
    assert dict(served) == {("reflect_pad2d", "reference"): 1}
    assert "no compiler was found" in backend.explain("reflect_pad2d")


def test_policy_is_put_back_even_after_an_error():
    assert backend.policy() == "auto"
    with pytest.raises(RuntimeError), backend.use_backend("reference"):
        assert backend.policy() == "reference"
        raise RuntimeError
    assert backend.policy() == "auto"


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="auto, reference, native, triton, got 'cuda'"):
        backend.use_backend("cuda")
    with pytest.raises(ValueError, match="op must be one of"):
        backend.explain("conv")
    assert backend.policy() == "auto"


def test_environment_sets_the_policy_and_a_wrong_one_is_named():
    command = [sys.executable, "-c", "import cyclegan_fast; print(cyclegan_fast.backend.policy())"]
    for value, status, text in [("reference", 0, "reference"), ("fast", 1, "got 'fast'")]:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=os.environ | {"CYCLEGAN_FAST_BACKEND": value},
        )
        assert result.returncode == status
        assert text in result.stdout + result.stderr


def test_auto_on_a_cpu_is_native_and_the_record_says_so():
    x = X.clone().requires_grad_()
    with backend.record() as outer, backend.record() as inner:
        instance_norm_act(x, pad=1).square().sum().backward()
    expected = {("instance_norm_act", "native"): 1, ("instance_norm_act_backward", "native"): 1}
    assert dict(outer) == dict(inner) == expected
    assert backend.by_op(outer) == {op: {"native": 1} for op, _ in expected}
    instance_norm_act(x)
    assert dict(outer) == expected


def test_each_backend_gives_its_own_result_path():
    with backend.record() as served:
        for name in ("reference", "native"):
            with backend.use_backend(name):
                instance_norm_act(X)
    assert dict(served) == {("instance_norm_act", name): 1 for name in ("reference", "native")}


@pytest.mark.parametrize("option, served", [("auto", "reference"), ("native", "native")])
def test_a_run_keeps_what_the_environment_asks_for_unless_told(option, served):
    config = TrainConfig(dataroot="unused", device="cpu", backend=option)
    with backend.use_backend("reference"):
        with configured(config):
            assert backend.policy() == served
        assert backend.policy() == "reference"
