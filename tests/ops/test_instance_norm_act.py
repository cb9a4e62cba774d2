# SPDX-License-Identifier: MIT
"""instance_norm_act against float64, over back ends, dtypes, layouts and options."""

from __future__ import annotations

import pytest
import torch
from norm_case import LAYOUTS, Case, laid_out, on_cpu
from numerics import EPS, assert_flips_balanced

from cyclegan_fast import backend
from cyclegan_fast.ops import instance_norm_act, instance_norm_act_reference
from cyclegan_fast.ops.instance_norm_act import instance_norm_act_and_interior

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# The smallest legal planes, odd sizes, tails of every vector width, larger than a block, no image.
SHAPES = [(1, 1, 1, 2), (2, 3, 5, 7), (1, 37, 9, 6), (2, 32, 8, 8), (1, 8, 33, 65), (0, 3, 4, 4)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_float64(shape, layout, dtype, device, each_backend):
    smallest = min(shape[2:])
    for act, pad, affine, residual, interior in [
        ("relu", 0, False, False, False),
        ("none", min(1, smallest - 1), False, True, False),
        ("leaky_relu", min(3, smallest - 1), True, False, True),
        ("relu", min(2, smallest - 1), True, True, False),
        ("none", min(1, smallest - 1), False, True, True),
        ("relu", 0, True, True, True),
    ]:
        options = {"act": act, "pad": pad, "affine": affine, "residual": residual}
        Case(shape, dtype, layout, device, interior=interior, **options).check()


def test_the_interior_is_a_view_and_alone_it_carries_a_gradient(device, each_backend):
    x, residual = torch.randn(2, 1, 3, 6, 5, device=device, dtype=torch.float64).requires_grad_()
    y, interior = instance_norm_act_and_interior(x, residual=residual, pad=2)
    assert interior.data_ptr() == y[:, :, 2:, 2:].data_ptr() and interior.stride() == y.stride()
    assert torch.equal(interior, instance_norm_act(x, residual=residual))
    grad = torch.randn_like(interior)
    ours = torch.autograd.grad(interior, (x, residual), grad)
    plain = torch.autograd.grad(instance_norm_act(x, residual=residual), (x, residual), grad)
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_activation_flips_only_at_the_kink_and_evenly(layout, dtype, device, fused_backend):
    case = Case(
        (2, 8, 65, 64), dtype, layout, device, act="relu", pad=0, affine=True, residual=False
    )
    y, _ = on_cpu(case.run(instance_norm_act))
    truth, _ = case.run(instance_norm_act_reference, torch.float64, "cpu")
    case.options["act"] = "none"
    z, _ = case.run(instance_norm_act_reference, torch.float64, "cpu")
    band = z.abs() < 8 * EPS[dtype]
    assert torch.equal((y > 0)[~band], (truth > 0)[~band])
    assert_flips_balanced(y > 0, truth > 0, band, "relu")


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_large_mean_does_not_cancel(layout, device, each_backend):
    shape = (2, 16, 24, 24)
    Case(
        shape,
        torch.float32,
        layout,
        device,
        act="relu",
        pad=1,
        affine=False,
        residual=True,
        mean=1000.0,
    ).check()


def test_constant_plane_is_finite(device, each_backend):
    x = torch.full((1, 2, 8, 8), 0.3, device=device, requires_grad=True)
    y = instance_norm_act(x, pad=1)
    assert torch.equal(y, torch.zeros_like(y))
    (gradient,) = torch.autograd.grad(y, x, torch.randn_like(y))
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_fused_keeps_layout(device, fused_backend):
    x = torch.randn(2, 4, 6, 6, device=device).contiguous(memory_format=torch.channels_last)
    y = instance_norm_act(x, pad=1)
    assert y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()
    assert instance_norm_act(x.contiguous()).is_contiguous()


def test_each_subset_of_gradients(device, each_backend):
    shape = (2, 3, 6, 5)
    operands = {
        "x": torch.randn(shape, device=device, dtype=torch.float64),
        "weight": torch.randn(3, device=device, dtype=torch.float64),
        "bias": torch.randn(3, device=device, dtype=torch.float64),
        "residual": torch.randn(shape, device=device, dtype=torch.float64),
    }
    grad_y = torch.randn(2, 3, 8, 7, device=device, dtype=torch.float64)

    def gradients(names):
        leaves = {k: v.clone().requires_grad_(k in names) for k, v in operands.items()}
        y = instance_norm_act(**leaves, pad=1)
        return torch.autograd.grad(y, [leaves[name] for name in names], grad_y)

    whole = dict(zip(operands, gradients(list(operands)), strict=True))
    for name in operands:
        assert torch.equal(gradients([name])[0], whole[name]), name


def test_ten_runs_give_the_same_bits(device, each_backend):
    case = Case(
        (3, 40, 17, 19),
        torch.float32,
        "channels_last",
        device,
        act="relu",
        pad=1,
        affine=True,
        residual=True,
    )
    y, gradients = case.run(instance_norm_act)
    for _ in range(9):
        again, again_gradients = case.run(instance_norm_act)
        assert torch.equal(y, again)
        assert all(torch.equal(gradients[k], again_gradients[k]) for k in gradients)


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_gradcheck(layout, device, each_backend):
    x = laid_out(torch.randn(2, 2, 4, 5, dtype=torch.float64, device=device), layout)
    weight, bias = torch.randn(2, 2, dtype=torch.float64, device=device)
    residual = torch.randn(2, 2, 4, 5, dtype=torch.float64, device=device)
    inputs = [t.requires_grad_() for t in (x, weight, bias, residual)]
    for op in (instance_norm_act, instance_norm_act_and_interior):
        assert torch.autograd.gradcheck(
            lambda x, w, b, r, op=op: op(x, w, b, act="leaky_relu", residual=r, pad=2),
            inputs,
            fast_mode=each_backend == "triton",  # along a random direction: it is interpreted
        )


def test_opcheck(device, fused_backend):
    for gradients in (False, True):
        for layout in LAYOUTS[:2]:
            x = laid_out(torch.randn(2, 3, 6, 6, device=device), layout)
            residual = torch.randn(2, 3, 8, 8, device=device)[:, :, 1:-1, 1:-1]
            weight = torch.randn(3, device=device)
            tensors = [t.requires_grad_(gradients) for t in (x, weight)]
            for interior in (False, True):
                torch.library.opcheck(
                    torch.ops.cyclegan_fast.instance_norm_act.default,
                    (
                        *tensors,
                        None,
                        residual,
                        None,
                        None,
                        "relu",
                        0.2,
                        1,
                        1e-5,
                        interior,
                        fused_backend,
                    ),
                )


def test_compiles_whole(device, each_backend):
    torch._dynamo.reset()

    def block(x, residual):
        y, interior = instance_norm_act_and_interior(x * 2, pad=1)
        return instance_norm_act(y.square(), pad=1) + instance_norm_act(
            interior.square(), residual=residual, pad=2
        )

    x = torch.randn(2, 3, 6, 6, device=device).contiguous(memory_format=torch.channels_last)
    residual = torch.randn(2, 3, 6, 6, device=device)
    results = []
    for function in (block, torch.compile(block, fullgraph=True, backend="aot_eager")):
        leaf = x.clone().requires_grad_()
        y = function(leaf, residual)
        (gradient,) = torch.autograd.grad(y, leaf, torch.ones_like(y).cumsum(-1))
        results.append((y, gradient))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-5)


