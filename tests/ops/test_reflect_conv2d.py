# SPDX-License-Identifier: MIT
"""reflect_conv2d and every gradient, over every back end, against float64."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from conv_case import NAMES, check, operands
from numerics import EPS

from cyclegan_fast import backend
from cyclegan_fast.errors import BackendUnavailableError
from cyclegan_fast.ops import reflect_conv2d, reflect_conv2d_reference
from cyclegan_fast.ops.reflect_conv2d import explain, library, table

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
FORMATS = [torch.contiguous_format, torch.channels_last]
# (x, weight, padding, stride, act): the widest reflection there is, both sides odd, more than a
# block of channels, one channel, a kernel that is not square, one output pixel, no image.
CASES = [
    ((2, 3, 4, 5), (4, 3, 3, 3), 3, 1, "none"),
    ((1, 5, 9, 7), (3, 5, 5, 4), 0, 1, "tanh"),
    ((2, 20, 8, 8), (18, 20, 3, 3), 1, 1, "none"),
    ((1, 33, 7, 9), (17, 33, 3, 3), 1, 2, "tanh"),
    ((3, 1, 6, 5), (1, 1, 2, 3), 2, 2, "none"),
    ((2, 6, 10, 10), (8, 6, 3, 3), 0, 1, "none"),
    ((1, 4, 11, 8), (5, 4, 4, 4), 1, 3, "tanh"),
    ((1, 7, 2, 2), (4, 7, 1, 1), 1, 1, "none"),
    ((1, 2, 3, 3), (2, 2, 3, 3), 0, 1, "none"),
    ((0, 3, 4, 4), (2, 3, 3, 3), 1, 1, "none"),
]


@pytest.fixture(autouse=True)
def no_tf32(monkeypatch):
    """float32 as it is: on a GPU convolutions may otherwise take TF32, whose error is 1e-3."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def skip_unserved(name: str, dtype: torch.dtype) -> None:
    if name == "triton" and dtype == torch.float64:
        pytest.skip("Triton has no float64 kernel: test_float64_is_refused_by_name")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize(("shape", "weight", "padding", "stride", "act"), CASES, ids=str)
def test_within_the_budget(
    shape, weight, padding, stride, act, memory_format, dtype, device, each_backend
):
    skip_unserved(each_backend, dtype)
    leaves = operands(shape, weight, dtype, device, memory_format)
    y = check(leaves, padding, stride, act)
    if each_backend != "reference" and y.numel():
        assert y.is_contiguous(memory_format=memory_format)


def test_the_generators_last_layer(device, each_backend):
    check(operands((1, 5, 9, 7), (3, 5, 7, 7), torch.float32, device), 3, 1, "tanh")


@pytest.mark.parametrize("needs", list(itertools.product([True, False], repeat=3))[:-1], ids=str)
def test_only_the_gradients_that_are_needed(needs, device, each_backend):
    leaves = operands((2, 5, 7, 6), (4, 5, 3, 3), torch.float32, device)
    options = {"padding": 2, "act": "tanh"}
    whole = torch.autograd.grad(reflect_conv2d(*leaves, **options).square().sum(), leaves)
    some = [leaf.detach().requires_grad_(need) for leaf, need in zip(leaves, needs, strict=True)]
    reflect_conv2d(*some, **options).square().sum().backward()
    for name, leaf, need, expected in zip(NAMES, some, needs, whole, strict=True):
        assert (leaf.grad is not None) == need, name
        if need:  # a library may choose another algorithm for a part of the work
            torch.testing.assert_close(leaf.grad, expected, rtol=1e-5, atol=1e-5, msg=name)


