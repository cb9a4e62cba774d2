# SPDX-License-Identifier: MIT
"""The raw CUDA ops against float64: dtypes, layouts, shapes of the networks and awkward ones."""

from __future__ import annotations

import pytest
import raw_ops
import torch
import torch.nn.functional as F
from raw_ops import NormCase, accumulator, assert_close, laid_out, mirrored, poisoned

pytestmark = pytest.mark.gpu

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
LAYOUTS = ["channels_last", "contiguous"]
TRUNK, STEM, HEAD = (1, 256, 64, 64), (1, 64, 256, 256), (1, 512, 31, 31)
# One pixel, tiny and odd planes, channels that fill no vector, more images than one, tails of
# every chunk.
AWKWARD = [
    (2, 3, 1, 1), (1, 1, 1, 2), (2, 5, 2, 2), (3, 7, 5, 3), (2, 12, 4, 9), (1, 24, 17, 19),
    (2, 40, 33, 1), (1, 100, 13, 31), (5, 8, 65, 67), (1, 72, 96, 40),
]  # fmt: skip
# So many groups of channels that a block of the channels_last kernels takes all pixels of one.
RESIDENT = (16, 24, 5, 4)
# Past a grid's y and z limits.
MANY_PLANES = [(70000, 1, 3, 3), (9000, 8, 2, 3)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", AWKWARD)
def test_norm_awkward_shapes(dtype, layout, shape):
    for pad in (0, 1, 3):
        if pad and pad >= min(shape[2:]):
            continue
        for act in raw_ops.ACTS:
            NormCase(shape, dtype, layout, act, pad).check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", MANY_PLANES)
def test_norm_of_many_planes(dtype, layout, shape):
    for pad in (0, 1):
        NormCase(shape, dtype, layout, "relu", pad).check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pad", [0, 1, 3])
@pytest.mark.parametrize("shape", [(2, 16, 9, 8), (1, 33, 7, 12), RESIDENT])
def test_norm_every_option(dtype, layout, pad, shape):
    for affine in (False, True):
        for act in raw_ops.ACTS:
            for foreign in (False, True):
                extra = {"act": act, "pad": pad, "affine": affine, "foreign": foreign}
                NormCase(shape, dtype, layout, residual=True, grad_skip=True, **extra).check()
                NormCase(shape, dtype, layout, grad_skip=True, grad_residual=True, **extra).check()
    NormCase(shape, dtype, layout, pad=pad, grad_y=False, grad_skip=True).check()
    NormCase(shape, dtype, layout, pad=pad, residual=True, grad_residual=True).check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("shape", "pad", "act"),
    [(TRUNK, 1, "relu"), (STEM, 3, "relu"), (HEAD, 0, "leaky_relu"), ((3, 128, 64, 64), 1, "none")],
)
def test_norm_network_shapes(dtype, layout, shape, pad, act):
    NormCase(
        shape, dtype, layout, act, pad, residual=True, grad_skip=True, grad_residual=True
    ).check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 16, 9, 8), (1, 33, 7, 12), (2, 40, 33, 1), RESIDENT])
def test_norms_in_pairs(dtype, layout, shape):
    """Two of a kind and two that share no more than they must, each as if it were alone."""
    plain = NormCase(shape, dtype, layout)
    options = {"residual": True, "grad_skip": True, "grad_residual": True, "affine": True}
    rich = NormCase(shape, dtype, layout, offset=-1.0, **options)
    far = NormCase(shape, dtype, layout, offset=40.0, residual=True)
    for pair in ((plain, rich), (rich, plain), (plain, far)):
        written = [case.allocate() for case in pair]
        raw_ops.run_pair(pair, written)
        for case, t in zip(pair, written, strict=True):
            alone = case.run()
            for name in ("y", "mean", "rstd", "grad_x", "grad_residual", "sums"):
                assert t[name] is None or torch.equal(t[name], alone[name]), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_norm_of_a_pair_from_unaligned_memory(layout):
    cases = [NormCase((2, 16, 9, 8), torch.float16, layout, pad=1) for _ in range(2)]
    written = [case.allocate() for case in cases]
    x = written[1]["x"]
    beside = torch.empty(x.numel() + 1, dtype=x.dtype, device=x.device)[1:]
    written[1]["x"] = beside.as_strided(x.shape, x.stride()).copy_(x)
    raw_ops.run_pair(cases, written)
    for case, t in zip(cases, written, strict=True):
        case.compare(t)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 64, 48, 48), (2, 3, 31, 30), (32, 3, 31, 30)])