def test_autocast_keeps_dtype(device, each_backend):
    x = torch.randn(1, 3, 6, 6, device=device, dtype=torch.bfloat16)
    with torch.autocast(device, dtype=torch.bfloat16):
        y = instance_norm_act(x, torch.ones(3, device=device), residual=torch.randn_like(x).float())
    assert y.dtype == torch.bfloat16


def test_second_derivative_is_refused_with_advice(device, fused_backend):
    x = torch.randn(1, 2, 4, 4, device=device, requires_grad=True)
    y = instance_norm_act(x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(Exception, match=r"restore\(net\)"):
        gradient.sum().backward()


def test_second_derivative_on_the_reference(device):
    x = torch.randn(1, 2, 3, 3, device=device, dtype=torch.float64, requires_grad=True)
    with backend.use_backend("reference"):
        assert torch.autograd.gradgradcheck(lambda x: instance_norm_act(x, act="none"), x)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(3, 4, 4)}, ValueError, r"x must have shape \[N, C, H, W\]"),
        ({"x": torch.zeros(1, 3, 4, 4, dtype=torch.int64)}, TypeError, "x must be float16"),
        ({"x": torch.zeros(1, 3, 1, 1)}, ValueError, "at least two pixels"),
        ({"x": None}, TypeError, "x must be a tensor"),
        ({"act": "gelu"}, ValueError, "act must be one of none, relu, leaky_relu, got 'gelu'"),
        ({"pad": 4}, ValueError, r"0 <= pad < min\(H, W\) = 4, got 4"),
        ({"pad": -1}, ValueError, "got -1"),
        ({"pad": 1.5}, TypeError, "pad must be an int"),
        ({"weight": torch.zeros(4)}, ValueError, r"weight must have shape \[C\] = \[3\]"),
        ({"residual": torch.zeros(1, 3, 4, 5)}, ValueError, "residual must have x's shape"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value)[:20],
)
def test_wrong_arguments_are_named(change, error, message):
    with pytest.raises(error, match=message):
        instance_norm_act(**({"x": torch.zeros(1, 3, 4, 4)} | change))