# Each of them oneDNN 3.12 gets wrong on a CPU with AMX, eager too, which is no measure then.
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize(
    ("shape", "kernel", "padding", "stride"),
    [
        ((2, 6, 16, 4), (3, 2), 0, 3),
        ((2, 16, 16, 8), (7, 7), 0, 2),
        ((2, 16, 9, 4), (2, 1), 1, 2),
        ((2, 16, 9, 16), (4, 4), 0, 4),
    ],
    ids=str,
)
def test_strides_and_short_rows_of_16_bits(
    shape, kernel, padding, stride, memory_format, half, device, fused_backend
):
    weight = (8, shape[1], *kernel)
    leaves = operands(shape, weight, half, device, memory_format)
    wide = [leaf.detach().float().requires_grad_() for leaf in leaves]
    expected = reflect_conv2d_reference(*wide, padding=padding, stride=stride)
    y = reflect_conv2d(*leaves, padding=padding, stride=stride)
    grad = torch.randn_like(y)
    gradients = torch.autograd.grad(y, leaves, grad)
    truth = torch.autograd.grad(expected, wide, grad.float())
    for ours, theirs in zip((y, *gradients), (expected, *truth), strict=True):
        near = 4 * EPS[half] * theirs.abs().max().item()
        torch.testing.assert_close(ours.float(), theirs, rtol=0, atol=near)


def test_without_a_bias(device, each_backend):
    x, weight, _ = operands((2, 4, 6, 6), (3, 4, 3, 3), torch.float32, device)
    y = reflect_conv2d(x, weight, padding=1)
    expected = reflect_conv2d_reference(x, weight, padding=1)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    ours, theirs = (torch.autograd.grad(z.square().sum(), (x, weight)) for z in (y, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_padding_0_of_a_padded_image_is_padding(device, each_backend):
    x, weight, bias = operands((2, 4, 6, 7), (3, 4, 3, 3), torch.float32, device)
    padded = F.pad(x.detach(), (1,) * 4, mode="reflect")
    y = reflect_conv2d(padded, weight, bias, padding=0)
    expected = reflect_conv2d(x, weight, bias, padding=1)
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)


def test_operands_in_any_strides(device, each_backend):
    x, weight, bias = operands((2, 5, 8, 6), (4, 5, 3, 3), torch.float32, device)
    expected = reflect_conv2d(x, weight, bias, padding=2)
    grad = torch.randn_like(expected)
    truth = torch.autograd.grad(expected, (x, weight, bias), grad)

    def strided(t):
        wide = torch.full((*t.shape[:-1], 2 * t.shape[-1]), float("nan"), device=device)
        wide[..., ::2] = t.detach()
        return wide[..., ::2].requires_grad_()

    leaves = [strided(t) for t in (x, weight, bias)]
    y = reflect_conv2d(*leaves, padding=2)
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)
    gradients = torch.autograd.grad(y, leaves, strided(grad).detach())
    torch.testing.assert_close(gradients, truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("formats", list(itertools.product(FORMATS, repeat=2)), ids=str)
def test_layouts_may_differ(formats, device, each_backend):
    x, weight, bias = operands((2, 5, 6, 7), (4, 5, 3, 3), torch.float32, device)
    expected = reflect_conv2d_reference(x, weight, bias, padding=1)
    leaves = [
        t.detach().clone(memory_format=f).requires_grad_()
        for t, f in zip((x, weight), formats, strict=True)
    ]
    y = reflect_conv2d(*leaves, bias, padding=1)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    channels_last = torch.channels_last in formats
    if each_backend != "reference":
        assert y.is_contiguous(memory_format=FORMATS[channels_last])
    grad = torch.randn_like(expected)
    gradients = torch.autograd.grad(y, leaves, grad)
    truth = torch.autograd.grad(expected, (x, weight), grad)
    torch.testing.assert_close(gradients, truth, rtol=1e-5, atol=1e-5)


def test_an_image_of_one_channel_goes_over_to_the_layout_of_the_weight(device, fused_backend):
    x = torch.randn(1, 1, 6, 6, device=device)
    weight = torch.randn(4, 1, 3, 3, device=device)
    assert reflect_conv2d(x, weight, padding=1).is_contiguous()
    weight = weight.to(memory_format=torch.channels_last)
    y = reflect_conv2d(x, weight, padding=1)
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("each_backend", ["reference", "native"])
def test_gradcheck(each_backend, device):
    leaves = operands((2, 2, 4, 5), (3, 2, 3, 3), torch.float64, device)
    with backend.use_backend(each_backend):
        for padding, stride, act in ((3, 1, "tanh"), (1, 2, "none"), (0, 1, "tanh")):
            assert torch.autograd.gradcheck(
                lambda x, w, b, p=padding, s=stride, a=act: reflect_conv2d(
                    x, w, b, padding=p, stride=s, act=a
                ),
                leaves,
            )


def test_opcheck(device, fused_backend):
    for memory_format, act in ((FORMATS[0], "tanh"), (FORMATS[1], "none")):
        x, weight, bias = operands((1, 3, 3, 4), (4, 3, 3, 3), torch.float32, device, memory_format)
        last = memory_format == torch.channels_last
        arguments = (x, weight, bias, 1, 2, act, last, fused_backend)
        torch.library.opcheck(torch.ops.cyclegan_fast.reflect_conv2d.default, arguments)
        arguments = (x.detach(), weight, None, 1, 2, act, last, fused_backend)
        torch.library.opcheck(torch.ops.cyclegan_fast.reflect_conv2d.default, arguments)


def test_compiles_whole(device, each_backend):
    torch._dynamo.reset()
    leaves = operands((2, 3, 6, 6), (4, 3, 3, 3), torch.float32, device)

    def function(x, weight, bias):
        return reflect_conv2d(x + 1, weight, bias, padding=2, act="tanh")

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    ours, expected = compiled(*leaves), function(*leaves)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    grad = torch.randn_like(expected)
    gradients = [torch.autograd.grad(y, leaves, grad) for y in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_under_autocast_it_is_torchs_convolution(half, device, each_backend):
    leaves = operands((2, 5, 7, 8), (4, 5, 3, 3), torch.float32, device)
    with torch.autocast(device, half):
        y = reflect_conv2d(*leaves, padding=1, act="tanh")
    assert y.dtype == half
    grad = torch.randn(y.shape, device=device).to(half)
    gradients = torch.autograd.grad(y, leaves, grad)
    rounded = [leaf.detach().to(half).requires_grad_() for leaf in leaves]
    expected = reflect_conv2d(*rounded, padding=1, act="tanh")
    assert torch.equal(y, expected)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, rounded, grad), strict=True):
        assert ours.dtype == torch.float32
        # PyTorch's own padding works in float32 under the CPU's autocast.
        near = 4 * EPS[half] if each_backend == "reference" else 0.0
        largest = theirs.float().abs().max().item()
        torch.testing.assert_close(ours, theirs.float(), rtol=0, atol=near * largest)


