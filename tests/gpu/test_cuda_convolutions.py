# SPDX-License-Identifier: MIT
"""Every convolution kernel of ours on a GPU: layers of the networks, against float64.

The launchers' own tests are interpreted or emulated, in small tiles; here are real sizes in real
tiles, two calls in a launch and each alone bit for bit, and whole steps of training.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import table
from cyclegan_fast.ops.reflect_conv2d.layers import DIRECTIONS, ON_LOAD

sys.path[:0] = [str(Path(__file__).parents[1] / "ops"), str(Path(__file__).parent)]
import conv_raw  # noqa: E402
import on_load_case  # noqa: E402
from test_captured_step import train  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(_triton.INTERPRETED, reason="Triton's kernels are interpreted here"),
]
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
LAST = torch.channels_last
# (implementation, kind, x, weight, padding, stride)
TRUNK = ("rows", "reflect", (2, 256, 66, 66), (256, 256, 3, 3), 0, 1)
FOLDING = ("implicit", "reflect", (1, 256, 64, 64), (256, 256, 3, 3), 1, 1)
HOPPER = ("hopper", *TRUNK[1:])
DOWN = ("implicit", "zeros", (2, 64, 128, 128), (128, 64, 3, 3), 1, 2)
UP = ("implicit", "transposed", (1, 256, 64, 64), (256, 128, 3, 3), 1, 2)
LAYERS = [
    ("factored", "reflect", (2, 3, 128, 128), (64, 3, 7, 7), 3, 1),
    ("factored", "reflect", (1, 64, 134, 134), (3, 64, 7, 7), 0, 1),
    TRUNK,
    HOPPER,
    FOLDING,
    DOWN,
    UP,
    ("implicit", "zeros", (3, 3, 128, 128), (64, 3, 4, 4), 1, 2),
    ("implicit", "zeros", (3, 256, 32, 32), (512, 256, 4, 4), 1, 1),
    ("implicit", "zeros", (1, 512, 31, 31), (1, 512, 4, 4), 1, 1),
]


@pytest.fixture
def on_the_gpu():
    """All tensors are made there, and products of float32 are exact to float32."""
    # Not by monkeypatch: it would delete PyTorch's settings, which lie in no __dict__.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    with torch.backends.cudnn.flags(allow_tf32=False), torch.device("cuda"):
        yield
    torch.set_float32_matmul_precision(before)


def layer(case, dtype) -> conv_raw.Layer:
    """A layer of an implementation, or a skip where that does not serve it."""
    name, kind, shape, weight_shape, padding, stride = case
    like = on_load_case.layer((kind, shape, weight_shape, padding, stride), dtype, LAST)
    like.module = table.implementation(name, kind)
    like.alone = True
    asked = table.Layer(*like.operands(0), padding, stride, kind)
    reason = table.why_not(name, asked)
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    if name != "implicit":  # their launchers know no zeros around the image
        like.options = {}
    return like


@pytest.mark.usefixtures("on_the_gpu")
@pytest.mark.parametrize("dtype", [BF16, F16, F32], ids=str)
@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_a_layer(case, dtype):
    tested = layer(case, dtype)
    _, kind, shape, weight_shape, padding, _ = case
    plain = lambda function, **how: getattr(conv_raw.Layer, function)(tested, **how)  # noqa: E731
    few = weight_shape[kind == "transposed"] < 16
    plain("check_forward", bias=True, moments=not few)
    # The norm that has made the image: beyond factored's few channels.
    norm = None if shape[1] < 16 else {"pad": 0 if padding else 1, "affine": True, "skip": True}
    plain("check_gradient_of_input", norm=norm if kind == "reflect" and not padding else None)
    plain("check_gradient_of_weight", dtype=F32)


@pytest.mark.usefixtures("on_the_gpu")
@pytest.mark.parametrize("dtype", [BF16, F32], ids=str)
@pytest.mark.parametrize("case", [FOLDING, DOWN, UP], ids=str)
def test_norms_on_load(case, dtype):
    tested = layer(case, dtype)
    tested.check_forward(affine=True, moments=True)
    tested.check_gradient_of_input(affine=True, norm={"act": 1, "skip": True})
    tested.check_gradient_of_weight(before={"affine": True}, behind={}, dtype=F32)


@pytest.mark.usefixtures("on_the_gpu")
@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
def test_norms_on_load_by_hopper(dtype):
    tested = layer(FOLDING, dtype)
    reason = table.why_not_loading(table.Layer(*tested.operands(0), tested.padding))
    if reason is not None:
        pytest.skip(reason)
    tested.module = table.implementation("hopper")
    tested.check_forward(affine=True, moments=True)
    tested.check_gradient_of_input(affine=True, norm={"act": 1, "skip": True})
    tested.check_gradient_of_input(on_load=False)


@pytest.mark.usefixtures("on_the_gpu")
@pytest.mark.parametrize("case", [TRUNK, HOPPER, FOLDING], ids=str)
def test_layers_alike_in_one_launch(case):
    name, kind, shape, *others = case
    tested = layer((name, kind, (18, *shape[1:]), *others), BF16)
    conv_raw.Layer.check_gradient_of_weight(tested, needs=(True, False), dtype=F32, groups=9)


def chosen(on_load: str | None):
    """Our kernels wherever one serves; `on_load`: what does the norms beside them, if it serves."""

    def first_that_serves(asked, direction):
        if direction == ON_LOAD:
            return on_load
        names = table.LAUNCHED if asked.kind == "reflect" else ("implicit",)
        return next((name for name in names if table.why_not(name, asked, direction) is None), None)

    return first_that_serves


@pytest.mark.parametrize("on_load", [None, "implicit", "hopper"], ids=str)
def test_steps_of_training(on_load):
    """Captured and plain alike, and near the library's: 20 steps move no loss far apart."""
    asked = set()

    def choice(layer, direction):
        asked.add(direction)
        return chosen(on_load)(layer, direction)

    library, _, _ = train("off", steps=20, precision="bf16")
    with table.choosing(choice):
        plain, plain_weights, _ = train("off", steps=20, precision="bf16")
        replayed, weights, _ = train("on", steps=20, precision="bf16")
    assert {*DIRECTIONS, ON_LOAD} <= asked
    assert replayed == plain
    assert all(torch.equal(a, b) for a, b in zip(weights, plain_weights, strict=True))
    for theirs, ours in zip(library, plain, strict=True):
        for name, loss in theirs.items():
            assert abs(loss - ours[name]) < 0.1 * (1 + abs(loss)), name
