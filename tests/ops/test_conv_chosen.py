# SPDX-License-Identifier: MIT
"""reflect_conv2d by each of Triton's implementations: what PyTorch asks of an op.

test_reflect_conv2d.py has the same of each back end, where Triton is mostly the implicit GEMM.
"""

from __future__ import annotations

from contextlib import nullcontext
from importlib import import_module
from typing import NamedTuple

import interpreter
import pytest
import torch
from conv_case import check, operands

from cyclegan_fast import backend
from cyclegan_fast.ops import reflect_conv2d
from cyclegan_fast.ops.reflect_conv2d import explain, table
from cyclegan_fast.ops.reflect_conv2d.layers import DIRECTIONS

LAST = torch.channels_last
# (x, weight, padding, stride) that each was made for.
LAYERS = {
    "rows": ((2, 16, 5, 4), (32, 16, 3, 2), 0, 1),
    "factored": ((1, 3, 6, 5), (16, 3, 5, 5), 1, 1),
    "factored, few results": ((1, 16, 6, 7), (3, 16, 5, 5), 0, 1),
    "implicit": ((1, 5, 6, 7), (4, 5, 3, 3), 1, 2),
}


@pytest.fixture(params=LAYERS)
def chosen(request, device, monkeypatch):
    """An implementation that every direction takes, and a layer of its kind."""
    if device == "cpu" and torch.cuda.is_available():
        pytest.skip("the GPU's kernels are tested on the GPU that is there")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    name = request.param.partition(",")[0]
    with (
        interpreter.big_tiles() if device == "cpu" else nullcontext(),
        backend.use_backend("triton"),
        table.choosing(lambda _layer, direction: name if direction in DIRECTIONS else None),
    ):
        yield name, Layer(device, *LAYERS[request.param])


class Layer(NamedTuple):
    device: str
    shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    padding: int
    stride: int

    def leaves(self, dtype=torch.float32):
        return operands(self.shape, self.weight_shape, dtype, self.device, LAST)

    def run(self, leaves, act="tanh"):
        return reflect_conv2d(*leaves, padding=self.padding, stride=self.stride, act=act)


def test_every_direction_is_its(chosen, monkeypatch):
    name, layer = chosen
    leaves = layer.leaves()
    assert explain(*leaves[:2], layer.padding, layer.stride) == f"{name}: chosen for this run"
    launched, module = [], import_module(f"cyclegan_fast.ops.reflect_conv2d.triton_{name}")
    for direction in DIRECTIONS:
        launch = getattr(module, direction)

        def noted(*arguments, direction=direction, launch=launch):
            launched.append(direction)
            launch(*arguments)

        monkeypatch.setattr(module, direction, noted)
    check(leaves, layer.padding, layer.stride, "tanh")
    assert launched == list(DIRECTIONS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_within_the_budget_in_16_bits(dtype, chosen):
    _, layer = chosen
    check(layer.leaves(dtype), layer.padding, layer.stride, "none")


def test_opcheck(chosen):
    _, layer = chosen
    x, weight, bias = layer.leaves()
    for given, act in (((x, weight, bias), "tanh"), ((x.detach(), weight, None), "none")):
        arguments = (*given, layer.padding, layer.stride, act, True, "triton")
        torch.library.opcheck(torch.ops.cyclegan_fast.reflect_conv2d.default, arguments)


@pytest.mark.filterwarnings("ignore:Input #. requires gradient and is not a double precision")
def test_gradcheck(chosen):
    """In float32, of which differences are exact but for rounding: the layer is linear in each."""
    _, layer = chosen
    leaves = layer.leaves()
    how = {"eps": 1.0, "atol": 1e-4, "rtol": 1e-4, "fast_mode": True, "nondet_tol": 0.0}
    assert torch.autograd.gradcheck(lambda *each: layer.run(each, "none"), leaves, **how)


def test_compiles_whole(chosen):
    _, layer = chosen
    torch._dynamo.reset()
    leaves = layer.leaves()

    def function(x, weight, bias):
        return layer.run((x + 1, weight, bias))

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    ours, expected = compiled(*leaves), function(*leaves)
    assert torch.equal(ours, expected)
    grad = torch.randn_like(expected)
    gradients = [torch.autograd.grad(y, leaves, grad) for y in (ours, expected)]
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_under_autocast(half, chosen):
    _, layer = chosen
    leaves = layer.leaves()
    with torch.autocast(layer.device, half):
        y = layer.run(leaves)
    assert y.dtype == half
    grad = torch.randn(y.shape).to(y)
    gradients = torch.autograd.grad(y, leaves, grad)
    rounded = [leaf.detach().to(half).requires_grad_() for leaf in leaves]
    expected = layer.run(rounded)
    assert torch.equal(y, expected)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, rounded, grad), strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, theirs.float())


@pytest.mark.parametrize(
    "needs", [(True, False, False), (False, True, False), (False, False, True)]
)
def test_only_the_gradient_that_is_needed(needs, chosen):
    _, layer = chosen
    leaves = layer.leaves()
    grad = torch.randn_like(layer.run(leaves))
    whole = torch.autograd.grad(layer.run(leaves), leaves, grad)
    some = [leaf.detach().requires_grad_(need) for leaf, need in zip(leaves, needs, strict=True)]
    layer.run(some).backward(grad)
    for leaf, need, expected in zip(some, needs, whole, strict=True):
        assert torch.equal(leaf.grad, expected) if need else leaf.grad is None


def test_runs_give_the_same_bits(chosen):
    _, layer = chosen
    leaves = layer.leaves(torch.bfloat16)
    grad = torch.randn_like(layer.run(leaves))

    def once():
        y = layer.run(leaves)
        return y, *torch.autograd.grad(y, leaves, grad)

    first = once()
    for _ in range(9 if layer.device == "cuda" else 2):  # interpreted, programs have an order
        assert all(map(torch.equal, first, once()))