def test_under_autocast_without_a_compiled_pad(device, monkeypatch):
    monkeypatch.setattr(library, "_pad_backend", lambda x: "reference")
    leaves = operands((2, 5, 7, 8), (4, 5, 3, 3), torch.float32, device)
    with backend.use_backend("native"):
        with torch.autocast(device, torch.bfloat16):
            y = reflect_conv2d(*leaves, padding=1)
        gradients = torch.autograd.grad(y, leaves, torch.ones_like(y))
        rounded = [leaf.detach().bfloat16().requires_grad_() for leaf in leaves]
        expected = reflect_conv2d(*rounded, padding=1)
    assert torch.equal(y, expected)
    truth = torch.autograd.grad(expected, rounded, torch.ones_like(y))
    for ours, theirs in zip(gradients, truth, strict=True):
        assert torch.equal(ours, theirs.float())


def test_under_autocast_float64_stays(device):
    leaves = operands((1, 2, 4, 4), (2, 2, 3, 3), torch.float64, device)
    with torch.autocast(device, torch.bfloat16):
        assert reflect_conv2d(*leaves, padding=1).dtype == torch.float64


def test_ten_runs_give_the_same_bits(device, each_backend):
    leaves = operands((2, 17, 5, 4), (18, 17, 3, 3), torch.float32, device)
    grad = torch.randn(2, 18, 5, 4, device=device)

    def run():
        y = reflect_conv2d(*leaves, padding=1, act="tanh")
        return y, *torch.autograd.grad(y, leaves, grad)

    first = run()
    for _ in range(9):
        assert all(map(torch.equal, first, run()))


