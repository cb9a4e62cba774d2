# SPDX-License-Identifier: MIT
"""Raw ops refuse wrong arguments, naming op, argument, what is expected and what came."""

from __future__ import annotations

import re

import pytest
import torch
from raw_calls import ops

X = torch.randn(2, 3, 6, 5)
Y = torch.empty(2, 3, 8, 7)
STATS = torch.empty(2, 3)
SUMS = torch.empty(2, 2, 3)
WORK = torch.empty(64)
TWICE = torch.empty(200)
LAST = X.to(memory_format=torch.channels_last)


def forward(**changes):
    arguments = {
        "x": X, "weight": None, "bias": None, "residual": None, "act": 1, "negative_slope": 0.2,
        "pad": 1, "eps": 1e-5, "y": Y, "mean": STATS, "rstd": STATS.clone(), "workspace": WORK,
    }  # fmt: skip
    ops.instance_norm_act_fwd(*(arguments | changes).values())


def backward(**changes):
    arguments = {
        "grad_y": Y, "grad_skip": None, "x": X, "weight": None, "bias": None, "mean": STATS,
        "rstd": STATS, "act": 1, "negative_slope": 0.2, "pad": 1, "grad_x": torch.empty_like(X),
        "grad_residual": None, "sums": SUMS, "workspace": WORK,
    }  # fmt: skip
    ops.instance_norm_act_bwd(*(arguments | changes).values())


SIGN, GRAD = X.char(), X.clone()


def l1(a=X, b=X, loss=None, sign=None, workspace=WORK):
    ops.l1_loss_fwd(a, b, torch.empty(()) if loss is None else loss, sign, workspace)


def l1_backward(sign=SIGN, grad_a=GRAD, grad_b=None):
    ops.l1_loss_bwd(torch.ones(()), sign, grad_a, grad_b)


def lsgan_backward(grad_loss=None, pred=X, target=None, grad_pred=None, grad_target=None):
    one = torch.ones(()) if grad_loss is None else grad_loss
    ops.lsgan_loss_bwd(one, pred, target, 1.0, grad_pred, grad_target)


CASES = [
    (forward, {"x": X.int()}, "x must be float16, bfloat16, float32 or float64, got Int"),
    (forward, {"x": X[0]}, "x must be of shape [N, C, H, W], got [3, 6, 5]"),
    (forward, {"x": X[:, :, ::2]}, "x must be contiguous or channels_last, got strides [90, 30"),
    (forward, {"weight": X[0, 0, 0]}, "weight must be of shape [3], got [5]"),
    (forward, {"weight": torch.ones(3).half()}, "weight must be of dtype float32, got float16"),
    (forward, {"bias": torch.ones(6)[::2]}, "bias must be contiguous, got strides [2]"),
    (forward, {"residual": Y}, "residual must be of shape [2, 3, 6, 5], got [2, 3, 8, 7]"),
    (forward, {"residual": X.bfloat16()}, "residual must be of dtype float32, got bfloat16"),
    (forward, {"act": 3}, "act must be 0 none, 1 relu or 2 leaky_relu, got 3"),
    (forward, {"pad": 5}, "pad must be at least 0 and less than min(H, W) = 5, got 5"),
    (forward, {"pad": -1}, "pad must be at least 0 and less than min(H, W) = 5, got -1"),
    (forward, {"y": X}, "y must be of shape [2, 3, 8, 7], got [2, 3, 6, 5]"),
    (
        forward,
        {"y": Y.to(memory_format=torch.channels_last)},
        "y must be contiguous as the first tensor, got strides [168, 1, 21, 3]",
    ),
    (forward, {"x": LAST, "workspace": WORK}, "y must be channels_last as the first tensor"),
    (forward, {"mean": torch.empty(3, 2)}, "mean must be of shape [2, 3], got [3, 2]"),
    (forward, {"rstd": STATS.double()}, "rstd must be of dtype float32, got float64"),
    (
        forward,
        {"x": LAST, "y": Y.to(memory_format=torch.channels_last), "workspace": WORK[:50]},
        "workspace must be contiguous with at least 72 elements, got 50 elements",
    ),
    (
        forward,
        {"x": LAST, "y": Y.to(memory_format=torch.channels_last), "workspace": TWICE[::2]},
        "workspace must be contiguous with at least 72 elements, got 100 elements, strides [2]",
    ),
    (backward, {"grad_y": None}, "grad_y or grad_skip must be given, got neither"),
    (backward, {"grad_y": X}, "grad_y must be of shape [2, 3, 8, 7], got [2, 3, 6, 5]"),
    (backward, {"grad_skip": Y}, "grad_skip must be of shape [2, 3, 6, 5], got [2, 3, 8, 7]"),
    (backward, {"grad_x": LAST.clone()}, "grad_x must be contiguous as the first tensor"),
    (backward, {"grad_residual": Y}, "grad_residual must be of shape [2, 3, 6, 5], got"),
    (backward, {"sums": STATS}, "sums must be of shape [2, 2, 3], got [2, 3]"),
    (l1, {"b": Y}, "b must be of shape [2, 3, 6, 5], got [2, 3, 8, 7]"),
    (l1, {"b": X.half()}, "b must be of dtype float32, got float16"),
    (l1, {"b": LAST}, "b must be contiguous or channels_last as the first tensor, got strides"),
    (l1, {"a": X[:, :, ::2], "b": X[:, :, ::2]}, "a must be contiguous or channels_last as"),
    (l1, {"loss": torch.empty(2)}, "loss must be of one element, got [2]"),
    (l1, {"loss": torch.empty((), dtype=torch.float64)}, "loss must be of dtype float32, got"),
    (l1, {"a": torch.ones(9000), "b": torch.ones(9000), "workspace": WORK[:2]}, "at least 3 elem"),
    (l1, {"sign": X.clone()}, "sign must be of dtype int8, got Float"),
    (l1, {"sign": Y.char()}, "sign must be of shape [2, 3, 6, 5], got [2, 3, 8, 7]"),
    (l1, {"sign": LAST.char()}, "sign must be contiguous or channels_last as the first tensor"),
    (l1_backward, {"sign": X}, "sign must be of dtype int8, got Float"),
    (l1_backward, {"grad_a": None}, "grad_a or grad_b must be given, got neither"),
    (l1_backward, {"grad_b": X.half()}, "grad_b must be of dtype float32, got float16"),
    (l1_backward, {"grad_a": Y}, "grad_a must be of shape [2, 3, 6, 5], got [2, 3, 8, 7]"),
    (lsgan_backward, {"grad_loss": torch.ones(3)}, "grad_loss must be of one element, got [3]"),
    (lsgan_backward, {"target": Y}, "target must be of shape [2, 3, 6, 5], got [2, 3, 8, 7]"),
    (lsgan_backward, {"grad_pred": LAST.clone()}, "grad_pred must be contiguous or channels_last"),
]
NAMES = {
    forward: "instance_norm_act_fwd",
    backward: "instance_norm_act_bwd",
    l1: "l1_loss_fwd",
    l1_backward: "l1_loss_bwd",
    lsgan_backward: "lsgan_loss_bwd",
}


