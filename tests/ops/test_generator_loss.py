# SPDX-License-Identifier: MIT
"""generator_loss against float64 and against its terms one by one, over every back end."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_within_budget
from torch import Tensor

from cyclegan_fast.ops import generator_loss, generator_loss_reference

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
NAMES = ("pred_A", "pred_B", "rec_A", "rec_B", "idt_A", "idt_B")
# Predictions of A and of B, pictures of A and of B: below a vector, odd, above a chunk.
SHAPES = [
    ((1,), (2,), (1, 1, 1, 2), (1, 1, 1, 1)),
    ((2, 1, 5, 5), (2, 1, 3, 4), (2, 3, 9, 11), (2, 3, 9, 11)),
    ((1, 1, 70, 67), (1, 1, 6, 6), (1, 3, 61, 67), (1, 1, 40, 52)),
]


class Case:
    """Operands of one call, off the kinks, and what float64 and eager make of them."""

    def __init__(self, shapes, dtype, device, *, tanh=False, identity=True, target=None, scale=1.0):
        generator = torch.Generator().manual_seed(7)
        wide = torch.float64 if dtype == torch.float64 else torch.float32

        def random(shape, to, spread=1.0, offset=0.0):
            values = torch.randn(shape, generator=generator, dtype=torch.float64)
            return (values * spread + offset).to(device, to)

        pred_a, pred_b, image_a, image_b = shapes
        self.made: dict[str, Tensor | None] = {
            "pred_A": random(pred_a, dtype, offset=0.5),
            "pred_B": random(pred_b, dtype, offset=0.5),
            "rec_A": random(image_a, dtype),
            "rec_B": random(image_b, dtype),
            "idt_A": random(image_b, dtype) if identity else None,
            "idt_B": random(image_a, dtype) if identity else None,
        }
        self.real = [random(s, target or dtype, 0.5) for s in (image_a, image_b)]
        self.weights = torch.tensor([10.0, 5.0, 2.5, 0.7], dtype=wide, device=device)
        self.options = {"tanh": tanh}
        if scale != 1.0:
            self.options["scale"] = torch.tensor(scale, dtype=wide, device=device)

    def run(self, function, dtype=None, upstream=1.7):
        """Total, losses and the gradients of what was made, in another dtype if asked."""
        made = {
            name: None if x is None else x.detach().to(dtype or x.dtype).requires_grad_()
            for name, x in self.made.items()
        }
        real = [x.to(dtype or x.dtype) for x in self.real]
        weights = self.weights.to(dtype) if dtype else self.weights
        options = {k: v.to(dtype) if dtype and k == "scale" else v for k, v in self.options.items()}
        total, losses = function(*made.values(), *real, weights, **options)
        leaves = [x for x in made.values() if x is not None]
        gradients = torch.autograd.grad(total, leaves, torch.tensor(upstream).to(total))
        return total, losses, gradients

    def check(self) -> None:
        total, losses, gradients = self.run(generator_loss)
        truth = self.run(generator_loss_reference, torch.float64)
        wide = self.weights.dtype
        eager = self.run(generator_loss_reference, wide)
        assert losses.shape == (6,) and not losses.requires_grad
        assert_within_budget(total, eager[0], truth[0], "total")
        assert_within_budget(losses, eager[1], truth[1], "losses")
        names = [name for name, x in self.made.items() if x is not None]
        for name, ours, theirs, true in zip(names, gradients, eager[2], truth[2], strict=True):
            assert ours.dtype == self.made[name].dtype
            assert_within_budget(ours, theirs.to(ours.dtype), true, f"gradient of {name}")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("tanh", [False, True])
def test_equals_float64(each_backend, device, shapes, dtype, tanh):
    Case(shapes, dtype, device, tanh=tanh).check()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_originals_may_be_wider_than_what_is_made(each_backend, device, dtype):
    Case(SHAPES[1], dtype, device, tanh=True, target=torch.float32).check()
    Case(SHAPES[1], dtype, device, target=torch.float64).check()


def test_without_identity(each_backend, device):
    case = Case(SHAPES[2], torch.float32, device, identity=False, tanh=True)
    case.check()
    assert not case.run(generator_loss)[1][4:].any()
    for name in ("idt_A", "idt_B"):
        case = Case(SHAPES[1], torch.float32, device)
        case.made[name] = None
        case.check()


def test_the_scale_comes_before_float16(each_backend, device):
    """10 / 196608 is subnormal in float16: scaled after rounding, gradients would be wrong."""
    shapes = ((1, 1, 8, 8), (1, 1, 8, 8), (1, 3, 256, 256), (1, 3, 256, 256))
    case = Case(shapes, torch.float16, device, scale=65536.0)
    case.weights = case.weights * 1e-3
    total, losses, gradients = case.run(generator_loss, upstream=1.0)
    truth = case.run(generator_loss_reference, torch.float64, upstream=1.0)
    torch.testing.assert_close(total.double(), truth[0], rtol=1e-6, atol=0)
    for ours, true in zip(gradients, truth[2], strict=True):
        worst = (ours.double() - true).abs().max() / true.abs().max()
        assert worst <= 2 * torch.finfo(torch.float16).eps
    assert losses.sum() < 1e-3 * total


def test_far_from_zero_tanh_is_one_and_its_derivative_not_nan(each_backend, device):
    z = torch.tensor([0.0, -0.0, 1e-30, -30.0, 30.0, 200.0, -1e30, float("inf")], device=device)
    z = z[None, None, None].requires_grad_()
    real = torch.full_like(z, 0.25).detach()
    one = torch.ones(1, device=device)
    weights = torch.ones(4, device=device)
    _, losses = generator_loss(one, one, z, z, None, None, real, real, weights, tanh=True)
    total, _ = generator_loss(one, one, z, z, None, None, real, real, weights, tanh=True)
    (gradient,) = torch.autograd.grad(total, z)
    expected = (z.detach().tanh() - 0.25).abs().mean()
    torch.testing.assert_close(losses[2], expected)
    assert gradient.isfinite().all() and gradient[0, 0, 0, 0] == -2 / 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_near_zero_tanh_keeps_its_sign(each_backend, device, dtype):
    """Found by fuzzing: (1 - e) / (1 + e) is zero where e rounds to one."""
    z = torch.tensor([1e-30, -1e-30, 1e-9, -1e-6, 1e-3, -3e-3, 4e-3], device=device, dtype=dtype)
    z.requires_grad_()
    zero, one = torch.zeros_like(z), torch.ones(1, device=device, dtype=dtype)
    weights = torch.ones(4, device=device, dtype=dtype)
    total, losses = generator_loss(one, one, z, z, None, None, zero, zero, weights, tanh=True)
    (gradient,) = torch.autograd.grad(total, z)
    true = z.detach().double()
    torch.testing.assert_close(losses[2].double(), true.tanh().abs().mean(), rtol=1e-6, atol=0)
    expected = 2 * true.sign() * (1 - true.tanh().square()) / 7
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-6, atol=0)


def test_equal_and_nan_have_pytorchs_gradient(each_backend, device):
    made = torch.tensor([1.0, float("nan"), 3.0], device=device, requires_grad=True)
    real = torch.tensor([1.0, 2.0, 2.0], device=device)
    one, weights = torch.ones(1, device=device), torch.ones(4, device=device)
    total, losses = generator_loss(one, one, made, made, None, None, real, real, weights)
    (gradient,) = torch.autograd.grad(total, made)
    assert losses[2].isnan() and total.isnan()
    torch.testing.assert_close(gradient.cpu(), torch.tensor([0.0, 0.0, 2 / 3]))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "mixed", "sliced"])
def test_layouts_agree(each_backend, device, layout):
    case, plain = (Case(SHAPES[1], torch.float32, device) for _ in range(2))
    for i, (name, x) in enumerate(list(case.made.items())[2:]):
        if layout == "channels_last" or (layout == "mixed" and i % 2):
            case.made[name] = x.contiguous(memory_format=torch.channels_last)
        elif layout == "sliced":
            wide = torch.zeros(*x.shape[:3], 2 * x.shape[3], device=device)
            case.made[name] = wide[..., ::2].copy_(x)
    if layout == "channels_last":
        case.real = [x.contiguous(memory_format=torch.channels_last) for x in case.real]
    ours, expected = case.run(generator_loss), plain.run(generator_loss)
    torch.testing.assert_close(ours[:2], expected[:2])
    torch.testing.assert_close(ours[2], expected[2])


def test_only_what_needs_a_gradient_gets_one(each_backend, device):
    case = Case(SHAPES[1], torch.float32, device)
    everything = case.run(generator_loss)
    for i, wanted in enumerate(NAMES):
        made = {k: v.detach().clone().requires_grad_(k == wanted) for k, v in case.made.items()}
        total, _ = generator_loss(*made.values(), *case.real, case.weights)
        (gradient,) = torch.autograd.grad(total, made[wanted], torch.tensor(1.7, device=device))
        assert torch.equal(gradient, everything[2][i])
    with torch.no_grad():
        total, losses = generator_loss(*case.made.values(), *case.real, case.weights)
    assert not total.requires_grad
    assert torch.equal(losses, everything[1]) and torch.equal(total, everything[0])


def test_backward_twice_is_the_same_twice(each_backend, device):
    case = Case(SHAPES[1], torch.float32, device)
    made = [x.detach().requires_grad_() for x in case.made.values()]
    total, _ = generator_loss(*made, *case.real, case.weights)
    first = torch.autograd.grad(total, made, torch.tensor(3.0, device=device), retain_graph=True)
    kept = [g.clone() for g in first]
    second = torch.autograd.grad(total, made, torch.tensor(3.0, device=device))
    for a, b, c in zip(first, kept, second, strict=True):
        assert torch.equal(a, b) and torch.equal(b, c)


def test_ten_runs_give_the_same_bits(each_backend, device):
    case = Case(SHAPES[2], torch.float32, device, tanh=True)
    first = case.run(generator_loss)
    for _ in range(9):
        again = case.run(generator_loss)
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
        assert all(torch.equal(a, b) for a, b in zip(first[2], again[2], strict=True))


@pytest.mark.parametrize("tanh", [False, True])
def test_gradcheck(each_backend, device, tanh):
    case = Case(SHAPES[0], torch.float64, device, tanh=tanh)
    made = [x.requires_grad_() for x in case.made.values()]
    assert torch.autograd.gradcheck(
        lambda *made: generator_loss(*made, *case.real, case.weights, tanh=tanh)[0], made
    )


def test_opcheck(fused_backend, device):
    case = Case(SHAPES[0], torch.float32, device)
    made = list(case.made.values())
    for grads in (False, True):
        operands = [x.detach().requires_grad_(grads) for x in made]
        torch.library.opcheck(
            torch.ops.cyclegan_fast.generator_loss.default,
            (*operands, *case.real, case.weights, None, True, grads, fused_backend),
        )


def test_compiles_whole(each_backend, device):
    torch._dynamo.reset()
    case = Case(SHAPES[1], torch.float32, device)

    def total(*made):
        return generator_loss(*made, *case.real, case.weights, tanh=True)[0]

    results = []
    for function in (total, torch.compile(total, fullgraph=True, backend="aot_eager")):
        made = [x.detach().clone().requires_grad_() for x in case.made.values()]
        value = function(*made)
        results.append([value, *torch.autograd.grad(value, made)])
    torch.testing.assert_close(*results)


def test_second_derivative_is_refused_with_advice(fused_backend, device):
    case = Case(SHAPES[0], torch.float32, device)
    made = [x.detach().requires_grad_() for x in case.made.values()]
    total, _ = generator_loss(*made, *case.real, case.weights)
    (gradient,) = torch.autograd.grad(total, made[0], create_graph=True)
    with pytest.raises(Exception, match=r"restore\(net\)"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rec_A": torch.zeros(2, 3)}, ValueError, "real_A must have rec_A's shape"),
        ({"idt_A": torch.zeros(2, 3)}, ValueError, "idt_A must have rec_B's shape"),
        ({"pred_B": torch.zeros(0)}, ValueError, "pred_B must have at least one element"),
        ({"rec_B": torch.zeros(2, 3, 9, 11).half()}, ValueError, "rec_B must have pred_A's dtype"),
        ({"pred_A": torch.zeros(3, dtype=torch.int32)}, TypeError, "pred_A must be float16"),
        ({"weights": torch.ones(3)}, ValueError, r"weights must be torch.float32 \[4\]"),
        ({"weights": 10.0}, TypeError, "weights must be a tensor"),
        ({"scale": torch.ones(1)}, ValueError, r"scale must be torch.float32 \[\]"),
        ({"real_B": torch.zeros(2, 3, 9, 11).half()}, ValueError, "real_B must have real_A's dty"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    case = Case(SHAPES[1], torch.float32, "cpu")
    given = {**case.made, "real_A": case.real[0], "real_B": case.real[1], "weights": case.weights}
    with pytest.raises(error, match=message):
        generator_loss(**(given | change))