def test_norm_far_from_zero(layout, shape):
    NormCase(shape, torch.float32, layout, pad=1, offset=1000.0).check()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("spike", [0, 77])
def test_norm_of_a_spike(layout, spike):
    """One outlier in a constant plane, also where it is the pixel that statistics start from."""
    case = NormCase((1, 16, 24, 24), torch.float32, layout, act="none")
    x = torch.full(case.shape, 0.1, device=raw_ops.device)
    x.view(1, 16, -1)[..., spike] = 1e4
    case.operands["x"] = x
    case.check()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_norm_of_constant_planes(layout):
    """A constant plane is exactly zero after the norm, however large the constant."""
    case = NormCase((2, 8, 16, 16), torch.float32, layout, act="none", pad=1)
    case.operands["x"] = torch.full(case.shape, 12345.678, device=raw_ops.device)
    t = case.allocate()
    case.forward(t)
    assert torch.equal(t["y"], torch.zeros_like(t["y"]))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("act", "slope"), [("relu", 0.0), ("leaky_relu", raw_ops.SLOPE)])
def test_the_derivative_at_zero_is_that_below_zero(layout, act, slope):
    case = NormCase((2, 8, 6, 5), torch.float64, layout, act=act)
    generator = torch.Generator().manual_seed(1)
    grad_y = torch.randn(case.shape, generator=generator, dtype=torch.float64).to(raw_ops.device)
    case.operands |= {"x": torch.full_like(grad_y, 2.5), "grad_y": grad_y}
    t = case.run()
    torch.testing.assert_close(t["sums"][0], slope * grad_y.sum((2, 3)), rtol=1e-12, atol=1e-12)
    assert not t["sums"][1].any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_norm_spreads_what_is_not_finite(layout):
    """A plane with inf or nan becomes nan; its neighbours do not notice."""
    case = NormCase((1, 8, 12, 12), torch.bfloat16, layout, pad=1)
    case.operands["x"][0, 2, 3, 3] = float("inf")
    case.operands["x"][0, 5, 0, 0] = float("nan")
    t = case.run()
    bad = torch.tensor([c in (2, 5) for c in range(8)], device=raw_ops.device)
    for name in ("y", "grad_x"):
        assert torch.equal(t[name].isnan().all((0, 2, 3)), bad)
        assert torch.equal(t[name].isnan().any((0, 2, 3)), bad)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_norm_from_unaligned_memory(layout):
    """Tensors one element off a 16-byte boundary take the scalar path, and give the same."""
    case = NormCase((1, 16, 10, 12), torch.bfloat16, layout, pad=1, residual=True, grad_skip=True)
    aligned, t = case.run(), case.allocate()
    for name in ("x", "y", "grad_y", "grad_x"):
        memory = poisoned((t[name].numel() + 1,), t[name].dtype)[1:]
        moved = memory.as_strided(t[name].shape, t[name].stride(), memory.storage_offset())
        t[name] = moved.copy_(t[name])
    case.forward(t)
    case.backward(t)
    for name in ("y", "grad_x"):
        assert_close(t[name], aligned[name], aligned[name].double(), name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 3, 256, 256), (2, 5, 4, 7), (1, 16, 9, 8), (3, 264, 11, 5)])
@pytest.mark.parametrize("pad", [0, 1, 3])
def test_reflect_pad2d(dtype, layout, shape, pad):
    check_reflect_pad2d(dtype, layout, shape, pad)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 3, 17, 12), (1, 40, 5, 6), (70000, 1, 4, 4)])
def test_reflect_pad2d_copy(dtype, layout, shape):
    n, c, h, w = shape
    x = torch.randn(n, h, c, w + 2, device=raw_ops.device).to(dtype).transpose(1, 2)[..., 1:-1]
    for to in DTYPES:
        if (to == torch.float64) == (dtype == torch.float64):
            y = laid_out(poisoned((n, c, h + 6, w + 6), to), layout)
            raw_ops.ops.reflect_pad2d_copy(x, 3, y)
            assert torch.equal(y, x[:, :, mirrored(h, 3)][:, :, :, mirrored(w, 3)].to(to)), to


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_reflect_pad2d_of_many_planes(dtype, layout):
    check_reflect_pad2d(dtype, layout, (70000, 1, 4, 4), 1)