@pytest.mark.parametrize(("call", "changes", "message"), CASES, ids=[c[2][:40] for c in CASES])
def test_refused_with_a_message(call, changes, message):
    with pytest.raises(RuntimeError, match=re.escape(message)) as raised:
        call(**changes)
    assert str(raised.value).startswith(f"cyclegan_fast_C::{NAMES[call]}: ")


def test_strides_of_sizes_of_one_do_not_matter():
    x, y = X[1:2, :1], Y[1:2, :1]  # strides 90, 30 where a tensor of its own has 30, 30
    stats, like = torch.empty(1, 1), torch.empty(1, 1, 6, 5)
    forward(x=x, y=y, mean=stats, rstd=stats.clone())
    backward(
        x=x, grad_y=y, mean=stats, rstd=stats, grad_x=like, grad_residual=X[:1, 2:].clone(),
        sums=torch.empty(2, 1, 1),
    )  # fmt: skip
    l1(a=x, b=X[:1, 1:2])


@pytest.mark.parametrize("call", NAMES, ids=NAMES.values())
def test_accepted_as_it_stands(call):
    call()  # so that each refusal above is due to its one change


@pytest.mark.parametrize(
    ("op", "arguments", "message"),
    [
        ("reflect_pad2d_fwd", (X, 5, Y), "pad must be at least 0 and less than min(H, W) = 5"),
        ("reflect_pad2d_fwd", (X, 1, X), "y must be of shape [2, 3, 8, 7], got [2, 3, 6, 5]"),
        ("reflect_pad2d_copy", (X, 5, Y), "pad must be at least 0 and less than min(H, W) = 5"),
        ("reflect_pad2d_copy", (X, 1, X), "y must be of shape [2, 3, 8, 7], got [2, 3, 6, 5]"),
        (
            "reflect_pad2d_copy",
            (X, 1, Y.double()),
            "y must be of dtype float64 if x is, and only then, got float64",
        ),
        ("reflect_pad2d_copy", (X, 1, Y.mT.contiguous().mT), "y must be contiguous or channels"),
        ("reflect_pad2d_bwd", (Y, 1, Y), "grad_x must be of shape [2, 3, 6, 5], got [2, 3, 8, 7]"),
        ("reflect_pad2d_bwd", (Y, 4, X), "pad must be at least 0 and less than min(H, W) = -1"),
    ],
)
def test_reflect_pad2d_refuses(op, arguments, message):
    with pytest.raises(RuntimeError, match=re.escape(f"cyclegan_fast_C::{op}: {message}")):
        getattr(ops, op)(*arguments)