def test_second_derivative_is_refused_with_advice(device, fused_backend):
    x, weight, bias = operands((1, 2, 4, 4), (2, 2, 3, 3), torch.float32, device)
    y = reflect_conv2d(x, weight, bias, padding=1)
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(Exception, match=r"restore\(net\)"):
        gradient.sum().backward()


def test_float64_is_refused_by_name():
    leaves = operands((1, 2, 4, 4), (2, 2, 3, 3), torch.float64, "cpu")
    with (
        backend.use_backend("triton"),
        pytest.raises(BackendUnavailableError, match="reflect_conv2d: .*float64 is not made for"),
    ):
        reflect_conv2d(*leaves, padding=1)


X, W = torch.zeros(1, 3, 5, 6), torch.zeros(4, 3, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((X[0], W), {}, ValueError, r"x must have shape \[N, C, H, W\], got \(3, 5, 6\)"),
        ((X.int(), W), {}, TypeError, "x must be float16"),
        ((X, W[0]), {}, ValueError, r"weight must have shape .* with C = 3 .*, got \(3, 3, 3\)"),
        ((X, W[:, :1]), {}, ValueError, r"got \(4, 1, 3, 3\); groups and dilation are not"),
        ((X, W[:0]), {}, ValueError, "nothing empty"),
        ((X, [1.0]), {}, TypeError, "weight must be a tensor .*, got list"),
        ((X, W, torch.zeros(3)), {}, ValueError, r"bias must have shape \[C_out\] = \[4\]"),
        ((X, W, 0.0), {}, TypeError, r"bias must be a tensor \[C_out\], got float"),
        (
            (X, W.half()),
            {},
            TypeError,
            "weight must have x's dtype torch.float32, got torch.float16",
        ),
        ((X, W, torch.zeros(4).double()), {}, TypeError, "bias must have x's dtype"),
        ((X, W.to("meta")), {}, ValueError, "weight must be on x's device cpu, got meta"),
        ((X, W), {"padding": 5}, ValueError, r"padding must satisfy 0 <= padding < .* = 5, got 5"),
        ((X, W), {"padding": -1}, ValueError, "padding must satisfy"),
        ((X, W), {"padding": 1.0}, TypeError, "padding must be an int, got float"),
        ((X, W), {"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ((X, W), {"stride": (1, 1)}, TypeError, "stride must be an int, got tuple"),
        ((X, W), {"act": "relu"}, ValueError, "act must be one of none, tanh, got 'relu'"),
        ((X[..., :1], W), {"padding": 0}, ValueError, "3 x 3, got 5 x 1"),
    ],
)
def test_wrong_arguments_are_named(arguments, options, error, message):
    with pytest.raises(error, match=f"^reflect_conv2d: .*{message}"):
        reflect_conv2d(*arguments, **({"padding": 1} | options))


def test_the_table_says_what_auto_takes_and_why():
    assert explain(X, W) == "library: oneDNN has the CPU's matrix instructions"
    with backend.use_backend("reference"):
        assert explain(X, W) == "reference: asked for by name"
    on_t4 = table.row("cuda", (7, 5), torch.float16)
    assert on_t4.order == ("library", "reference") and "tensor-core" in on_t4.why
    for dtype in DTYPES:
        found = table.row("cuda", (9, 0), dtype)
        assert found.order[0] == "library"
        assert ("implicit" in found.order) == (dtype != torch.float64)
    assert table.row("mps", None, torch.float32).order == ("reference",)