def check_reflect_pad2d(dtype, layout, shape, pad):
    generator = torch.Generator().manual_seed(pad)
    x = torch.randn(shape, generator=generator).to(raw_ops.device).to(dtype)
    n, c, h, w = shape
    padded = (n, c, h + 2 * pad, w + 2 * pad)
    y = laid_out(poisoned(padded, dtype), layout)
    raw_ops.ops.reflect_pad2d_fwd(laid_out(x, layout), pad, y)
    leaf = x.double().requires_grad_()
    # By indexing, for its backward: see raw_ops.mirrored.
    truth = leaf[:, :, mirrored(h, pad)][:, :, :, mirrored(w, pad)]
    assert torch.equal(y.double(), truth)
    assert not pad or torch.equal(y, F.pad(x, (pad,) * 4, mode="reflect"))
    grad_y = torch.randn(padded, generator=generator).to(raw_ops.device).to(dtype)
    grad_x = laid_out(poisoned(shape, dtype), layout)
    raw_ops.ops.reflect_pad2d_bwd(laid_out(grad_y, layout), pad, grad_x)
    (truth,) = torch.autograd.grad(truth, leaf, grad_y.double())
    # Sums in the accumulator, rounded once: half a unit in the last place, or nearly.
    assert_close(grad_x, None, truth, "grad_x", ulps=1)


def losses(dtype: torch.dtype, numel: int, offset: int = 0):
    """Both losses' operands, expected values and raw calls; offset: elements off alignment."""
    generator = torch.Generator().manual_seed(numel)

    def random():
        x = poisoned((numel + offset,), dtype)
        x.copy_(torch.randn(numel + offset, generator=generator).to(dtype))
        return x[offset:]

    a, b = random(), random()
    b[::7] = a[::7]  # differences of exactly zero
    ops = raw_ops.ops
    wide = [v.double().requires_grad_() for v in (a, b)]
    upstream = torch.full((), 0.37, dtype=accumulator(dtype), device=raw_ops.device)
    sign = torch.full((numel + offset,), 127, dtype=torch.int8, device=raw_ops.device)[offset:]
    yield (
        (wide[0] - wide[1]).abs().mean(), wide, upstream, (a, b),
        lambda loss, ws: ops.l1_loss_fwd(a, b, loss, sign, ws),
        lambda ga, gb: ops.l1_loss_bwd(upstream, sign, ga, gb),
    )  # fmt: skip
    yield (
        (wide[0] - wide[1]).square().mean(), wide, upstream, (a, b),
        lambda loss, ws: ops.lsgan_loss_fwd(a, b, 0.0, loss, ws),
        lambda ga, gb: ops.lsgan_loss_bwd(upstream, a, b, 0.0, ga, gb),
    )  # fmt: skip
    yield (
        (wide[0] - 0.9).square().mean(), wide[:1], upstream, (a,),
        lambda loss, ws: ops.lsgan_loss_fwd(a, None, 0.9, loss, ws),
        lambda ga: ops.lsgan_loss_bwd(upstream, a, None, 0.9, ga, None),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("numel", [1, 7, 900, 4096, 4097, 196608, 3_000_001])
@pytest.mark.parametrize("offset", [0, 1])
def test_losses(dtype, numel, offset):
    acc = accumulator(dtype)
    for truth, leaves, upstream, operands, forward, backward in losses(dtype, numel, offset):
        loss = poisoned((), acc)
        forward(loss, poisoned((raw_ops.ops.loss_workspace(numel),), acc))
        assert_close(loss, None, truth, "loss", ulps=8)
        grads = [poisoned((numel + offset,), dtype)[offset:] for _ in operands]
        backward(*grads)
        expected = torch.autograd.grad(truth, leaves, upstream.double())
        for grad, wanted in zip(grads, expected, strict=True):
            assert_close(grad, None, wanted, "grad", ulps=2)


def test_loss_gradient_of_one_side():
    (_, _, _, (a, _), forward, backward), *_ = losses(torch.float32, 5000)
    workspace = poisoned((raw_ops.ops.loss_workspace(5000),), torch.float32)
    forward(poisoned((), torch.float32), workspace)
    both = [poisoned(a.shape, a.dtype) for _ in range(2)]
    backward(*both)
    for i in range(2):
        only = [None, None]
        only[i] = poisoned(a.shape, a.dtype)
        backward(*only)
        assert torch.equal(only[i], both[i])
