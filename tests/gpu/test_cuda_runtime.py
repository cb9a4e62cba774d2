# SPDX-License-Identifier: MIT
"""The raw CUDA ops as a program uses them: run after run, on streams, in graphs, at any size."""

from __future__ import annotations

import pytest
import raw_ops
import torch
import torch.nn.functional as F
from raw_ops import NormCase, assert_close, laid_out, poisoned

pytestmark = pytest.mark.gpu

LAYOUTS = ["channels_last", "contiguous"]
OUTPUTS = ("y", "mean", "rstd", "grad_x", "grad_residual", "sums")


def trunk(layout: str, n: int = 1) -> NormCase:
    return NormCase(
        (n, 256, 64, 64), torch.bfloat16, layout, pad=1,
        residual=True, grad_skip=True, grad_residual=True,
    )  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ten_runs_give_the_same_bits(layout):
    case = trunk(layout, n=2)
    first = case.run()
    for _ in range(9):
        again = case.run()
        assert all(torch.equal(first[name], again[name]) for name in OUTPUTS)


def test_ten_losses_give_the_same_bits():
    a, b = (torch.randn(3_000_001, device=raw_ops.device) for _ in range(2))
    found = set()
    for _ in range(10):
        loss = poisoned((), torch.float32)
        size = raw_ops.ops.loss_workspace(a.numel())
        raw_ops.ops.l1_loss_fwd(a, b, loss, None, poisoned((size,), torch.float32))
        found.add(loss.item())
    assert len(found) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_current_stream_is_used(layout):
    """Work queued behind a long one on a side stream sees what that one wrote."""
    case = trunk(layout)
    expected, t = case.run(), case.allocate()
    wanted, side = t["x"].clone(), torch.cuda.Stream()
    t["x"].fill_(float("nan"))
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # some 30 ms: on any other stream the nan would be read
        t["x"].copy_(wanted)
        case.forward(t)
        case.backward(t)
    side.synchronize()
    assert all(torch.equal(expected[name], t[name]) for name in OUTPUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_norm_in_a_graph(layout):
    """Captured once, replayed with new data, and equal to the ordinary call to the bit."""
    case = trunk(layout)
    t = case.allocate()
    case.forward(t)  # load the kernels before the capture
    case.backward(t)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        case.forward(t)
        case.backward(t)
    for seed in range(3):
        torch.manual_seed(seed)
        for name in ("x", "residual", "grad_y", "grad_skip"):
            t[name].normal_(mean=float(seed))
        for name in (*OUTPUTS, "workspace"):
            t[name].fill_(float("nan"))
        graph.replay()
        plain = {name: None if v is None else v.clone() for name, v in t.items()}
        for name in ("residual", "grad_skip"):
            plain[name] = t[name]  # a clone would not keep the strides
        for name in (*OUTPUTS, "workspace"):
            plain[name].fill_(float("nan"))
        case.forward(plain)
        case.backward(plain)
        for name in OUTPUTS:
            assert not t[name].isnan().any()
            assert torch.equal(t[name], plain[name]), f"{name}, replay {seed}"


def test_losses_and_pads_in_a_graph():
    ops = raw_ops.ops
    x, other = (torch.randn(1, 3, 64, 64, device="cuda") for _ in range(2))
    y = poisoned((1, 3, 70, 70), x.dtype)
    grad, sign = torch.empty_like(x), torch.empty_like(x, dtype=torch.int8)
    loss, up = poisoned((), x.dtype), torch.ones((), device="cuda")
    workspace = poisoned((ops.loss_workspace(x.numel()),), x.dtype)

    def work():
        ops.reflect_pad2d_fwd(x, 3, y)
        ops.l1_loss_fwd(x, other, loss, sign, workspace)
        up.copy_(loss)  # grad_loss is read on the device, when the kernel runs
        ops.l1_loss_bwd(up, sign, grad, None)

    work()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    for _ in range(3):
        x.normal_()
        graph.replay()
        assert torch.equal(y, F.pad(x, (3, 3, 3, 3), mode="reflect"))
        truth = (x.double() - other.double()).abs().mean()
        assert_close(loss, None, truth, "loss", ulps=8)
        assert_close(grad, None, (x - other).sign().double() * truth / x.numel(), "grad", ulps=16)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_more_than_two_to_the_31_elements(layout):
    shape = (2, 64, 4100, 4100)
    x = laid_out(torch.empty(shape, dtype=torch.bfloat16, device="cuda"), layout)
    assert x.numel() > 2**31
    x.normal_(mean=1.0)
    n, c, h, w = shape
    mean, rstd = poisoned((n, c), torch.float32), poisoned((n, c), torch.float32)
    size = raw_ops.ops.instance_norm_act_workspace(*shape, layout == "channels_last", "cuda")
    workspace = poisoned((size,), torch.float32)
    y = torch.empty((n, c, h + 2, w + 2), dtype=x.dtype, device="cuda")
    y = laid_out(y, layout).fill_(float("nan"))
    raw_ops.ops.instance_norm_act_fwd(
        x, None, None, None, 1, 0.2, 1, 1e-5, y, mean, rstd, workspace
    )
    last = x[1:, 62:].double()
    truth = F.pad(F.instance_norm(last).relu(), (1, 1, 1, 1), mode="reflect")
    assert_close(y[1:, 62:], None, truth, "y", ulps=1)
    assert not y.isnan().any()
    grad_x, sums = torch.empty_like(x), poisoned((2, n, c), torch.float32)
    raw_ops.ops.instance_norm_act_bwd(
        y, None, x, None, None, mean, rstd, 1, 0.2, 1, grad_x, None, sums, workspace
    )
    leaf = last.requires_grad_()
    again = F.pad(F.instance_norm(leaf).relu(), (1, 1, 1, 1), mode="reflect")
    (truth,) = torch.autograd.grad(again, leaf, y[1:, 62:].double())
    assert_close(grad_x[1:, 62:], None, truth, "grad_x", ulps=2)
    del x, grad_x, sums
    folded = laid_out(torch.empty(shape, dtype=torch.bfloat16, device="cuda"), layout)
    raw_ops.ops.reflect_pad2d_bwd(y, 1, folded)
    raw_ops.ops.reflect_pad2d_fwd(folded, 1, y)
    expected = F.pad(folded[1:, 62:], (1, 1, 1, 1), mode="reflect")
    assert torch.equal(y[1:, 62:], expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_wrong_arguments_are_named(layout):
    case = NormCase((2, 8, 6, 5), torch.float32, layout, pad=1)
    t = case.allocate()
    for name, wrong in (
        ("mean", t["mean"].double()),
        ("y", t["y"][:, :, 1:]),
        ("rstd", t["rstd"].cpu()),
        ("weight", torch.ones(3, device=raw_ops.device)),
    ):
        with pytest.raises(RuntimeError, match=f"instance_norm_act_fwd: {name} must be"):
            case.forward({**t, name: wrong})
    if t["workspace"].numel():
        with pytest.raises(RuntimeError, match="workspace must be"):
            case.forward({**t, "workspace": t["workspace"][1:]})
