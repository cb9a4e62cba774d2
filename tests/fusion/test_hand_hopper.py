# SPDX-License-Identifier: MIT
"""Plans walked by hand whose norms Hopper's convolution does while it loads: emulated."""

from __future__ import annotations

import copy
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from cyclegan_fast import accelerate, backend
from cyclegan_fast.fusion import by_hand
from cyclegan_fast.fusion.hand import HandWalk, alone
from cyclegan_fast.fusion.hand_runs import Part
from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import cuda_hopper as hopper
from cyclegan_fast.ops.reflect_conv2d import table
from cyclegan_fast.ops.reflect_conv2d.layers import ON_LOAD

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "emulator"), str(HERE.parent / "interpreter")]
import emulator  # noqa: E402
import interpreter  # noqa: E402
from hand_walks import FORMATS  # noqa: E402
from test_hand_triton import Done, gradients  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not _triton.INTERPRETED, reason="interpreted, on the CPU"),
    pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not())),
]


def test_norms_on_load_by_hopper(monkeypatch):
    """What it serves; the implicit GEMM does the rest, and each reads what the other has left."""
    ops, _ = emulator.load(part="hopper")
    monkeypatch.setattr(hopper, "ops", ops)
    monkeypatch.setattr(hopper, "_why_not_on", lambda _device: None)
    torch.manual_seed(3)
    half = nn.ReflectionPad2d(1), nn.Conv2d(64, 64, 3), nn.InstanceNorm2d(64)
    net = nn.Sequential(*half, nn.ReLU(), *copy.deepcopy(half))
    net = accelerate(net.to(memory_format=FORMATS[1]), memory_format="channels_last")
    x = torch.randn(1, 64, 4, 10).bfloat16().contiguous(memory_format=FORMATS[1])
    done = Done(monkeypatch)

    def walked(name):
        done.names.clear()
        choice = lambda _, direction: name if direction == ON_LOAD else None  # noqa: E731
        with table.choosing(choice), backend.use_backend("triton"), interpreter.big_tiles():
            plan, modules = by_hand(net, x, x.dtype, tanhless=False)
            read = lambda parameter: parameter.detach().bfloat16()  # noqa: E731
            walk = HandWalk(plan, modules, read, x.dtype, 1, together=True)
            made = alone(walk.forward([Part(x, True, True)]))
            (of_x,) = alone(walk.backward(made, [made.outputs[0] * 2]))
        return {"result": made.outputs[0], "picture": of_x} | gradients(net), done.names.copy()

    expected, calls = walked("implicit")
    found, names = walked("hopper")
    assert calls["forward implicit reflect", 1] == 2
    assert calls["gradient_of_input implicit reflect", 1] == 2
    moved = {("forward {} reflect", 1): 1, ("gradient_of_input {} reflect", 1): 2}
    for (call, together), count in moved.items():
        calls -= Counter({(call.format("implicit"), together): count})
        calls += Counter({(call.format("hopper"), together): count})
    assert names == calls
    for name, value in expected.items():
        if value is not None:
            bound = 0.02 * value.abs().max().item()
            torch.testing.assert_close(found[name], value, rtol=0, atol=bound, msg=name)


def test_which_implementation_does_a_norm_on_load(monkeypatch):
    x = torch.zeros(1, 64, 4, 10).bfloat16().contiguous(memory_format=FORMATS[1])
    weight = torch.zeros(64, 64, 3, 3).contiguous(memory_format=FORMATS[1])
    served = table.Layer(x, weight, 1)
    wide = torch.zeros(1, 64, 3, hopper.WIDEST[128] - 1).to(x).contiguous(memory_format=FORMATS[1])
    others = [
        served._replace(padding=2),
        served._replace(stride=2),
        served._replace(kind="zeros"),
        served._replace(weight=weight[:, :32]),
        served._replace(x=wide),
        served._replace(x=x[:, :, :, 1:].contiguous(memory_format=FORMATS[1])),
    ]
    with table.choosing(lambda *_: "hopper"):
        assert table.takes_norms(served) == "implicit"  # no GPU, or another
        said = table.explain(x, weight, 1).splitlines()[-1]
        assert said.startswith("between norms, which it does while it loads: implicit: chosen for")
        assert "hopper cannot serve: it is made for GPUs of compute capability 9.0" in said
        monkeypatch.setattr(hopper, "_why_not_on", lambda _device: None)
        assert table.takes_norms(served) == "hopper"
        assert {table.takes_norms(other) for other in others} == {"implicit"}
    with table.choosing(lambda *_: "library"):
        assert table.takes_norms(served) is None
        assert "between norms" not in table.explain(x, weight, 1)
