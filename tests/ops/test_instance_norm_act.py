# SPDX-License-Identifier: MIT
"""instance_norm_act against float64, over back ends, dtypes, layouts and options."""

from __future__ import annotations

import pytest
import torch
from numerics import EPS, assert_flips_balanced, assert_within_budget
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.ops import instance_norm_act, instance_norm_act_reference
from cyclegan_fast.ops.instance_norm_act import instance_norm_act_and_interior

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
LAYOUTS = ["contiguous", "channels_last", "sliced"]
# The smallest legal planes, odd sizes, tails of every vector width, larger than a block, no image.
SHAPES = [(1, 1, 1, 2), (2, 3, 5, 7), (1, 37, 9, 6), (2, 32, 8, 8), (1, 8, 33, 65), (0, 3, 4, 4)]


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same values in another layout."""
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        wide = torch.full((*x.shape[:3], 2 * x.shape[3] + 1), float("nan"), device=x.device)
        wide = wide.to(x.dtype)
        wide[..., 1::2] = x
        return wide[..., 1::2]
    return x.contiguous()


def _sliced_reference(*args, pad, **options) -> tuple[Tensor, Tensor]:
    y = instance_norm_act_reference(*args, pad=pad, **options)
    height, width = y.shape[2:]
    return y, y[:, :, pad : height - pad, pad : width - pad]


WITH_INTERIOR = {
    instance_norm_act: instance_norm_act_and_interior,
    instance_norm_act_reference: _sliced_reference,
}


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def on_cpu(result: tuple[Tensor, dict[str, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
    """The same value and gradients, on the CPU."""
    y, gradients = result
    return y.cpu(), {name: gradient.cpu() for name, gradient in gradients.items()}


class Case:
    """Random operands of one call, its truth in float64 and eager's answer in the dtype."""

    def __init__(
        self,
        shape,
        dtype,
        layout,
        device,
        *,
        act,
        pad,
        affine,
        residual,
        interior=False,
        mean=3.0,
    ):
        generator = torch.Generator().manual_seed(1000 * sum(shape) + 10 * len(act) + pad)
        self.options = {"act": act, "pad": pad, "negative_slope": 0.2}
        self.act = act
        c = shape[1]

        def random(*size, offset=0.0):
            return (torch.randn(size, generator=generator) + offset).to(device).to(dtype)

        self.operands: dict[str, Tensor] = {"x": laid_out(random(*shape, offset=mean), layout)}
        if affine:
            self.operands["weight"] = random(c, offset=1.0)
            self.operands["bias"] = random(c)
        if residual:
            # As in a chain of blocks: the interior of an earlier padded output.
            n, _, h, w = shape
            padded = laid_out(random(n, c, h + 2, w + 2), layout.replace("sliced", "contiguous"))
            self.operands["residual"] = padded[:, :, 1:-1, 1:-1]
        self.grads = [random(shape[0], c, shape[2] + 2 * pad, shape[3] + 2 * pad)]
        if interior:  # as the next block hands it back: dense or not, in either layout
            self.grads.append(laid_out(random(*shape), LAYOUTS[len(act) % 3]))

    def run(self, function, dtype=None, device=None) -> tuple[Tensor, dict[str, Tensor]]:
        """Value and gradients of the function, in another dtype or on another device if asked."""
        leaves = {
            name: operand.detach().to(device, dtype or operand.dtype).requires_grad_()
            for name, operand in self.operands.items()
        }
        if len(self.grads) == 1:
            outputs = (function(**leaves, **self.options),)
        else:
            outputs = WITH_INTERIOR[function](**leaves, **self.options)
        y = outputs[0]
        gradients = torch.autograd.grad(
            outputs, list(leaves.values()), [grad.to(y) for grad in self.grads]
        )
        return y, dict(zip(leaves, gradients, strict=True))

    def check(self) -> None:
        dtype = self.operands["x"].dtype
        y, gradients = on_cpu(self.run(instance_norm_act))
        # On the CPU: the deterministic reflection_pad2d backward of some CUDA builds of PyTorch
        # reads out of bounds (pytorch#193694), and a truth must be true.
        truth, true_gradients = self.run(instance_norm_act_reference, torch.float64, "cpu")
        eager, eager_gradients = self.run(instance_norm_act_reference, device="cpu")
        assert y.dtype == dtype
        assert_within_budget(y, eager, truth, "y")
        where, eager_where, terms = self.away_from_kinks()
        for name, gradient in gradients.items():
            at_x = name == "x"
            assert_within_budget(
                gradient,
                eager_gradients[name],
                true_gradients[name],
                f"gradient of {name}",
                where=where if at_x else None,
                eager_where=eager_where if at_x else None,
                terms=terms if at_x else 0.0,
            )

    def away_from_kinks(self) -> tuple[Tensor, Tensor, float]:
        """Elements to compare in ours, in eager, and the size of the terms that cancel in dx."""
        x, weight, bias = (
            None if operand is None else operand.detach().cpu().double()
            for operand in map(self.operands.get, ("x", "weight", "bias"))
        )
        everywhere = torch.ones_like(x, dtype=torch.bool)
        if not x.numel():
            return everywhere, everywhere, 0.0
        rstd = (x.var((2, 3), correction=0, keepdim=True) + 1e-5).rsqrt()
        scale = rstd if weight is None else rstd * weight[:, None, None].abs()
        largest = sum(grad.cpu().double().abs().amax((2, 3), keepdim=True) for grad in self.grads)
        terms = (largest * scale).max().item()
        if self.act == "none":
            return everywhere, everywhere, terms
        z = instance_norm_act_reference(x, weight, bias, act="none").abs()
        dtype = self.operands["x"].dtype
        eager_where = z > 8 * EPS[dtype]
        if backend.policy() == "reference":  # which is eager PyTorch
            return eager_where, eager_where, terms
        # The fused kernels keep z in the accumulator's dtype; a mean far from zero costs it digits.
        digits = EPS[_accumulator(dtype)] * (1 + x.mean((2, 3), keepdim=True).abs() * scale)
        return z > 64 * digits, eager_where, terms


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
def test_activation_flips_only_at_the_kink_and_evenly(layout, dtype, device):
    case = Case(
        (2, 8, 65, 64), dtype, layout, device, act="relu", pad=0, affine=True, residual=False
    )
    with backend.use_backend("native"):
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


def test_fused_keeps_layout(device):
    x = torch.randn(2, 4, 6, 6, device=device).contiguous(memory_format=torch.channels_last)
    with backend.use_backend("native"):
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
            lambda x, w, b, r, op=op: op(x, w, b, act="leaky_relu", residual=r, pad=2), inputs
        )


def test_opcheck(device):
    with backend.use_backend("native"):
        for gradients in (False, True):
            for layout in LAYOUTS[:2]:
                x = laid_out(torch.randn(2, 3, 6, 6, device=device), layout)
                residual = torch.randn(2, 3, 8, 8, device=device)[:, :, 1:-1, 1:-1]
                weight = torch.randn(3, device=device)
                tensors = [t.requires_grad_(gradients) for t in (x, weight)]
                for interior in (False, True):
                    torch.library.opcheck(
                        torch.ops.cyclegan_fast.instance_norm_act.default,
                        (*tensors, None, residual, "relu", 0.2, 1, 1e-5, interior, "native"),
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


def test_second_derivative_is_refused_with_advice(device):
    x = torch.randn(1, 2, 4, 4, device=device, requires_grad=True)
    with backend.use_backend("native"):
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