IMAGE = torch.zeros(2, 3, 6, 7).contiguous(memory_format=torch.channels_last)
FACTORS, PRODUCTS = torch.empty(12, 16, 3), torch.empty(16, 4, 3)
FILTERS = torch.empty(4, 3, 3, 3).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("part", "arguments", "message"),
    [
        ("factors", (IMAGE[0], False, 0, FACTORS), "image must be of shape [N, C, H, W], got [3"),
        ("factors", (IMAGE.half(), False, 0, FACTORS), "image must be of dtype float32, got flo"),
        ("factors", (IMAGE.contiguous(), False, 0, FACTORS), "image must be channels_last as"),
        ("factors", (IMAGE[..., :2, :], False, 0, FACTORS), "image must be channels_last"),
        ("factors", (IMAGE[:, :, :2].clone(), False, 0, FACTORS), "image must be larger than 2"),
        ("factors", (IMAGE, False, 0, FACTORS[0]), "factors must be of shape [windows, 16, C], go"),
        ("factors", (IMAGE, False, 0, FACTORS[:, 1:]), "factors must be of shape [12, 16, 3], go"),
        ("factors", (IMAGE, False, 1, FACTORS), "first must be at least 0, with 12 of 12 windows"),
        ("factors", (IMAGE, False, -1, FACTORS), "first must be at least 0, with 12 of 12 window"),
        ("gather", (FACTORS[0], FILTERS), "products must be of shape [16, C_out, C], got [16, 3]"),
        ("gather", (FACTORS, FILTERS), "products must be of shape [16, 16, 3], got [12, 16, 3]"),
        ("gather", (PRODUCTS, FILTERS[1:]), "grad_weight must be of shape [4, 3, 3, 3], got [3,"),
        ("gather", (PRODUCTS, FILTERS.contiguous()), "grad_weight must be channels_last as the"),
    ],
)
def test_winograds_transforms_refuse(part, arguments, message):
    op = f"reflect_conv2d_winograd_{part}"
    with pytest.raises(RuntimeError, match=re.escape(f"cyclegan_fast_C::{op}: {message}")):
        getattr(ops, op)(*arguments)


THIN = torch.zeros(2, 3, 4, 7).contiguous(memory_format=torch.channels_last)
ROWS = torch.zeros(2, 9, 6, 7).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("op", "arguments", "message"),
    [
        ("sum_rows", (ROWS[0], None, False, THIN), "rows must be of shape [N, C, H, W], got [9, 6"),
        ("sum_rows", (ROWS, None, False, THIN[0]), "image must be of shape [N, C, H, W], got [3, "),
        ("sum_rows", (ROWS[:, :8], None, False, THIN), "rows must be of shape [2, 6, 6, 7], got"),
        ("sum_rows", (ROWS[..., 1:], None, False, THIN), "rows must be of shape [2, 9, 6, 7], got"),
        (
            "sum_rows",
            (ROWS.half(), None, False, THIN),
            "rows must be of dtype float32, got float16",
        ),
        ("sum_rows", (ROWS.contiguous(), None, False, THIN), "rows must be channels_last as"),
        ("sum_rows", (ROWS, THIN[0, 0, 0], False, THIN), "bias must be of shape [3], got [7]"),
        ("spread_rows", (THIN.contiguous(), ROWS), "image must be channels_last as the first ten"),
        ("spread_rows", (THIN.int(), ROWS), "image must be float16, bfloat16, float32 or float64"),
        ("spread_rows", (THIN[:1], ROWS), "rows must be of shape [1, 9, 6, 7], got [2, 9, 6, 7]"),
    ],
)
def test_thin_rows_refuse(op, arguments, message):
    op = f"reflect_conv2d_{op}"
    with pytest.raises(RuntimeError, match=re.escape(f"cyclegan_fast_C::{op}: {message}")):
        getattr(ops, op)(*arguments)


def test_winograds_transforms_accept_what_is_right():
    ops.reflect_conv2d_winograd_factors(IMAGE, False, 0, torch.empty(12, 16, 3))
    ops.reflect_conv2d_winograd_factors(IMAGE, True, 4, torch.empty(20, 16, 3))
    ops.reflect_conv2d_winograd_gather(PRODUCTS, FILTERS)
